package crash

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// extent is the number of sectors of one.
const extent = block.ExtentSize / block.SectorSize

const replicaSize = 4 * block.ExtentSize

func bytesOf(n int) int64 { return int64(n) * block.SectorSize }

// create makes a replica, a clone of a cut unless that is nil.
func (w *world) create(n byte, size int64, of *sectors.Cut) {
	if w.failure != nil {
		return
	}
	if of == nil {
		w.model.Add(n, size)
	} else {
		w.model.AddClone(n, of, size)
	}
	w.replicas = append(w.replicas, replica{name: n, size: size, grownTo: size, creating: true})
	spec := store.CloneSpec{ReplicaSpec: store.ReplicaSpec{Replica: replicaID(n), Volume: block.VolumeID{ID: testID(100 + n)}, Size: size}}
	if of == nil {
		w.fail(w.store.Create(spec.ReplicaSpec))
	} else {
		spec.Source, spec.Snapshot = replicaID(of.Replica), snapshotID(of.Name)
		w.fail(w.store.Clone(spec))
	}
	w.replicas[len(w.replicas)-1].creating = false
}

func (w *world) remove(n byte) {
	if w.failure != nil {
		return
	}
	i := slices.IndexFunc(w.replicas, func(r replica) bool { return r.name == n })
	w.replicas[i].deleting = true
	for _, q := range w.model.Cuts {
		q.Dropping = q.Dropping || q.Replica == n
	}
	w.fail(w.store.Delete(replicaID(n)))
	w.replicas = slices.Delete(w.replicas, i, i+1)
	w.model.DropReplicaCuts(n)
}

// pattern is what a write of so many sectors puts down.
func pattern(n byte, count int, tag uint64) *block.Buffer {
	b := block.NewBuffer(count * block.SectorSize)
	for i := range count {
		sectors.Fill(b.Data[i*block.SectorSize:(i+1)*block.SectorSize], n, tag+uint64(i))
	}
	return b
}

func (w *world) write(n byte, first, count int) {
	tag := w.model.Begin(n, first, count, false)
	op := &store.Op{Kind: store.Write, Offset: bytesOf(first), Length: bytesOf(count), Buf: pattern(n, count, tag)}
	w.submit(n, op, func() { w.model.Ack(n, first, count, tag, false) })
}

// writeDurably is a write that needs no flush.
func (w *world) writeDurably(n byte, first, count int) {
	tag := w.model.Begin(n, first, count, false)
	op := &store.Op{Kind: store.Write, Flags: block.FlagDurable, Offset: bytesOf(first), Length: bytesOf(count), Buf: pattern(n, count, tag)}
	w.submit(n, op, func() { w.model.Durable(n, first, count, tag) })
}

func (w *world) zero(n byte, first, count int) {
	tag := w.model.Begin(n, first, count, true)
	op := &store.Op{Kind: store.Zero, Offset: bytesOf(first), Length: bytesOf(count)}
	w.submit(n, op, func() { w.model.Ack(n, first, count, tag, true) })
}

func (w *world) flush(n byte) {
	w.flushes++
	marks := w.model.Mark(n)
	var cuts []*sectors.Cut
	for _, q := range w.model.Cuts {
		if q.Replica == n && q.Acked && !q.Target {
			cuts = append(cuts, q)
		}
	}
	op := &store.Op{Kind: store.Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: w.flushes}}
	w.submit(n, op, func() {
		w.model.Flushed(n, marks)
		for _, q := range cuts {
			q.Flushed = true
		}
	})
}

func (w *world) update(n byte, u block.Update, done func()) {
	w.submit(n, &store.Op{Kind: store.Update, Meta: &u}, done)
}

// cut takes a cut; of a target, it becomes valid by valid alone.
func (w *world) cut(n byte, target bool) *sectors.Cut {
	w.names++
	q := w.model.BeginCut(n, w.names)
	q.Target = target
	request := block.CutRequest{Snapshot: snapshotID(q.Name), Epoch: 1, Target: target}
	w.update(n, block.Update{Cuts: []block.CutRequest{request}}, func() { q.Acked = true })
	return q
}

func (w *world) keepHead(n byte) {
	w.update(n, block.Update{KeepHead: true}, func() {})
}

func (w *world) drop(q *sectors.Cut) {
	q.Dropping = true
	w.update(q.Replica, block.Update{DropCuts: []block.SnapshotID{snapshotID(q.Name)}}, func() { w.model.ForgetCut(q) })
}

// layer gives an extent of a cut, and of the head if that has not changed it since,
// other bytes.
func (w *world) layer(q *sectors.Cut, number int) {
	first := number * extent
	tag := w.model.Begin(q.Replica, first, extent, false)
	op := &store.Op{Kind: store.Write, Snapshot: snapshotID(q.Name), Offset: bytesOf(first), Length: bytesOf(extent)}
	op.Buf = pattern(q.Replica, extent, tag)
	q.Overwrite(first, extent, tag)
	w.submit(q.Replica, op, func() { w.model.Ack(q.Replica, first, extent, tag, false) })
}

func (w *world) valid(q *sectors.Cut) {
	w.update(q.Replica, block.Update{ValidCuts: []block.SnapshotID{snapshotID(q.Name)}}, func() { q.Flushed = true })
}

func (w *world) grow(n byte, size int64) {
	i := slices.IndexFunc(w.replicas, func(r replica) bool { return r.name == n })
	w.replicas[i].grownTo = size
	w.model.Resize(n, size)
	w.update(n, block.Update{Grow: size}, func() {
		at := slices.IndexFunc(w.replicas, func(r replica) bool { return r.name == n })
		w.replicas[at].size = size
	})
}

