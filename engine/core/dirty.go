package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// metaKind is what an update of the replicas' metadata is for.
type metaKind uint8

const (
	// metaView stores the view, with the dirty sets of those who left and
	// without those of the ones who joined.
	metaView metaKind = iota
	// metaAdd adds to dirty sets.
	metaAdd
	// metaClearDirty takes out of a dirty set what its replica has again.
	metaClearDirty
	// metaTakeOver gives a target all dirty sets (rule 23).
	metaTakeOver
	// metaClearLog takes regions out of the intent logs (rule 15).
	metaClearLog
	// metaCut takes a cut (rule 24), metaDropCuts forgets cuts.
	metaCut
	metaDropCuts
	// metaPrepare gives a target the cuts and the size that it lacks (rule 25).
	metaPrepare
	// metaSpend has a target give up the head that it kept.
	metaSpend
	// metaGrow grows replicas (rule 27).
	metaGrow
)

// metaState is the one update under way, and what is owed to the members. One at
// a time, so that what every member durably holds is always known.
type metaState struct {
	active bool
	kind   metaKind
	stamp  uint64
	// to are the replicas that must finish it, done those that did.
	to, done set
	// revision is that of the view in a metaView.
	revision block.Revision
	// subject is the replica whose dirty set changes, or the target.
	subject int
	// regions are those of metaAdd, metaClearDirty and metaClearLog.
	regions block.Regions
	// sets are the dirty sets of a metaView.
	sets []heldSet
	// cuts are those that a metaView, metaDropCuts, metaTakeOver, metaPrepare or metaSpend drops,
	// and the one that a metaCut takes. size is what it grows to.
	cuts []block.SnapshotID
	size int64
	// asked is what a metaPrepare asks for.
	asked *block.Update

	// viewOwed: the last view is not yet stored on all members. gated: one that
	// acknowledgements rely on is not, which closes the gate of settled().
	viewOwed, gated bool
	// stored: while attaching, all members have the view.
	stored bool
	// dirtyOwed are replicas whose dirty set must be made, dropOwed those whose
	// sets must go.
	dirtyOwed, dropOwed set
	// strays: members may hold cuts that must go.
	strays bool
}

// heldSet is a dirty set that all members have once the update is done.
type heldSet struct {
	peer    int
	regions block.Regions
}

// driveMeta sends the next update that is owed.
func (c *Core) driveMeta() {
	if c.meta.active {
		c.checkMeta()
		return
	}
	if c.meta.viewOwed {
		if c.phase != attaching || c.attach.storing {
			c.storeView()
		}
		return
	}
	if !c.settled() {
		return
	}
	if c.meta.strays = c.meta.strays && c.dropStrays(); c.meta.active || c.cut.holds() {
		return
	}
	for i := range c.absent().all() {
		p := &c.peers[i]
		if p.want == nil {
			continue
		}
		if p.dirty.Contains(p.want) {
			p.want = nil
			continue
		}
		c.addDirty(i)
		return
	}
	if c.prepare() || c.makeRoom() || c.clearDirty() || c.takeOver() {
		return
	}
	c.clearLog()
}

// sendMeta begins an update. The update is never changed afterwards: several
// links may hold it, for as long as they like.
func (c *Core) sendMeta(m metaState, update *block.Update) {
	m.viewOwed, m.gated, m.stored = c.meta.viewOwed, c.meta.gated, c.meta.stored
	m.dirtyOwed, m.dropOwed, m.strays = c.meta.dirtyOwed, c.meta.dropOwed, c.meta.strays
	m.active = true
	m.stamp = c.meta.stamp + 1
	c.meta = m
	for i := range m.to.all() {
		c.call(i, forMeta, 0, m.stamp, block.Request{Op: block.OpUpdate, Update: update})
	}
}

func (c *Core) metaReplied(i int, e *call) {
	if t := c.peers[i].target; t != nil && t.cutting == e.stamp {
		t.cutting = 0
		c.pump(i)
		c.kick = true
	}
	if !c.meta.active || c.meta.stamp != e.stamp {
		return
	}
	c.meta.done |= bit(i)
	c.noteStored(i)
	c.kick = true
}

// noteStored follows the update under way, which a replica has stored.
func (c *Core) noteStored(i int) {
	p, m := &c.peers[i], &c.meta
	switch m.kind {
	case metaClearLog:
		p.log.Subtract(m.regions)
	case metaView, metaDropCuts, metaTakeOver:
		p.dropCuts(m.cuts)
	case metaCut:
		// It may have been given up meanwhile.
		p.addCut(m.cuts[0], c.view.Epoch, c.view.Size)
		m.strays = true
	case metaPrepare:
		p.dropCuts(m.cuts)
		c.prepared(i, m.asked)
	case metaSpend:
		p.dropCuts(m.cuts)
		p.whole = false
	}
	p.size = max(p.size, m.size)
	p.partial = p.partial && c.lacksCut(p)
}

