package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

const (
	replicaName = 1
	replicaSize = 8 << 20
	sectorCount = replicaSize / block.SectorSize
)

func id(n byte) block.ID { return block.ID{0: n, 15: n} }

func snapshotID(n byte) block.SnapshotID { return block.SnapshotID{ID: block.ID{0: n, 1: 5, 15: n}} }

// load writes to a replica of a store on a disk, and knows what it must hold.
type load struct {
	store    *store.Store
	replica  *store.Replica
	executor *vfs.GoExecutor
	model    *sectors.Model
	random   *rand.Rand
	flushes  uint64
	cuts     byte
	// deaf: what the disk reports as flushed is not believed.
	deaf bool
}

func options(executor vfs.Executor) store.DiskOptions {
	return store.DiskOptions{Options: store.Options{
		Executor: executor, Logger: slog.New(slog.DiscardHandler), Reserve: 16 << 20, GrowStep: 16 << 20,
		JournalSize: 64 << 10, MaxChanged: 64, MemTableSize: 256 << 10,
	}}
}

// newLoad makes a store in a folder.
func newLoad(path string, seed uint64) (*load, error) {
	l := &load{executor: vfs.NewGoExecutor(2), model: sectors.New(), random: rand.New(rand.NewPCG(seed, 1))}
	identity := store.Identity{Cluster: block.ClusterID{ID: id(1)}, Node: block.NodeID{ID: id(2)}, Disk: block.DiskID{ID: id(3)}}
	if err := store.FormatDisk(path, options(l.executor), identity); err != nil {
		return nil, err
	}
	if err := l.open(path); err != nil {
		return nil, err
	}
	l.model.Add(replicaName, replicaSize)
	spec := store.ReplicaSpec{Replica: block.ReplicaID{ID: id(replicaName)}, Volume: block.VolumeID{ID: id(9)}, Size: replicaSize}
	if err := l.store.Create(spec); err != nil {
		return nil, err
	}
	return l, l.find()
}

func (l *load) open(path string) (err error) {
	l.store, err = store.OpenDisk(path, options(l.executor))
	return err
}

func (l *load) find() (err error) {
	l.replica, err = l.store.Replica(block.ReplicaID{ID: id(replicaName)})
	return err
}

// close ends the store, if it is open.
func (l *load) close() error {
	var err error
	if l.store != nil {
		err = l.store.Close()
	}
	l.executor.Close()
	return err
}

func (l *load) do(op *store.Op) error {
	done := make(chan struct{})
	op.Done = func(*store.Op) { close(done) }
	l.replica.Submit(op)
	<-done
	return op.Err
}

// change writes or zeroes at one of some places that are often met.
func (l *load) change() error {
	count := 1 + l.random.IntN([]int{4, 24, 256}[l.random.IntN(3)])
	first := min(l.random.IntN(16)*1000+l.random.IntN(40), sectorCount-count)
	zero := l.random.IntN(6) == 0
	tag := l.model.Begin(replicaName, first, count, zero)
	op := &store.Op{Kind: store.Zero, Offset: int64(first) * block.SectorSize, Length: int64(count) * block.SectorSize}
	if !zero {
		op.Kind, op.Buf = store.Write, block.NewBuffer(count*block.SectorSize)
		defer op.Buf.Release()
		for i := range count {
			sectors.Fill(op.Buf.Data[i*block.SectorSize:(i+1)*block.SectorSize], replicaName, tag+uint64(i))
		}
	}
	err := l.do(op)
	if err == nil {
		l.model.Ack(replicaName, first, count, tag, zero)
	}
	return err
}

// flush makes everything durable; settled, unless nil, is called between the answer
// and its entry in the model.
func (l *load) flush(settled func()) error {
	l.flushes++
	marks := l.model.Mark(replicaName)
	if err := l.do(&store.Op{Kind: store.Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: l.flushes}}); err != nil {
		return err
	}
	if l.deaf {
		return nil
	}
	if settled != nil {
		settled()
	}
	l.model.Flushed(replicaName, marks)
	for _, q := range l.model.Cuts {
		q.Flushed = q.Acked
	}
	return nil
}

// cut takes a cut, or drops the oldest if there are enough.
func (l *load) cut() error {
	if len(l.model.Cuts) > 2 {
		q := l.model.Cuts[0]
		q.Dropping = true
		u := block.Update{DropCuts: []block.SnapshotID{snapshotID(q.Name)}}
		err := l.do(&store.Op{Kind: store.Update, Meta: &u})
		if err == nil {
			l.model.ForgetCut(q)
		}
		return err
	}
	l.cuts++
	q := l.model.BeginCut(replicaName, l.cuts)
	u := block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(q.Name), Epoch: 1}}}
	err := l.do(&store.Op{Kind: store.Update, Meta: &u})
	q.Acked = err == nil
	return err
}

// turn is some changes, now and then a cut.
func (l *load) turn() error {
	for range 4 + l.random.IntN(12) {
		if err := l.change(); err != nil {
			return err
		}
	}
	if l.random.IntN(2) == 0 {
		return l.cut()
	}
	return nil
}

// look opens the store in a folder after a crash and compares it with what it may
// hold by a model.
func look(path string, model *sectors.Model) (err error) {
	l := &load{executor: vfs.NewGoExecutor(2), model: model}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.open(path); err != nil {
		return err
	}
	if err := l.find(); err != nil {
		return err
	}
	if err := l.compare(block.SnapshotID{}, func(at int, tag uint64) error { return model.May(replicaName, at, tag, false) }); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	held := l.replica.Cuts()
	for _, q := range model.Cuts {
		i := slices.IndexFunc(held, func(c block.Cut) bool { return c.Snapshot == snapshotID(q.Name) })
		switch {
		case i < 0 && q.Acked && !q.Dropping:
			err = errors.New("it is lost")
		case i >= 0 && q.Flushed && !held[i].Valid:
			err = errors.New("it was flushed, and is not valid")
		case i >= 0 && held[i].Valid:
			err = l.compare(snapshotID(q.Name), q.May)
		}
		if err != nil {
			return fmt.Errorf("cut %d: %w", q.Name, err)
		}
	}
	return l.check()
}

// check looks at the maps when what the open has begun, dropping cuts, has ended.
func (l *load) check() error {
	const most = 1000
	for range most {
		err := l.store.Check()
		if !errors.Is(err, block.ErrUnavailable) {
			return err
		}
		if err := l.do(&store.Op{Kind: store.Flush}); err != nil {
			return err
		}
	}
	return errors.New("cuts are being dropped without end")
}

func (l *load) compare(snapshot block.SnapshotID, may func(at int, tag uint64) error) error {
	const step = block.MaxTransfer
	buffer := block.NewBuffer(step)
	defer buffer.Release()
	for at := 0; at < replicaSize; at += step {
		op := &store.Op{Kind: store.Read, Snapshot: snapshot, Offset: int64(at), Length: step, Buf: buffer}
		if snapshot.IsZero() {
			op.Flags = block.FlagAcceptSuspect
		}
		if err := l.do(op); err != nil {
			return err
		}
		for i := range step / block.SectorSize {
			sector := at/block.SectorSize + i
			tag, err := l.model.Read(buffer.Data[i*block.SectorSize:(i+1)*block.SectorSize], replicaName)
			if err == nil {
				err = may(sector, tag)
			}
			if err != nil {
				return fmt.Errorf("sector %d: %w", sector, err)
			}
		}
	}
	return nil
}
