package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// attachState is the way from the first event to serving (rules 5, 7, 17, 18).
type attachState struct {
	// since is when the wait for members began.
	since block.Instant
	// storing: the view is as it shall be served, and is being stored.
	storing bool
}

// driveAttach takes the next step towards serving, if it can be taken now. Every
// step that changes the view goes through Raft and comes back here.
func (c *Core) driveAttach() {
	kept, decided := c.founders()
	if !decided {
		c.guarded(GuardMembers)
		return
	}
	if kept == 0 {
		c.endAttachment(c.openMembers())
		return
	}
	if doomed := c.iss &^ kept; doomed != 0 {
		c.noteRolledBack(doomed)
		c.propose(block.Proposal{
			Remove:       c.ids(doomed),
			Incarnations: c.changedIncarnations(kept),
		})
		return
	}
	if c.view.NotWaitedOut && c.now < c.waitedOutAt() {
		c.guarded(GuardWaitOut)
		return
	}
	changed := c.changedIncarnations(c.iss)
	if c.view.NotWaitedOut || len(changed) > 0 {
		c.propose(block.Proposal{Incarnations: changed, WaitedOut: c.view.NotWaitedOut})
		return
	}
	if !c.meta.stored {
		c.meta.viewOwed, c.attach.storing = true, true
		return
	}
	c.serve()
}

// founders are the members with which the engine will serve, and whether that is
// decided already.
//
// Rule 5 (who founds the in-sync set): the members that have acknowledged this epoch
// and lost no memory. The others are waited for, longer while all that are here lost
// theirs, and then removed: nothing is served before the committed in-sync set is
// the founders alone. If there is none, the attachment ends (rule 17).
func (c *Core) founders() (kept set, decided bool) {
	open, healthy := c.openMembers(), c.healthy()
	lacking := healthy == 0 || c.peers[healthy.first()].partial
	waits := open != c.iss && c.now < c.attachUntil() && (lacking || c.now < c.graceUntil())
	return healthy, open != 0 && !waits
}

// attachUntil is how long members are waited for while none of those that are here
// kept its memory.
func (c *Core) attachUntil() block.Instant {
	return c.attach.since + block.Instant(c.cfg.Timing.AttachWait)
}

// graceUntil is how long they are waited for when one did: from the moment at which
// the first was here, because until then the trouble may be on this side.
func (c *Core) graceUntil() block.Instant {
	first := c.firstAcknowledged()
	if first == never {
		return never
	}
	return max(first, c.attach.since) + block.Instant(c.cfg.Timing.AttachGrace)
}

// openMembers are the members with a session, whatever they lost.
func (c *Core) openMembers() set {
	var s set
	for i := range c.iss.all() {
		if c.peers[i].link == linkOpen {
			s |= bit(i)
		}
	}
	return s
}

// firstAcknowledged is when the first kept member acknowledged this epoch.
func (c *Core) firstAcknowledged() block.Instant {
	first := never
	for i := range c.iss.all() {
		if p := &c.peers[i]; p.acknowledged && p.epochAt < first {
			first = p.epochAt
		}
	}
	return first
}

// waitedOutAt is when no older engine can hold a lease any more: lease and
// margin after the first kept member acknowledged this epoch.
func (c *Core) waitedOutAt() block.Instant {
	first := c.firstAcknowledged()
	if first == never {
		return never
	}
	return first + block.Instant(c.cfg.Timing.Lease+c.cfg.Timing.LeaseMargin)
}

// noteRolledBack remembers for whom everything is dirty (rule 10).
func (c *Core) noteRolledBack(doomed set) {
	for i := range doomed.all() {
		if c.peers[i].rolledBack() {
			c.guarded(GuardRolledBack)
			c.peers[i].needAll = true
		}
		if p := &c.peers[i]; p.partial {
			c.guarded(GuardPartial)
			p.needAll = true
		}
	}
}

// endAttachment is rule 17: no member that lost nothing can be reached. Those
// that can stay, and what was acknowledged but not flushed may be gone, so the
// attachment ends in the same commit. A disk that went back behind a confirmed
// flush is kept only if there is nothing better.
func (c *Core) endAttachment(open set) {
	keep := open
	for i := range open.all() {
		if c.peers[i].rolledBack() && keep&^bit(i) != 0 {
			keep &^= bit(i)
		}
	}
	invariant.Assert(keep != 0, "end of attachment without a member")
	c.propose(block.Proposal{
		Remove:        c.ids(c.iss &^ keep),
		Incarnations:  c.changedIncarnations(keep),
		EndAttachment: true,
	})
}

// serve begins to serve.
func (c *Core) serve() {
	invariant.Assert(c.healthy() == c.iss, "serving without every member")
	invariant.Assert(!c.view.NotWaitedOut, "serving before older leases ended")
	invariant.Assert(!c.meta.viewOwed && !c.meta.active, "serving before the view is stored")
	c.meta.gated = false
	for i := range c.iss.all() {
		invariant.Assert(c.peers[i].acknowledged, "member %s did not acknowledge the epoch", c.peers[i].id)
	}
	union := c.unionLogs()
	for r := range union.All() {
		c.log.regions[r] = regionState{ended: c.serial, endedAt: c.now}
	}
	c.scheduleLog()
	c.suspectDivergence(union)
	for i := range c.peers {
		c.peers[i].heldDirty = nil
	}
	c.phase = serving
	c.wake, c.kick = true, true
	c.hastenPing()
	c.emit(Effect{Kind: EffectServing})
}
