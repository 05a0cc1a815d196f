package core

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// proposalState is the one proposal whose outcome is not known (rule 6).
type proposalState struct {
	open bool
	// asked is what was proposed.
	asked block.Proposal
	// leaving and joining are the replicas it removes and admits.
	leaving, joining set
	// retryAt is when an unknown outcome is settled by a no-op on the same
	// revision; waiting says that it is due then.
	retryAt block.Instant
	waiting bool
	// notBefore holds back the next proposal after a conflict that changed
	// nothing.
	notBefore block.Instant
}

// mayPropose reports whether a proposal can be made now.
func (c *Core) mayPropose() bool {
	return !c.proposal.open && !c.mustStop && c.now >= c.proposal.notBefore
}

// propose asks Raft for a change of the view.
func (c *Core) propose(p block.Proposal) {
	invariant.Assert(!c.proposal.open, "two proposals at once")
	p.Volume, p.Epoch, p.Revision = c.view.Volume, c.view.Epoch, c.view.Revision
	c.hastenPing()
	s := proposalState{open: true, asked: p}
	for _, id := range p.Remove {
		s.leaving |= bit(c.peerOf(id))
	}
	for _, id := range p.Admit {
		s.joining |= bit(c.peerOf(id))
	}
	invariant.Assert(c.iss&^s.leaving != 0, "proposal to remove the last member")
	c.proposal = s
	c.emit(Effect{Kind: EffectPropose, Proposal: p})
}

// settle ends an unknown outcome by a no-op that competes for the same revision.
func (c *Core) settle() {
	c.proposal.waiting = false
	c.emit(Effect{Kind: EffectPropose, Proposal: block.Proposal{
		Volume: c.view.Volume, Epoch: c.view.Epoch, Revision: c.proposal.asked.Revision,
	}})
}

// outcome is what Raft said of a proposal or of the no-op that settles it.
func (c *Core) outcome(ev *Event) {
	if ev.Verdict == block.Unknown {
		if c.proposal.open && ev.Proposal.Revision == c.proposal.asked.Revision && !c.proposal.waiting {
			c.proposal.waiting = true
			c.proposal.retryAt = c.now + block.Instant(c.cfg.Timing.ProposeRetry)
		}
		return
	}
	if !c.seen(&ev.View) || !c.proposal.open || ev.Proposal.Revision != c.proposal.asked.Revision {
		return
	}
	if ev.View.Revision != c.proposal.asked.Revision {
		return
	}
	// The view shows the very revision that was proposed on.
	retryAt := c.now + block.Instant(c.cfg.Timing.ProposeRetry)
	if sameProposal(&ev.Proposal, &c.proposal.asked) {
		// It was refused for what it asks, and was handed in only once.
		refused := c.proposal.asked
		c.proposal = proposalState{notBefore: retryAt}
		c.refusedByRaft(&refused)
		c.dropFailedTargets()
		c.wake, c.kick = true, true
		return
	}
	c.proposal.waiting, c.proposal.retryAt = true, retryAt
}

// refusedByRaft gives up what is nobody's intent any more: a snapshot that was
// deleted before it was taken, a size that Raft does not want. All else is asked for
// again.
func (c *Core) refusedByRaft(p *block.Proposal) {
	if p.Snapshot != nil && c.cut.stage == cutProposed {
		c.endCut(block.ErrConflict)
	}
	if p.Size != 0 {
		c.grow.wanted = 0
	}
}

// sameProposal tells a proposal from the no-op on the same revision.
func sameProposal(a, b *block.Proposal) bool {
	return len(a.Remove) == len(b.Remove) && len(a.Admit) == len(b.Admit) &&
		len(a.Incarnations) == len(b.Incarnations) &&
		a.WaitedOut == b.WaitedOut && a.EndAttachment == b.EndAttachment &&
		(a.Snapshot == nil) == (b.Snapshot == nil) && a.Size == b.Size
}

// seen is a committed view. It reports whether this engine is still the one of
// the current epoch.
func (c *Core) seen(v *block.View) bool {
	switch {
	case v.Epoch == 0 || v.Volume != c.view.Volume:
		return true
	case v.Epoch == c.view.Epoch && v.Start.IsZero() && v.Revision > c.view.Revision:
		c.attachmentOver(v)
		return false
	case v.Cluster > c.view.Cluster || v.Generation > c.view.Generation || v.Epoch > c.view.Epoch ||
		v.Epoch == c.view.Epoch && v.Start != c.view.Start:
		c.fenced("Raft shows epoch %d", v.Epoch)
		return false
	case v.Epoch < c.view.Epoch || v.Revision <= c.view.Revision:
		return true
	}
	c.adopt(v)
	return true
}