// checkMeta ends the update when everybody who is left has finished it.
func (c *Core) checkMeta() {
	m := &c.meta
	if !m.active || m.to&^m.done != 0 {
		return
	}
	m.active = false
	c.kick, c.wake = true, true
	switch m.kind {
	case metaView:
		c.viewStored()
	case metaAdd:
		p := &c.peers[m.subject]
		if p.dirtyHeld && !c.meta.dirtyOwed.has(m.subject) {
			p.dirty.Union(m.regions)
		}
	case metaClearDirty:
		c.dirtyCleared()
	case metaTakeOver:
		if t := c.peers[m.subject].target; t != nil && t.taking == m.stamp && m.done.has(m.subject) {
			t.took = true
		}
	case metaClearLog:
		c.logCleared()
	case metaCut:
		c.cutTaken(m.stamp)
	}
}

// storeView stores the view on all members, in one durable step with the dirty
// sets that belong to it.
func (c *Core) storeView() {
	view := c.view.Clone()
	update := &block.Update{View: &view}
	m := metaState{kind: metaView, to: c.iss, revision: view.Revision}
	for i := range c.absent().all() {
		regions, change := c.dirtySetOf(i)
		if !change {
			continue
		}
		if c.meta.dirtyOwed.has(i) && !regions.Empty() {
			c.guarded(GuardRemovalSet)
		}
		update.SetDirty = append(update.SetDirty, block.DirtySet{
			Replica: c.peers[i].id, Removal: c.member(i).Removed, Regions: regions,
		})
		m.sets = append(m.sets, heldSet{peer: i, regions: regions.Clone()})
	}
	if c.meta.strays {
		m.cuts = c.strayCuts()
		update.DropCuts = m.cuts
	}
	if least, most := c.sizes(); least < c.view.Size {
		m.size = max(most, c.view.Size)
		update.Grow = m.size
	}
	update.DropDirty = c.staleSets()
	for i := range c.meta.dropOwed.all() {
		update.DropDirty = append(update.DropDirty, c.peers[i].id)
	}
	c.sendMeta(m, update)
}

// dirtySetOf is the dirty set that all members must hold for an absent replica,
// and whether any of them has yet to be given it.
//
// Rule 16 (dirty sets): one is named by the revision of its replica's removal, and
// begins as all that the remaining members' logs name. It is stored with the view
// that removes the replica, so that the gate is shut (settled) until every member
// holds it. When a target's session ends, the logs are added again (endTarget).
func (c *Core) dirtySetOf(i int) (regions block.Regions, change bool) {
	p := &c.peers[i]
	switch {
	case p.needAll:
		return block.AllRegions(c.view.Size), true
	case c.meta.dirtyOwed.has(i):
		return c.unionLogs(), true
	case p.dirtyHeld:
		return nil, false
	}
	// Attaching: what the members brought along. A set under another name, or
	// none, is no knowledge: everything is dirty (rule 22).
	for k := range c.iss.all() {
		held := findDirty(c.peers[k].heldDirty, p.id, c.member(i).Removed)
		if held == nil {
			c.guarded(GuardNoSet)
			return block.AllRegions(c.view.Size), true
		}
		regions.Union(held.Regions)
	}
	for k := range c.iss.all() {
		held := findDirty(c.peers[k].heldDirty, p.id, c.member(i).Removed)
		change = change || !held.Regions.Contains(regions)
	}
	if !change {
		p.dirty, p.dirtyHeld = regions, true
	}
	return regions, change
}

func findDirty(sets []block.DirtySet, id block.ReplicaID, removal block.Revision) *block.DirtySet {
	for i := range sets {
		if sets[i].Replica == id && sets[i].Removal == removal {
			return &sets[i]
		}
	}
	return nil
}

// staleSets are those that members brought along for replicas that are in sync
// or gone: left behind by an engine that ended between a commit and its update.
func (c *Core) staleSets() []block.ReplicaID {
	var list []block.ReplicaID
	for k := range c.iss.all() {
		for _, s := range c.peers[k].heldDirty {
			m := c.view.Member(s.Replica)
			if (m == nil || m.InSync) && !containsID(list, s.Replica) {
				list = append(list, s.Replica)
			}
		}
	}
	return list
}

func containsID(list []block.ReplicaID, id block.ReplicaID) bool {
	for _, k := range list {
		if k == id {
			return true
		}
	}
	return false
}

