package core

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// stormSnapshot is a snapshot that was asked for: pending until Raft takes it, or
// refuses it because nobody wants it any more.
type stormSnapshot struct {
	id        block.SnapshotID
	engine    *stormEngine
	asked     int64
	committed int64
	pending   bool
}

const stormSnapshots = 4

// changeLayers is what a client does with snapshots and with the size of the volume.
func (w *storm) changeLayers() {
	e := w.current()
	switch n := w.random.IntN(8); {
	case n < 4:
		w.snap(e)
	case n < 6 && len(w.view.Snapshots) > 0:
		w.deleteSnapshot(e, w.random.IntN(len(w.view.Snapshots)))
	case n == 6 && w.intent < stormSize+256*kib:
		w.intent += 64 * kib
		w.step(e, Event{Kind: EventGrow, Size: w.intent})
	}
}

// snap asks for a snapshot under a new ID.
func (w *storm) snap(e *stormEngine) {
	if e.stopped || len(w.view.Snapshots) >= stormSnapshots || len(w.snapshots) >= 250 {
		return
	}
	s := &stormSnapshot{id: snapshotID(byte(len(w.snapshots) + 1)), engine: e, asked: w.history.tick(), pending: true}
	w.snapshots = append(w.snapshots, s)
	w.step(e, Event{Kind: EventCut, Snapshot: block.Snapshot{ID: s.id}})
}

func (w *storm) snapshot(id block.SnapshotID) *stormSnapshot {
	for _, s := range w.snapshots {
		if s.id == id {
			return s
		}
	}
	return nil
}

// deleteSnapshot is a command of Raft; the engine may be told or not.
func (w *storm) deleteSnapshot(e *stormEngine, at int) {
	w.view = w.view.Clone()
	w.view.Revision++
	w.view.Snapshots = slices.Delete(w.view.Snapshots, at, at+1)
	if w.random.IntN(2) == 0 {
		w.step(e, Event{Kind: EventView, View: w.view.Clone()})
	}
}

// forgetPending is what the service does with snapshots that were not taken: nobody
// asks for their IDs again.
func (w *storm) forgetPending(of func(*stormSnapshot) bool) {
	for _, s := range w.snapshots {
		if s.pending && of(s) {
			s.pending = false
			w.view = w.view.Clone()
			w.view.Revision++
		}
	}
}

// cutEnded is EffectCut.
func (w *storm) cutEnded(e *stormEngine, f *Effect) {
	s := w.snapshot(f.Snapshot)
	switch {
	case f.Err == nil && s.committed == 0:
		w.fatal("snapshot %s is told of and not committed", s.id)
	case f.Err == nil:
		w.taken++
	case errors.Is(f.Err, block.ErrDetached):
	case !errors.Is(f.Err, block.ErrUnavailable) && !errors.Is(f.Err, block.ErrConflict):
		w.fatal("cut failed: %v", f.Err)
	case w.view.Snapshot(s.id) != nil && e == w.current():
		w.fatal("cut of %s failed with %v and is committed", s.id, f.Err)
	default:
		w.forgetPending(func(o *stormSnapshot) bool { return o == s })
	}
}

// admits is what Raft looks at besides epoch and revision.
func (w *storm) admits(p *block.Proposal) bool {
	if p.Snapshot != nil {
		if s := w.snapshot(p.Snapshot.ID); !s.pending || p.Snapshot.Size != w.view.Size {
			return false
		}
	}
	return p.Size <= w.intent
}

// landed judges what was committed: every member has it durably.
func (w *storm) landed(p *block.Proposal) {
	for i, node := range w.nodes {
		if !w.view.Replicas[i].InSync {
			continue
		}
		if node.size < w.view.Size {
			w.fatal("member %s has %d bytes of %d", node.id, node.size, w.view.Size)
		}
		if p.Snapshot == nil {
			continue
		}
		if c := node.cut(p.Snapshot.ID); c == nil || !c.Valid {
			w.fatal("snapshot %s is committed and member %s has %+v", p.Snapshot.ID, node.id, c)
		}
	}
	if p.Snapshot != nil {
		s := w.snapshot(p.Snapshot.ID)
		s.pending, s.committed = false, w.history.tick()
	}
	w.checkLayers(false)
}

// checkLayers compares all valid cuts of a snapshot and judges what they hold. In the
// end every replica has every snapshot, and nothing else.
func (w *storm) checkLayers(end bool) {
	for _, s := range w.view.Snapshots {
		var first *fakeCut
		for _, node := range w.nodes {
			c := node.cut(s.ID)
			if c == nil || !c.Valid {
				if end {
					w.fatal("replica %s has %+v of snapshot %s", node.id, c, s.ID)
				}
				continue
			}
			if first == nil {
				first = c
				w.judgeCut(w.snapshot(s.ID), c)
				continue
			}
			w.compareCuts(first, c, node)
		}
	}
	for _, node := range w.nodes {
		if end && (len(node.cuts) != len(w.view.Snapshots) || node.size < w.view.Size) {
			w.fatal("replica %s of %d bytes has %d cuts of %d", node.id, node.size, len(node.cuts), len(w.view.Snapshots))
		}
	}
}

func (w *storm) compareCuts(a, b *fakeCut, node *stormNode) {
	for _, place := range stormPlaces {
		for k := range blocksOf(block.Span{Offset: place, Length: 32 * kib}) {
			left, right := make([]byte, block.BlockSize), make([]byte, block.BlockSize)
			copy(left, a.blocks[k])
			copy(right, b.blocks[k])
			if !slices.Equal(left, right) {
				w.fatal("snapshot %s differs at block %d of %s: %d and %d", a.Snapshot, k, node.id,
					binary.LittleEndian.Uint64(left), binary.LittleEndian.Uint64(right))
			}
		}
	}
}

// judgeCut finds one moment, between the call and the commit, at which the volume held
// what the cut holds.
func (w *storm) judgeCut(s *stormSnapshot, c *fakeCut) {
	var values []uint64
	var sectors []int64
	for _, place := range stormPlaces {
		for n := range sectorsOf(block.Span{Offset: place, Length: 32 * kib}) {
			data := c.blocks[n*block.SectorSize/block.BlockSize]
			value := uint64(0)
			if data != nil {
				value = binary.LittleEndian.Uint64(data[n*block.SectorSize%block.BlockSize:])
			}
			sectors, values = append(sectors, n), append(values, value)
		}
	}
	if !w.history.momentOf(sectors, values, s.asked, s.committed) {
		w.fatal("snapshot %s, asked for at %d and committed at %d, holds no state of the volume", s.id, s.asked, s.committed)
	}
}

// momentOf reports whether there is a moment in [from, to] at which all sectors could
// hold these values at once.
func (h *history) momentOf(sectors []int64, values []uint64, from, to int64) bool {
	for t := from; t <= to; t++ {
		all := true
		for i := 0; i < len(sectors) && all; i++ {
			all = slices.ContainsFunc(h.versions(sectors[i]), func(v *version) bool {
				return v.value == values[i] && v.begun <= t && t < v.dead
			})
		}
		if all {
			return true
		}
	}
	return false
}