// clearLog takes everything that is flushed out of the intent log.
func (w *world) clearLog(n byte) { w.update(n, block.Update{ClearLog: block.RegionsOf(0)}, func() {}) }

// noise makes the database's log so long that it is turned into a table.
func (w *world) noise(n byte) {
	for revision := range block.Revision(12) {
		view := block.View{Epoch: 1, Revision: revision + 1, Size: replicaSize}
		for i := range 370 {
			view.Snapshots = append(view.Snapshots, block.Snapshot{ID: snapshotID(byte(i)), Size: replicaSize, Created: int64(i)})
		}
		w.update(n, block.Update{View: &view}, func() {})
		w.settle()
	}
}

// step is a part of the scenario. What one starts may be under way when it ends.
type step struct {
	name string
	do   func(w *world)
}

// scenario is what the store does while the power may fail.
func scenario() []step {
	var first, second, target *sectors.Cut
	return []step{
		{"new replicas", func(w *world) {
			w.create(1, replicaSize, nil)
			w.create(2, replicaSize, nil)
		}},
		{"new blocks, in part and whole", func(w *world) {
			w.write(1, 0, 8)
			w.write(1, 130, 3)
			w.write(2, 0, 2*extent)
			w.settle()
			w.flush(1)
		}},
		{"overwritten and trimmed, with a flush under way", func(w *world) {
			w.write(1, 1, 1)
			w.write(1, 20, 30)
			w.zero(2, 3, 100)
			w.settle()
			w.flush(2)
			w.write(1, 2*extent, extent)
			w.settle()
		}},
		{"freed and taken by another replica", func(w *world) {
			w.zero(2, extent, extent)
			w.settle()
			// So often that the search for a free extent comes round to that one.
			for range 16 {
				w.zero(1, 3*extent, extent)
				w.write(1, 3*extent, 8)
				w.settle()
			}
			w.write(1, 3*extent, extent)
			w.settle()
			w.flush(1)
			w.write(1, 3*extent+5, 9)
			w.settle()
		}},
		{"a cut, and slots above it", func(w *world) {
			w.write(1, 4, 2)
			w.settle()
			first = w.cut(1, false)
			w.settle()
			w.write(1, 3, 3)
			w.write(1, 2*extent+8, 16)
			w.settle()
			w.flush(1)
			w.settle()
			w.write(1, 0, 2)
			w.zero(1, 130, 2)
			w.settle()
		}},
		{"a second cut with a write under way, a clone of the first", func(w *world) {
			w.write(1, 40, 10)
			second = w.cut(1, false)
			w.settle()
			w.create(3, replicaSize+block.ExtentSize, first)
			w.write(3, 2, 9)
			w.zero(3, 2*extent, extent)
			w.settle()
			w.flush(3)
			w.flush(1)
			w.write(1, 41, 3)
			w.settle()
		}},
		{"killed, and opened again", func(w *world) {
			w.write(1, 3*extent, 64)
			w.settle()
			w.restart(false)
			w.write(1, 8, 8)
			w.settle()
		}},
		{"closed in order, twice, and opened again", func(w *world) {
			w.reopen()
			w.write(2, 3*extent, 9)
			w.reopen()
			w.write(1, 8, 9)
			w.settle()
		}},
		{"log cleared, journal turned over", func(w *world) {
			w.flush(1)
			w.settle()
			w.clearLog(1)
			w.settle()
			for at := range 8 {
				w.write(2, 2*extent+at*9, 8)
				w.settle()
			}
			w.write(1, 9, 1)
			w.settle()
		}},
		{"a cut of a target, which is given other bytes", func(w *world) {
			w.flush(2)
			w.settle()
			target = w.cut(2, true)
			w.settle()
			w.layer(target, 0)
			w.settle()
			w.valid(target)
			w.settle()
			w.write(2, 4, 4)
			w.settle()
		}},
		{"the first cut dropped, the clone stays", func(w *world) {
			w.drop(first)
			w.settle()
			w.write(1, 2, 20)
			w.settle()
			w.flush(1)
			w.settle()
		}},
		{"grown, a head kept", func(w *world) {
			w.grow(1, replicaSize+2*block.ExtentSize)
			w.settle()
			w.write(1, 5*extent, 17)
			w.keepHead(2)
			w.settle()
			w.write(2, 0, 8)
			w.flush(1)
			w.settle()
			w.update(2, block.Update{DropCuts: []block.SnapshotID{block.KeptHead}}, func() {})
			w.settle()
		}},
		{"tables written", func(w *world) {
			w.noise(1)
			w.write(1, 50, 3)
			w.noise(2)
			w.settle()
		}},
		{"a replica deleted, its extents taken by others", func(w *world) {
			w.remove(2)
			w.settle()
			w.write(1, 4*extent, extent)
			w.write(3, extent, 2*extent)
			w.settle()
			w.flush(3)
			w.settle()
		}},
		{"the power lost", func(w *world) {
			w.write(1, 0, 8)
			w.settle()
			w.restart(true)
			w.settled()
			w.write(1, 3, 9)
			w.settle()
			w.flush(1)
			w.settle()
		}},
		{"the clone deleted, and the cut with it, then the last cut", func(w *world) {
			w.remove(3)
			w.settle()
			w.drop(second)
			w.settle()
			w.write(1, 2*extent, extent)
			w.settle()
			w.flush(1)
			w.settle()
		}},
	}
}

// everything is the scenario as a whole.
func everything(w *world) {
	for _, s := range scenario() {
		s.do(w)
		if w.failure != nil {
			w.failure = fmt.Errorf("%s: %w", s.name, w.failure)
			return
		}
	}
	w.settle()
}