// viewStored opens the gate, unless the view has changed meanwhile.
func (c *Core) viewStored() {
	if c.meta.revision != c.view.Revision {
		return
	}
	for _, s := range c.meta.sets {
		p := &c.peers[s.peer]
		p.dirty, p.dirtyHeld, p.needAll = s.regions, true, false
	}
	for i := range c.absent().all() {
		invariant.Assert(c.peers[i].dirtyHeld, "no dirty set for absent replica %s", c.peers[i].id)
	}
	c.meta.sets = nil
	c.meta.dirtyOwed, c.meta.dropOwed = 0, 0
	c.meta.viewOwed, c.meta.gated, c.meta.stored = false, false, true
	c.tellSize()
	if c.cut.stage == cutCommitted {
		c.endCut(nil)
	}
}

// holders are those who must hold every addition to a dirty set: the members,
// and a target that took the sets over.
func (c *Core) holders() set {
	s := c.iss
	if c.counting >= 0 && c.peers[c.counting].target.took {
		s |= bit(c.counting)
	}
	return s
}

// addDirty makes what is wanted durable on every member.
func (c *Core) addDirty(i int) {
	p := &c.peers[i]
	regions := p.want
	p.want = nil
	invariant.Assert(p.dirtyHeld, "addition to the unknown dirty set of %s", p.id)
	c.sendMeta(metaState{kind: metaAdd, to: c.holders(), subject: i, regions: regions}, &block.Update{
		AddDirty: []block.DirtySet{{Replica: p.id, Removal: c.member(i).Removed, Regions: regions.Clone()}},
	})
}

// wantDirty asks for an addition to a dirty set.
func (c *Core) wantDirty(i int, regions block.Regions) {
	p := &c.peers[i]
	if !regions.Empty() {
		p.want.Union(regions)
		c.kick = true
	}
}

// clearDirty takes out of the dirty sets what targets hold again durably.
func (c *Core) clearDirty() bool {
	for i := range c.absent().all() {
		p := &c.peers[i]
		t := p.target
		if t == nil || t.cleared.Empty() {
			continue
		}
		regions := t.cleared.Clone()
		t.clearing = t.cleared
		t.cleared = nil
		c.sendMeta(metaState{kind: metaClearDirty, to: c.iss, subject: i, regions: regions}, &block.Update{
			ClearDirty: []block.DirtySet{{Replica: p.id, Removal: c.member(i).Removed, Regions: regions.Clone()}},
		})
		// From here on some member may have forgotten them.
		p.dirty.Subtract(regions)
		return true
	}
	return false
}

// dirtyCleared: what was not missed again meanwhile is no longer missing.
func (c *Core) dirtyCleared() {
	t := c.peers[c.meta.subject].target
	if t == nil {
		return
	}
	t.missing.Subtract(t.clearing)
	t.clearing = nil
	c.progress(c.meta.subject)
}

// takeOver gives a target that counts what the members know of others.
//
// Rule 23 (takeover): before it is proposed it holds the dirty sets of all other
// absent replicas, each with all that the members' logs name, instead of its own
// older ones: it may be the only member some day. It holds every snapshot of the
// view, valid from now on because all of it was compared (layerAfter), no other one
// but the head that it kept, and has the size of the volume.
func (c *Core) takeOver() bool {
	i := c.counting
	if i < 0 || !c.peers[i].target.settledFlush || c.peers[i].target.took || c.peers[i].target.taking != 0 {
		return false
	}
	update := &block.Update{}
	logs := c.unionLogs()
	for k := range (c.absent() &^ bit(i)).all() {
		p := &c.peers[k]
		regions := logs.Clone()
		regions.Union(p.dirty)
		regions.Union(p.want)
		if p.target != nil {
			regions.Union(p.target.missing)
		}
		c.guarded(GuardTakeOver)
		update.SetDirty = append(update.SetDirty, block.DirtySet{
			Replica: p.id, Removal: c.member(k).Removed, Regions: regions,
		})
	}
	for _, s := range c.peers[i].heldDirty {
		if m := c.view.Member(s.Replica); m == nil || m.InSync || s.Replica == c.peers[i].id {
			update.DropDirty = append(update.DropDirty, s.Replica)
		}
	}
	for k := range c.view.Snapshots {
		// From here on they are equal to the members' and never change.
		c.peers[i].validCut(c.view.Snapshots[k].ID)
		update.ValidCuts = append(update.ValidCuts, c.view.Snapshots[k].ID)
	}
	for _, id := range c.strayCutsOf(i, nil) {
		if id != block.KeptHead {
			update.DropCuts = append(update.DropCuts, id)
		}
	}
	c.sendMeta(metaState{kind: metaTakeOver, to: bit(i), subject: i, cuts: update.DropCuts}, update)
	c.peers[i].target.taking = c.meta.stamp
	return true
}
