package crash

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// lossy is the number of sectors of each thing that may be lost: first those of the
// data file.
func (m *moment) lossy() (sectors []int) {
	for _, u := range m.device.Unsynced() {
		sectors = append(sectors, int(u.Length/block.SectorSize))
	}
	for _, u := range m.image.Unsynced() {
		sectors = append(sectors, u.Sectors)
	}
	return sectors
}

// after is the world that is found when the power was lost at m.
func (m *moment) after(c choice, faults Faults) *world {
	w := &world{steps: &vfs.StepExecutor{}, options: m.options, model: m.model, replicas: m.replicas, faults: faults}
	device := m.device.Fork()
	n := len(device.Unsynced())
	w.device = device.Crash(w.steps, func(i int, _ vfs.UnsyncedWrite, sector int) bool { return c.keep(i, sector) })
	w.dir = m.image.Crash(
		func(i, sector int) bool { return c.keep(n+i, sector) },
		func(i int) bool { return c.full(n + i) },
	)
	w.options.Incarnation.DiskSequence++
	return w
}

// check opens what is left and compares it with what is known; again also uses the
// store, kills it and opens it once more. The model is not changed.
func (m *moment) check(c choice, again bool, faults Faults) error {
	w := m.after(c, faults)
	if err := w.open(); err != nil {
		return err
	}
	w.settle()
	w.verify(false)
	if again && w.failure == nil {
		w.useAgain()
	}
	w.end()
	return w.failure
}

// verify compares everything that the store holds with what it may.
func (w *world) verify(kill bool) {
	w.fail(w.store.Check())
	for _, r := range w.store.Replicas() {
		known := func(k replica) bool { return replicaID(k.name) == r.ID() }
		if !slices.ContainsFunc(w.replicas, known) {
			w.fail(fmt.Errorf("replica %s was deleted, and is there", r.ID()))
		}
	}
	for _, k := range w.replicas {
		if w.failure != nil {
			return
		}
		r, err := w.store.Replica(replicaID(k.name))
		if err != nil {
			if !errors.Is(err, block.ErrNotFound) || !k.creating && !k.deleting {
				w.fail(err)
			}
			continue
		}
		if r.Size() != k.size && r.Size() != k.grownTo {
			w.fail(fmt.Errorf("replica %d has %d bytes, %d or %d were asked for", k.name, r.Size(), k.size, k.grownTo))
			return
		}
		w.compare(k.name, r, block.SnapshotID{}, r.Size(), func(at int, tag uint64) error {
			return w.model.May(k.name, at, tag, kill)
		})
		w.verifyCuts(k.name, r)
	}
}

// compare reads a head or a cut and gives the tag of each sector to may.
func (w *world) compare(n byte, r *store.Replica, snapshot block.SnapshotID, size int64, may func(at int, tag uint64) error) {
	op := &store.Op{Kind: store.Read, Snapshot: snapshot, Length: size, Buf: block.NewBuffer(int(size))}
	defer op.Buf.Release()
	if snapshot.IsZero() {
		// Blocks that changed since the last flush may have the other's checksum.
		op.Flags = block.FlagAcceptSuspect
	}
	ended := false
	op.Done = func(*store.Op) { ended = true }
	r.Submit(op)
	w.settle()
	if !ended || op.Err != nil {
		w.fail(fmt.Errorf("read replica %d, snapshot %s (ended: %v): %w", n, snapshot, ended, op.Err))
		return
	}
	for at := range int(size / block.SectorSize) {
		tag, err := w.model.Read(op.Buf.Data[at*block.SectorSize:(at+1)*block.SectorSize], n)
		if err == nil {
			err = may(at, tag)
		}
		if err != nil {
			w.fail(fmt.Errorf("replica %d, snapshot %s, sector %d: %w", n, snapshot, at, err))
			return
		}
	}
}

// verifyCuts: those that were answered are there, those that were flushed are valid,
// and valid ones have the bytes that they were taken with.
func (w *world) verifyCuts(n byte, r *store.Replica) {
	held := r.Cuts()
	for _, q := range w.model.Cuts {
		if q.Replica != n || w.failure != nil {
			continue
		}
		i := slices.IndexFunc(held, func(h block.Cut) bool { return h.Snapshot == snapshotID(q.Name) })
		switch {
		case i < 0 && q.Acked && !q.Dropping:
			w.fail(fmt.Errorf("cut %d of replica %d is lost", q.Name, n))
		case i < 0:
		case q.Flushed && !held[i].Valid:
			w.fail(fmt.Errorf("cut %d of replica %d was flushed, and is not valid", q.Name, n))
		case held[i].Valid:
			w.compare(n, r, snapshotID(q.Name), held[i].Size, q.May)
		}
	}
}

// useAgain writes to what was found, kills the store and opens it again: what the
// crash has left must not come back, and what is written now stays.
func (w *world) useAgain() {
	w.model = w.model.Clone()
	w.replicas = slices.DeleteFunc(slices.Clone(w.replicas), func(k replica) bool {
		_, err := w.store.Replica(replicaID(k.name))
		return err != nil
	})
	// A flush makes no cut valid that may lack something.
	for _, k := range w.replicas {
		w.submit(k.name, &store.Op{Kind: store.Flush, FlushNumber: block.FlushNumber{Epoch: 2, N: 1}}, func() {})
	}
	w.settle()
	w.verify(false)
	w.settled()
	for _, k := range w.replicas {
		w.write(k.name, 6, 5)
		w.write(k.name, extent+1, extent)
	}
	w.settle()
	w.restart(false)
	if w.failure == nil {
		w.verify(true)
	}
	if w.failure != nil {
		w.failure = fmt.Errorf("used, killed and opened again: %w", w.failure)
	}
}

// settled makes the model know what the store holds now, after a loss of power. Cuts
// that did not become valid are of no more use, and dropped.
func (w *world) settled() {
	if w.failure != nil {
		return
	}
	for i := range w.replicas {
		k := &w.replicas[i]
		r := w.find(k.name)
		if r == nil {
			return
		}
		k.size, k.grownTo, k.creating = r.Size(), r.Size(), false
		w.compare(k.name, r, block.SnapshotID{}, k.size, func(at int, tag uint64) error {
			return w.model.Survive(k.name, at, tag, false)
		})
		w.settleCuts(k.name, r)
	}
	w.settle()
}

func (w *world) settleCuts(n byte, r *store.Replica) {
	held := r.Cuts()
	for _, q := range slices.Clone(w.model.Cuts) {
		if q.Replica != n {
			continue
		}
		i := slices.IndexFunc(held, func(h block.Cut) bool { return h.Snapshot == snapshotID(q.Name) })
		switch {
		case i < 0:
			w.model.ForgetCut(q)
		case !held[i].Valid:
			w.drop(q)
		default:
			q.Acked, q.Flushed = true, true
		}
	}
	w.model.Cuts = slices.DeleteFunc(w.model.Cuts, func(q *sectors.Cut) bool {
		return !slices.ContainsFunc(w.replicas, func(k replica) bool { return k.name == q.Replica })
	})
}
