package core

import (
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// cutStage is how far the cut under way is.
type cutStage uint8

const (
	noCut cutStage = iota
	// cutWanted: it waits until it may begin, and for a flush that the core wants first: the
	// members then have little to write out while clients wait. Clients go on.
	cutWanted
	// cutDraining: admission is stopped, and what is under way ends.
	cutDraining
	// cutTaking: the members are taking it; admission is stopped still.
	cutTaking
	// cutFlushing: every member has it, and clients go on. It is proposed when a flush
	// that began after that is finished.
	cutFlushing
	// cutProposed: its proposal is open, or the outcome was not heard.
	cutProposed
	// cutCommitted: it is in the view, which is being stored.
	cutCommitted
)

// cutState is the one cut under way.
type cutState struct {
	stage    cutStage
	snapshot block.Snapshot
	// until is when a cut that keeps clients waiting is given up.
	until block.Instant
	// stamp is that of the update that takes it.
	stamp uint64
	// after is the serial at which it was wanted, and then that at which every member had it.
	after uint64
}

// holds reports whether admission is stopped.
func (s *cutState) holds() bool { return s.stage == cutDraining || s.stage == cutTaking }

// open reports whether somebody may hold the cut whose outcome is not known.
func (s *cutState) open() bool { return s.stage >= cutTaking && s.stage <= cutProposed }

// askCut is EventCut.
func (c *Core) askCut(s *block.Snapshot) {
	switch {
	case c.cut.stage != noCut && c.cut.snapshot.ID == s.ID:
		// Its end will be told.
	case c.view.Snapshot(s.ID) != nil:
		c.emit(Effect{Kind: EffectCut, Snapshot: s.ID})
	case c.phase == draining || c.phase == ending:
		c.refuseCut(s.ID, block.ErrDetached)
	case s.ID.IsZero() || s.ID == block.KeptHead:
		c.refuseCut(s.ID, block.ErrInvalid)
	case c.heldBySomebody(s.ID):
		c.refuseCut(s.ID, block.ErrConflict)
	case c.cut.stage != noCut:
		c.refuseCut(s.ID, block.ErrUnavailable)
	default:
		c.cut = cutState{stage: cutWanted, snapshot: *s, after: c.serial}
		c.flush.wanted = true
		c.kick = true
	}
}

func (c *Core) refuseCut(id block.SnapshotID, err error) {
	c.emit(Effect{Kind: EffectCut, Snapshot: id, Err: err})
}

// endCut tells how the cut under way has ended. Without a commit what members hold
// of it is stray from now on.
func (c *Core) endCut(err error) {
	c.emit(Effect{Kind: EffectCut, Snapshot: c.cut.snapshot.ID, Err: err})
	c.cut = cutState{}
	c.meta.strays, c.kick, c.wake = true, true, true
}

// mayCut reports whether a cut may be taken now, but for what is still under way.
//
// Rule 24 (cuts): it is taken while nothing is divergent and every member is well,
// has no other change of the view or of the size open or begun by an earlier engine,
// and holds nothing of an earlier cut. Admission stops (holds), what is under way ends (drained), all members
// take it in one update, and so do the targets, as one that is not valid (takeCut).
// It is proposed when every member has finished a flush that began after that
// (proposeCut), and forgotten only when it was not proposed or Raft is known not to
// have taken it (strayCuts). A member that fails is removed first; past CutHold the
// cut is given up.
func (c *Core) mayCut() bool {
	return c.phase == serving && c.settled() && !c.proposal.open && c.healthy() == c.iss &&
		c.divide.count == 0 && c.unsure.count == 0 && !c.growing() && !c.meta.strays
}

// driveCut carries the cut on.
func (c *Core) driveCut() {
	s := &c.cut
	if c.phase == draining && s.stage != noCut && s.stage != cutCommitted && !c.proposal.open {
		c.endCut(block.ErrDetached)
		return
	}
	switch {
	case s.holds() && c.now >= s.until:
		c.guarded(GuardCutGivenUp)
		c.endCut(block.ErrUnavailable)
	case s.stage == cutWanted && !c.mayCut():
		c.guarded(GuardCutWaits)
	case s.stage == cutWanted && c.flush.clean > s.after && !c.meta.active:
		c.stopCounting()
		s.stage, s.until = cutDraining, c.now+block.Instant(c.cfg.Timing.CutHold)
		c.kick = true
	case s.stage == cutDraining && c.mayCut() && !c.meta.active && c.drained():
		c.takeCut()
	}
}

// drained reports that no mirrored write is under way.
func (c *Core) drained() bool {
	for i := range c.writes {
		if c.writes[i].used && c.writes[i].running {
			return false
		}
	}
	return true
}

// takeCut has everybody take the cut. Admission waits for the members; what is
// written from then on waits at each target for that target alone.
func (c *Core) takeCut() {
	s := &c.cut
	invariant.Assert(c.counting < 0 && c.drained(), "cut with a write under way")
	s.stage, s.snapshot.Size = cutTaking, c.view.Size
	ask := block.CutRequest{Snapshot: s.snapshot.ID, Epoch: c.view.Epoch}
	c.sendMeta(metaState{kind: metaCut, to: c.iss, cuts: []block.SnapshotID{ask.Snapshot}}, &block.Update{Cuts: []block.CutRequest{ask}})
	s.stamp = c.meta.stamp
	ask.Target = true
	for i := range c.peers {
		p := &c.peers[i]
		switch t := p.target; {
		case c.iss.has(i):
			p.addCut(s.snapshot.ID, c.view.Epoch, c.view.Size)
		case t != nil && t.active && p.link == linkOpen:
			c.prepareForCut(i)
			t.cutting = s.stamp
			p.addCut(s.snapshot.ID, c.view.Epoch, c.view.Size)
			c.call(i, forMeta, 0, s.stamp, block.Request{Op: block.OpUpdate, Update: &block.Update{Cuts: []block.CutRequest{ask}}})
		}
	}
}

// cutTaken: every member has it, and clients go on.
func (c *Core) cutTaken(stamp uint64) {
	s := &c.cut
	if s.stage != cutTaking || s.stamp != stamp {
		return
	}
	s.stage, s.after = cutFlushing, c.serial
	c.flush.wanted = true
}

// memberBack gives up a cut when a member is opened again before the flush that
// follows the cut: its store may have lost checksums that the cut needs.
func (c *Core) memberBack() {
	if s := &c.cut; s.stage == cutTaking || s.stage == cutFlushing && c.flush.clean <= s.after {
		c.guarded(GuardCutGivenUp)
		c.endCut(block.ErrUnavailable)
	}
}

// proposeCut proposes the cut that every member has durably.
func (c *Core) proposeCut() bool {
	s := &c.cut
	if s.stage != cutFlushing || c.flush.clean <= s.after || c.phase != serving || c.healthy() != c.iss {
		return false
	}
	for i := range c.iss.all() {
		c.peers[i].validCut(s.snapshot.ID)
	}
	s.stage = cutProposed
	snapshot := s.snapshot
	c.propose(block.Proposal{Snapshot: &snapshot})
	return true
}

// cutOutcome follows from a committed view: the snapshot is in it, or was not taken
// on the older revision and is proposed again.
func (c *Core) cutOutcome() {
	if s := &c.cut; s.stage == cutProposed {
		s.stage = cutFlushing
		if c.view.Snapshot(s.snapshot.ID) != nil {
			s.stage = cutCommitted
		}
	}
}

// The cuts that replicas hold.

func (p *peer) addCut(id block.SnapshotID, epoch block.Epoch, size int64) {
	if p.findCut(id) == nil {
		p.cuts = append(p.cuts, block.Cut{Snapshot: id, Epoch: epoch, Size: size, Kept: id == block.KeptHead})
	}
}

func (p *peer) findCut(id block.SnapshotID) *block.Cut {
	for k := range p.cuts {
		if p.cuts[k].Snapshot == id {
			return &p.cuts[k]
		}
	}
	return nil
}

func (p *peer) validCut(id block.SnapshotID) {
	if cut := p.findCut(id); cut != nil {
		cut.Valid = true
	}
}

func (p *peer) dropCuts(ids []block.SnapshotID) {
	p.cuts = slices.DeleteFunc(p.cuts, func(cut block.Cut) bool { return slices.Contains(ids, cut.Snapshot) })
}

func (c *Core) heldBySomebody(id block.SnapshotID) bool {
	for i := range c.peers {
		if c.peers[i].findCut(id) != nil {
			return true
		}
	}
	return false
}

// layered reports whether a cut of that name is one of the volume's layers: a
// committed one, or the one whose outcome is not known.
func (c *Core) layered(id block.SnapshotID) bool {
	return c.cut.open() && c.cut.snapshot.ID == id || c.view.Snapshot(id) != nil
}

// strayCuts are those that members hold and that are no snapshot and never will be:
// given up, left behind by an earlier engine, deleted; and the heads that they kept
// while they were away.
func (c *Core) strayCuts() []block.SnapshotID {
	var list []block.SnapshotID
	for i := range c.iss.all() {
		list = c.strayCutsOf(i, list)
	}
	return list
}

func (c *Core) strayCutsOf(i int, list []block.SnapshotID) []block.SnapshotID {
	for k := range c.peers[i].cuts {
		if id := c.peers[i].cuts[k].Snapshot; !c.layered(id) && !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}

// dropStrays forgets them on every member.
func (c *Core) dropStrays() bool {
	strays := c.strayCuts()
	if len(strays) == 0 {
		return false
	}
	c.sendMeta(metaState{kind: metaDropCuts, to: c.iss, cuts: strays}, &block.Update{DropCuts: strays})
	return true
}

// judgeCuts looks, by a new view, at what the members hold.
func (c *Core) judgeCuts() {
	c.meta.strays = true
	for i := range c.peers {
		p := &c.peers[i]
		p.partial = c.iss.has(i) && p.known && c.lacksCut(p)
	}
}

// lacksCut reports whether a replica lacks a snapshot of the view or the size of it,
// as a member never does.
func (c *Core) lacksCut(p *peer) bool {
	for k := range c.view.Snapshots {
		if cut := p.findCut(c.view.Snapshots[k].ID); cut == nil || !cut.Valid {
			return true
		}
	}
	return p.size < c.view.Size
}
