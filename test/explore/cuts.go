package explore

import (
	"slices"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// maxCuts is how many snapshots there may be: one from the beginning, and those that
// clients ask for.
const maxCuts = 2

func snapshotID(i int) block.SnapshotID { return block.SnapshotID{ID: block.ID{7: byte(i + 1)}} }

// cutOf is the number of a snapshot, -1 for the head and for a kept one.
func cutOf(id block.SnapshotID) int { return int(id.ID[7]) - 1 }

// cut is what a replica holds of a snapshot. They are in the order of their numbers,
// which is that in which every replica takes them. The states that it may have after a
// loss of power are the simulator's: a configuration has cuts or losses.
type cut struct {
	held, valid bool
	// target: no flush makes it valid.
	target bool
	cur    [maxBlocks]value
	// shared has a bit for each block that the layer above has from this one.
	shared uint8
}

// takesCuts reports whether a request is one behind which a store holds writes back.
func takesCuts(r *block.Request) bool { return r.Update != nil && len(r.Update.Cuts) > 0 }

// newest is the youngest cut, -1 if there is none.
func (r *replica) newest() int {
	for i := maxCuts - 1; i >= 0; i-- {
		if r.cuts[i].held {
			return i
		}
	}
	return -1
}

// part takes blocks that the head changes away from the cut that it has them from.
func (r *replica) part(b int) {
	if i := r.newest(); i >= 0 {
		r.cuts[i].shared &^= 1 << b
	}
}

// updateCuts takes, makes valid, and forgets.
func (r *replica) updateCuts(u *block.Update) {
	for _, ask := range u.Cuts {
		c := &r.cuts[cutOf(ask.Snapshot)]
		if c.held {
			c.target = c.target || ask.Target && !c.valid
			continue
		}
		*c = cut{held: true, target: ask.Target, cur: r.cur, shared: 1<<maxBlocks - 1}
	}
	for _, id := range u.ValidCuts {
		if i := cutOf(id); i >= 0 && r.cuts[i].held {
			r.cuts[i].valid, r.cuts[i].target = true, false
		}
	}
	for _, id := range u.DropCuts {
		i := cutOf(id)
		if i < 0 || !r.cuts[i].held {
			continue
		}
		for below := i - 1; below >= 0; below-- {
			if r.cuts[below].held {
				r.cuts[below].shared &= r.cuts[i].shared
				break
			}
		}
		r.cuts[i] = cut{}
	}
}

// layer carries a request on a cut out.
func (r *replica) layer(x *stock, req *block.Request, rep *block.Reply) error {
	i := cutOf(req.Snapshot)
	if i < 0 || !r.cuts[i].held {
		return block.ErrNotFound
	}
	c := &r.cuts[i]
	first, end := r.spacing.blocks(req)
	switch req.Op {
	case block.OpRead:
		rep.Buf = x.bufferOf(c.cur[first:end], req.Length)
	case block.OpHash:
		rep.Hashes = r.hashes(req, &c.cur, 0)
	case block.OpWrite, block.OpZero:
		for k := i; k < maxCuts; k++ {
			if r.cuts[k].valid {
				return block.ErrInvalid
			}
		}
		for b := first; b < end; b++ {
			v := value(0)
			if req.Buf != nil {
				v = req.Buf.Data[(b-first)*block.BlockSize]
			}
			r.give(i, b, v)
		}
		rep.Free = free
	}
	return nil
}

// give gives a block of a cut another value, and with it whatever has it from there.
func (r *replica) give(i, b int, v value) {
	r.log |= r.spacing.region(b)
	for below := i - 1; below >= 0; below-- {
		if r.cuts[below].held {
			r.cuts[below].shared &^= 1 << b
			break
		}
	}
	for k := i; k < maxCuts; k++ {
		if !r.cuts[k].held {
			continue
		}
		r.cuts[k].cur[b] = v
		if r.cuts[k].shared>>b&1 == 0 {
			return
		}
	}
	r.cur[b] = v
	r.may[b] |= 1 << v
}

// flushCuts makes those valid that a member has taken.
func (r *replica) flushCuts() {
	for i := range r.cuts {
		c := &r.cuts[i]
		c.valid = c.valid || c.held && !c.target
	}
}

// distrustCuts is what the death of a process does to cuts that it has not flushed.
func (r *replica) distrustCuts() {
	for i := range r.cuts {
		c := &r.cuts[i]
		c.target = c.target || c.held && !c.valid
	}
}

// openedCuts are those that it tells an engine of.
func (r *replica) openedCuts(size int64) (list []block.Cut) {
	if r.kept {
		list = append(list, block.Cut{Snapshot: block.KeptHead, Kept: true, Size: size})
	}
	for i := range r.cuts {
		if c := &r.cuts[i]; c.held {
			list = append(list, block.Cut{Snapshot: snapshotID(i), Size: size, Valid: c.valid})
		}
	}
	return list
}

func (r *replica) appendCuts(c *canon) {
	for i := range r.cuts {
		q := &r.cuts[i]
		c.bool(q.held)
		if q.held {
			c.bool(q.valid)
			c.bool(q.target)
			c.byte(q.cur[0])
			c.byte(q.cur[1])
			c.byte(q.shared)
		}
	}
}

// shot is a snapshot as those who look on know it: a read of every block at one moment
// between the call and the commit.
type shot struct {
	asked, ended, landed bool
	reads                [maxBlocks]uint8
	cur                  [maxBlocks]value
}

func (w *world) appendShots(c *canon) {
	for i := range w.shots {
		s := &w.shots[i]
		c.bool(s.asked)
		c.bool(s.ended)
		c.bool(s.landed)
		c.byte(s.cur[0])
		c.byte(s.cur[1])
	}
}

// firstSnapshot is one that the members took before the first state, and that the others
// have missed.
func (w *world) firstSnapshot() {
	w.reserve(0)
	v := w.view()
	w.must(state.Propose{Proposal: block.Proposal{Volume: volumeID, Epoch: v.Epoch, Revision: v.Revision,
		Snapshot: &block.Snapshot{ID: snapshotID(0), Size: w.setting.size, Created: 1}}})
	w.shots[0] = shot{asked: true, ended: true, landed: true}
	for b := range w.shots[0].cur {
		w.shots[0].cur[b] = missedValue
	}
}

// missedValue is what the members hold that an absent replica lacks.
const missedValue = value(1)

func (w *world) reserve(i int) {
	id := snapshotID(i)
	w.must(state.CreateSnapshot{Snapshot: id, Name: id.String(), Volume: volumeID, Created: 1, DecidedAt: w.index})
}

// snapshot lets a client ask for one.
func (w *world) snapshot(i int) {
	w.left.Snapshots--
	n := maxCuts - 1
	w.reserve(n)
	s := &w.shots[n]
	s.asked = true
	e := w.engines[i]
	for b := range w.setting.config.Blocks {
		s.reads[b] = uint8(w.history.beginRead(i, e.epoch, b))
	}
	w.step(i, core.Event{Kind: core.EventCut, Snapshot: block.Snapshot{ID: snapshotID(n), Created: 1}})
}

// taken is what an engine says of a snapshot that was asked for.
func (w *world) taken(i int, ef *core.Effect) {
	s := &w.shots[cutOf(ef.Snapshot)]
	if ef.Err == nil && !s.landed {
		w.fail("snapshots: %s has taken one that Raft does not know", name(i))
	}
	if v := w.view(); ef.Err != nil && s.landed && w.engines[i].epoch == v.Epoch && !w.unheard(i) {
		w.fail("snapshots: %s has given one up that Raft knows: %w", name(i), ef.Err)
	}
	w.endShot(s, false)
}

// unheard reports whether an engine has yet to hear of something that has landed.
func (w *world) unheard(i int) bool {
	return slices.ContainsFunc(w.engines[i].proposals, func(p proposal) bool { return p.landed })
}

// endShot ends the reads that a snapshot is.
func (w *world) endShot(s *shot, ok bool) {
	if s.ended {
		return
	}
	s.ended = true
	for b := range w.setting.config.Blocks {
		if err := w.history.endRead(int(s.reads[b]), ok, s.cur[b]); err != nil {
			w.fail("snapshots: %w", err)
		}
	}
}

// snapshotLanded looks at the members as Raft takes a snapshot: each holds it, valid,
// with the same bytes, which are those of one moment since it was asked for.
func (w *world) snapshotLanded(after *block.View) {
	n := maxCuts - 1
	s := &w.shots[n]
	s.landed = true
	first := -1
	for k := range after.Replicas {
		i := indexOf(after.Replicas[k].ID)
		c := &w.replicas[i].cuts[n]
		switch {
		case !after.Replicas[k].InSync:
		case !c.held || !c.valid:
			w.fail("snapshots: one is committed, and %s holds %+v of it", letter(i), *c)
		case first < 0:
			first, s.cur = i, c.cur
		case !w.alike(&c.cur, &s.cur):
			w.fail("snapshots: %s holds %v of one, and %s %v", letter(first), s.cur, letter(i), c.cur)
		}
	}
	w.endShot(s, true)
}

// alike compares contents as far as the volume goes.
func (w *world) alike(a, b *[maxBlocks]value) bool {
	n := w.setting.config.Blocks
	return slices.Equal(a[:n], b[:n])
}

// compareCuts looks, at rest, that every replica holds Raft's snapshots as they were
// committed, and no other cut.
func (w *world) compareCuts() {
	v := w.view()
	for r := range w.setting.config.Replicas {
		if w.replicas[r].kept {
			w.fail("snapshots: at rest %s keeps the head with which it left", letter(r))
		}
		for i := range w.shots {
			known := v.Snapshot(snapshotID(i)) != nil
			c := &w.replicas[r].cuts[i]
			if c.held != known || known && (!c.valid || !w.alike(&c.cur, &w.shots[i].cur)) {
				w.fail("snapshots: at rest %s holds %+v of one that was committed: %v, with %v", letter(r), *c, known, w.shots[i].cur)
			}
		}
	}
}
