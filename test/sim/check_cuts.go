package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// cutCommitted verifies, as Raft takes a snapshot or a size, that every member that can
// be looked at has it durably; and has the snapshot's bytes read, for the history.
func (w *World) cutCommitted(v *volume, p *block.Proposal, after *block.View) {
	for _, m := range after.Replicas {
		r := w.storeOf(m.ID)
		if !m.InSync || r == nil || w.rolledBack[m.ID] {
			continue
		}
		if p.Size != 0 && r.Size() < p.Size {
			w.fail("snapshots", fmt.Sprintf("%d bytes are committed, %s has %d", p.Size, w.replicaName(m.ID), r.Size()))
		}
		if p.Snapshot == nil {
			continue
		}
		if c := findCut(r, p.Snapshot.ID); c == nil || !c.Valid {
			w.fail("snapshots", fmt.Sprintf("snapshot %s is committed, %s has %+v", p.Snapshot.ID.Short(), w.replicaName(m.ID), c))
		}
	}
	if p.Snapshot == nil {
		return
	}
	w.paths.count("snapshot: committed")
	if s := v.shot(p.Snapshot.ID); s != nil {
		s.committed, s.size = true, p.Snapshot.Size
		v.history.cutEnds(s.op, pending, w.loop.steps)
		w.capture(v, s, 0)
	}
}

// storeOf is a replica in its store; nil while its daemon does not run.
func (w *World) storeOf(id block.ReplicaID) *store.Replica {
	n := w.nodeOf(id)
	if n == nil || n.process == nil || n.storage.store == nil {
		return nil
	}
	r, err := n.storage.store.Replica(id)
	if err != nil {
		return nil
	}
	return r
}

func findCut(r *store.Replica, id block.SnapshotID) *block.Cut {
	for _, c := range r.Cuts() {
		if c.Snapshot == id {
			return &c
		}
	}
	return nil
}

// captureRetry is how long the reading of a cut may take before another replica is asked.
const captureRetry = 500 * millisecond

// capture reads a committed cut from one replica that holds it valid, extent by extent,
// while everything goes on: what it holds never changes. Its history waits for that.
func (w *World) capture(v *volume, s *shot, attempt int) {
	view := w.truth.view(v.id)
	if s.read || view.Snapshot(s.id) == nil {
		v.history.cutRead(s.op, unsettled)
		return
	}
	r := w.holder(&view, s.id, attempt)
	over := false
	values := make(map[uint64]value)
	if r != nil {
		var offsets []int64
		used := v.used()
		for offset := int64(0); offset < s.size; offset += block.ExtentSize {
			if used[offset] {
				offsets = append(offsets, offset)
			}
		}
		w.captureNext(&capture{v: v, s: s, r: r, values: values, over: &over, patient: attempt < captureAttempts}, offsets)
	}
	w.loop.after(nil, captureRetry, func() {
		over = true
		if !s.read {
			w.capture(v, s, attempt+1)
		}
	})
}

