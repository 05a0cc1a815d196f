package core

import (
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// planResync has everything that a target misses compared, in every layer.
func (c *Core) planResync(i int) {
	p := &c.peers[i]
	t := p.target
	t.compared, t.inFlush, t.cleared = nil, nil, nil
	t.todo, t.layered = chunkSet{}, chunkSet{}
	if !p.changed.kept {
		t.todo.addRegions(c.view.Size, t.missing)
		return
	}
	// The others were dirty for a neighbour's sake, or before a flush.
	t.compared = t.missing.Clone()
	t.compared.Subtract(p.changed.logged)
	whole := t.missing.Clone()
	whole.Subtract(t.compared)
	t.todo.addRegions(c.view.Size, whole)
	for k := range p.changed.regions {
		r := p.changed.regions[k].region
		if chunks := p.changed.regions[k].differ() & chunksOf(r, c.view.Size); chunks != 0 && t.compared.Has(r) {
			t.todo.set(r, chunks)
			t.compared.Remove(r)
		}
	}
}

// prepareForCut prepares a target for a cut: what it has not got yet of the writes
// before it is missed, for its cut lacks that. Whatever is still to be compared is
// compared in the new layer, too; what was compared is right there, as the head was.
func (c *Core) prepareForCut(i int) {
	p := &c.peers[i]
	for k := range c.jobs {
		if j := &c.jobs[k]; j.used && j.target == i {
			c.abortCopy(k)
		}
	}
	for at := p.calls.head; at != 0; {
		e := &p.calls.slots[at-1]
		next, span := e.next, e.req.Span()
		if e.purpose == forWrite {
			if !e.sent {
				p.calls.remove(at - 1)
			}
			c.missed(i, span)
		}
		at = next
	}
	p.target.layered = chunkSet{}
}

// mayPrepare reports whether what a target lacks is recorded, so that it can be given
// the cuts and the size that it lacks. While the outcome of a cut is not known, it is
// neither known which.
func (c *Core) mayPrepare(i int) bool {
	p := &c.peers[i]
	recording := c.meta.active && (c.meta.kind == metaAdd || c.meta.kind == metaPrepare) && c.meta.subject == i
	return p.target != nil && !p.target.active && p.link == linkOpen && p.want == nil && p.dirtyHeld &&
		!recording && c.cut.stage <= cutDraining
}

// preparation is what a target stores before it is sent the first write or flush, or
// nil. It keeps the head with which it left, once, and takes every cut that it lacks
// from its head as that is: wherever that differs from the members' it is dirty
// (misordered). A cut that it took as a member and has not flushed may have lost bytes
// since: a flush must not make it valid any more.
func (c *Core) preparation(i int) *block.Update {
	p := &c.peers[i]
	u := &block.Update{DropCuts: c.strayCutsOf(i, nil)}
	u.DropCuts = slices.DeleteFunc(u.DropCuts, func(id block.SnapshotID) bool { return id == block.KeptHead })
	u.KeepHead = p.whole && p.findCut(block.KeptHead) == nil
	size := c.sizeToHave()
	for k := range c.view.Snapshots {
		s := &c.view.Snapshots[k]
		cut := p.findCut(s.ID)
		if cut == nil && p.size < s.Size {
			// A cut has the size of its replica: grow first.
			size = s.Size
			break
		}
		if cut == nil || !cut.Valid && !p.target.claimed {
			u.Cuts = append(u.Cuts, block.CutRequest{Snapshot: s.ID, Epoch: c.view.Epoch, Target: true})
		}
	}
	if p.size < size {
		u.Grow = size
	}
	if !u.KeepHead && len(u.Cuts)+len(u.DropCuts) == 0 && u.Grow == 0 {
		return nil
	}
	return u
}

// prepare sends a target what it has to store before it is sent the first write.
func (c *Core) prepare() bool {
	for i := range c.absent().all() {
		if !c.mayPrepare(i) {
			continue
		}
		if u := c.preparation(i); u != nil {
			c.sendMeta(metaState{kind: metaPrepare, to: bit(i), subject: i, cuts: u.DropCuts, size: u.Grow, asked: u}, u)
			return true
		}
	}
	return false
}

// prepared notes the cuts that a target has taken.
func (c *Core) prepared(i int, u *block.Update) {
	p := &c.peers[i]
	if u.KeepHead {
		p.addCut(block.KeptHead, c.view.Epoch, p.size)
	}
	for k := range u.Cuts {
		p.addCut(u.Cuts[k].Snapshot, c.view.Epoch, p.size)
	}
	if p.target != nil && len(u.Cuts) > 0 {
		p.target.claimed = true
	}
}

// makeRoom gives up the head that a target kept, where its disk has no room for what it
// lacks: above that head every copy needs a new place, and a trim gives none back. It is
// kept in case the members are lost while the copy is half done, so two whole copies must
// be left: members, or other heads that are kept. With the head, the target stores that
// it is absent: no later engine takes what it has then for a whole one.
func (c *Core) makeRoom() bool {
	for i := range c.absent().all() {
		p := &c.peers[i]
		if p.target == nil || !p.target.crowded || p.link != linkOpen {
			continue
		}
		p.target.crowded = false
		c.emit(Effect{Kind: EffectNotice, Notice: Notice{
			Kind: NoticeNoRoom, Replica: p.id, Bytes: int64(p.target.todo.count) * block.ChunkSize,
		}})
		if p.findCut(block.KeptHead) == nil || c.iss.count()+c.keptHeads(bit(i)) < 2 {
			continue
		}
		c.guarded(GuardKeptHead)
		view, drop := c.view.Clone(), []block.SnapshotID{block.KeptHead}
		c.sendMeta(metaState{kind: metaSpend, to: bit(i), cuts: drop}, &block.Update{View: &view, DropCuts: drop})
		return true
	}
	return false
}

// keptHeads counts the whole heads that absent replicas have kept, some apart.
func (c *Core) keptHeads(apart set) (n int) {
	for i := range (c.absent() &^ apart).all() {
		if p := &c.peers[i]; p.link == linkOpen && p.whole && p.findCut(block.KeptHead) != nil {
			n++
		}
	}
	return n
}

// misordered reports whether a replica lacks a snapshot older than one that it holds.
// Its head is no longer what it was then, so that everything is dirty.
func (c *Core) misordered(p *peer) bool {
	lacks := false
	for k := range c.view.Snapshots {
		held := p.findCut(c.view.Snapshots[k].ID) != nil
		if held && lacks {
			return true
		}
		lacks = lacks || !held
	}
	return false
}