// adopt makes a newer committed view of this epoch the known one. Whatever was
// proposed on an older revision has landed in it, or never can.
func (c *Core) adopt(v *block.View) {
	if c.tooMany(v) {
		c.stop(fmt.Errorf("volume %s: more than %d replicas in one epoch: %w", v.Volume, maxReplicas, block.ErrUnavailable))
		return
	}
	old, known := c.iss, len(c.peers)
	quiet, layers := sameMembers(&c.view, v), sameSnapshots(&c.view, v)
	c.proposal = proposalState{}
	c.view = v.Clone()
	c.indexReplicas()
	invariant.Assert(c.iss != 0, "committed view %d has no member", v.Revision)
	if !quiet || !layers {
		c.stamp++
	}
	c.meta.viewOwed, c.meta.stored, c.attach.storing = true, false, false
	c.meta.gated = c.meta.gated || !quiet
	c.wake, c.kick = true, true
	c.cutOutcome()
	c.judgeCuts()
	if c.counting >= 0 && c.iss.has(c.counting) {
		c.counting = -1
	}
	for i := range (old &^ c.iss).all() {
		c.memberRemoved(i)
	}
	for i := range (c.iss &^ old).all() {
		c.memberAdmitted(i)
	}
	if c.phase != attaching && len(c.peers) > known {
		c.stopCounting()
		for i := known; i < len(c.peers); i++ {
			c.peers[i].needAll = true
		}
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.gone && p.link != linkDown {
			c.fail(i, block.ErrNotFound)
		}
	}
	c.dropFailedTargets()
	if c.view.Attachment != c.cfg.View.Attachment {
		c.stop(fmt.Errorf("volume %s: attachment %s: %w", v.Volume, c.cfg.View.Attachment, block.ErrDetached))
	}
}

// sameMembers reports whether a view says the same as another of all that an
// acknowledgement relies on: who is in sync and who was removed when, which leases are
// waited out, how large the volume is.
func sameMembers(a, b *block.View) bool {
	return a.NotWaitedOut == b.NotWaitedOut && a.Size == b.Size && a.Attachment == b.Attachment &&
		slices.Equal(a.Replicas, b.Replicas)
}

func sameSnapshots(a, b *block.View) bool { return slices.Equal(a.Snapshots, b.Snapshots) }

// dropFailedTargets lets those go that failed while their admission was open,
// and whose admission did not land.
func (c *Core) dropFailedTargets() {
	for i := range c.peers {
		if p := &c.peers[i]; !p.gone && !c.iss.has(i) && p.failed != nil {
			p.failed = nil
			c.endTarget(i)
			c.cancelCalls(i)
		}
	}
}

// driveProposals makes the proposal that is needed most, one at a time.
func (c *Core) driveProposals() {
	if c.proposal.open {
		if c.proposal.waiting && c.now >= c.proposal.retryAt {
			c.settle()
		}
		return
	}
	if !c.mayPropose() {
		return
	}
	if c.phase == attaching {
		c.driveAttach()
		return
	}
	switch {
	case c.proposeRemoval(), c.proposeIncarnations(), c.proposeCut(), c.proposeGrow(), c.proposeAdmission(), c.proposeRetirement():
	}
}

// changedIncarnations are those of the given members that the view does not
// have yet.
func (c *Core) changedIncarnations(members set) []block.MemberIncarnation {
	var list []block.MemberIncarnation
	for i := range members.all() {
		p := &c.peers[i]
		if p.known && c.member(i).Incarnation != p.incarnation {
			list = append(list, block.MemberIncarnation{Replica: p.id, Incarnation: p.incarnation})
		}
	}
	return list
}

// proposeIncarnations records those of members that reopened with nothing lost.
func (c *Core) proposeIncarnations() bool {
	list := c.changedIncarnations(c.healthy())
	if len(list) == 0 {
		return false
	}
	c.propose(block.Proposal{Incarnations: list})
	return true
}

func (c *Core) ids(s set) []block.ReplicaID {
	var list []block.ReplicaID
	for i := range s.all() {
		list = append(list, c.peers[i].id)
	}
	return list
}