// holder is one of the replicas that hold a cut valid and can be asked.
func (w *World) holder(view *block.View, id block.SnapshotID, attempt int) *store.Replica {
	var fit []*store.Replica
	for _, m := range view.Replicas {
		r := w.storeOf(m.ID)
		if r == nil || !m.InSync {
			continue
		}
		if c := findCut(r, id); c != nil && c.Valid {
			fit = append(fit, r)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[attempt%len(fit)]
}

// captureAttempts is how often bytes that do not verify are asked for elsewhere. Then
// they are left out: the disk of the last member that has them has rotted.
const captureAttempts = 6

// capture is one attempt to read a cut from a replica.
type capture struct {
	v       *volume
	s       *shot
	r       *store.Replica
	values  map[uint64]value
	over    *bool
	patient bool
}

func (w *World) captureNext(c *capture, offsets []int64) {
	v, s, over := c.v, c.s, c.over
	if len(offsets) == 0 {
		s.op.cut, s.read = c.values, true
		v.history.cutRead(s.op, succeeded)
		return
	}
	length := min(block.ExtentSize, s.size-offsets[0])
	buf := block.NewBuffer(int(length))
	op := &store.Op{Kind: store.Read, Offset: offsets[0], Length: length, Buf: buf, Snapshot: s.id}
	op.Done = func(op *store.Op) {
		defer buf.Release()
		rotten := w.rotten && !c.patient && errors.Is(op.Err, block.ErrChecksum)
		if *over || op.Err != nil && !rotten {
			*over = true
			return
		}
		if !rotten {
			if text := v.sectorsOf(offsets[0], buf.Data, c.values); text != "" {
				w.fail("payload", fmt.Sprintf("snapshot %s: %s", s.id.Short(), text))
			}
		}
		w.loop.after(nil, 0, func() {
			if !*over {
				w.captureNext(c, offsets[1:])
			}
		})
	}
	c.r.Submit(op)
}

// sectorsOf adds what sectors show to values, but for those that may show anything. It
// says what is wrong.
func (v *volume) sectorsOf(offset int64, data []byte, values map[uint64]value) string {
	for i := 0; i < len(data); i += block.SectorSize {
		sector := uint64(offset+int64(i)) / block.SectorSize
		got, err := sectorValue(data[i:i+block.SectorSize], v.tag, sector)
		switch {
		case err == nil:
			values[sector] = got
		case !v.acceptable[sector]:
			return err.Error()
		}
	}
	return ""
}

// strayCuts names a member that holds more cuts than Raft knows snapshots.
func (w *World) strayCuts(v *volume) string {
	view := w.truth.view(v.id)
	for _, id := range w.members(&view) {
		if r := w.storeOf(id); r != nil && len(r.Cuts()) > len(view.Snapshots) {
			return fmt.Sprintf("%s holds %d cuts of %d snapshots", w.replicaName(id), len(r.Cuts()), len(view.Snapshots))
		}
	}
	return ""
}

// compareCuts verifies, at rest, that every in-sync replica holds the snapshots of the
// view as valid and no other cut, each with the same bytes everywhere and those that
// were read when it was committed.
func (w *World) compareCuts(v *volume) {
	view := w.truth.view(v.id)
	used := v.used()
	for _, id := range w.members(&view) {
		r := w.storeOf(id)
		if r == nil {
			continue
		}
		if cuts := r.Cuts(); len(cuts) != len(view.Snapshots) || r.Size() < view.Size {
			w.fail("snapshots", fmt.Sprintf("at rest %s of %d bytes holds %+v, Raft has %d bytes and %+v", w.replicaName(id),
				r.Size(), cuts, view.Size, view.Snapshots))
			return
		}
		for i := range view.Snapshots {
			s := &view.Snapshots[i]
			if c := findCut(r, s.ID); c == nil || !c.Valid {
				w.fail("snapshots", fmt.Sprintf("at rest %s holds %+v of snapshot %s", w.replicaName(id), c, s.ID.Short()))
				return
			}
			for offset := int64(0); offset < s.Size && w.violation == nil; offset += block.ExtentSize {
				if used[offset] {
					w.compareCut(v, id, s, offset)
				}
			}
		}
	}
}

func (w *World) compareCut(v *volume, id block.ReplicaID, s *block.Snapshot, offset int64) {
	data, err := w.readReplica(id, s.ID, offset, min(block.ExtentSize, s.Size-offset))
	if err != nil {
		if !w.rotten || !errors.Is(err, block.ErrChecksum) {
			w.fail("snapshots", fmt.Sprintf("read snapshot %s of %s at %d: %v", s.ID.Short(), w.replicaName(id), offset, err))
		}
		return
	}
	values := make(map[uint64]value)
	if text := v.sectorsOf(offset, data, values); text != "" {
		w.fail("payload", fmt.Sprintf("snapshot %s of %s: %s", s.ID.Short(), w.replicaName(id), text))
	}
	shot := v.shot(s.ID)
	for i := int64(0); i < int64(len(data)); i += block.SectorSize {
		sector := uint64(offset+i) / block.SectorSize
		got, known := values[sector]
		want, had := shot.op.cut[sector]
		if shot.read && known && had && got != want {
			w.fail("snapshots", fmt.Sprintf("snapshot %s: sector %d is %d on %s, and was %d when it was committed", s.ID.Short(),
				sector, got, w.replicaName(id), want))
			return
		}
	}
}
