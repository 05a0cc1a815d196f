package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// junkKey is a key that no store looks at.
func junkKey(n int) []byte { return fmt.Appendf(nil, "~%06d", n) }

// TestDatabaseFaults lets the files that the database writes in the background fail,
// one kind of operation after the other, while it is made to write tables. Whatever
// fails, the process lives, the store fails, reads go on, the store can be closed, and
// what was committed is there after a loss of power.
func TestDatabaseFaults(t *testing.T) {
	for _, c := range []struct{ kinds, names string }{
		{"sync", "MANIFEST"}, {"write", "MANIFEST"}, {"sync", ".sst"}, {"write", ".sst"}, {"create", ".sst"},
		{"sync", ".log"}, {"write", ".log"}, {"create", ".log"}, {"sync", "meta"},
	} {
		for _, forever := range []bool{false, true} {
			for _, at := range []int64{0, 1, 3} {
				t.Run(fmt.Sprintf("%s %s number %d, for ever %t", c.kinds, c.names, at, forever), func(t *testing.T) {
					t.Parallel()
					eio := fmt.Errorf("injected: %w", syscall.EIO)
					f := &fault{at: at, faultKind: faultKind{kinds: c.kinds, names: c.names, forever: forever, err: eio}}
					testDatabaseFault(t, f)
				})
			}
		}
	}
}

func testDatabaseFault(t *testing.T, f *fault) {
	g := newRig(t)
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.count.Store(-1 << 30)
	options := g.options
	options.Simulated = false
	options.Dir = &faultyDir{Dir: g.dir, fault: f}
	s, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	f.count.Store(0)
	random := rand.New(rand.NewPCG(1, 2))
	committed := map[int][]byte{}
	for n := 0; n < 400 && err == nil; n++ {
		value := make([]byte, 32<<10)
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		b := s.db.NewBatch()
		if err := b.Set(junkKey(n), value, nil); err != nil {
			t.Fatal(err)
		}
		if err = s.commitBatch(b); err == nil {
			committed[n] = value
		}
	}
	if f.struck() == "" {
		if f.at == 0 {
			t.Fatal("there was no such operation")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return // there were not that many
	}
	if err == nil {
		// The fault was the last thing that happened, in the background.
		<-s.guard.tripped
	} else if !errors.Is(err, block.ErrDiskFailed) {
		t.Fatalf("the commit failed with %v", err)
	}
	for s.Failed() == nil {
		g.settle()
	}
	if !errors.Is(s.Failed(), block.ErrDiskFailed) {
		t.Fatalf("failed with %v", s.Failed())
	}
	expectJunk(t, s, committed)
	if err := s.Create(ReplicaSpec{Replica: replicaID(9), Volume: block.VolumeID{ID: testID(9)}, Size: 1 << 20}); !errors.Is(err, block.ErrDiskFailed) {
		t.Fatalf("created on a failed disk: %v", err)
	}
	after := g.dir.CrashClone(pebblevfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}

	for name, dir := range map[string]*pebblevfs.MemFS{"at once": after, "after the close": g.dir.CrashClone(pebblevfs.CrashCloneCfg{})} {
		steps := &vfs.StepExecutor{}
		options := g.options
		options.Dir, options.Executor = dir, steps
		options.Device = g.device.Fork().Crash(steps, func(int, vfs.UnsyncedWrite, int) bool { return false })
		options.Incarnation.Boot[0]++
		s, err := Open(options)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expectJunk(t, s, committed)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func expectJunk(t *testing.T, s *Store, committed map[int][]byte) {
	t.Helper()
	for n, want := range committed {
		if got, err := s.get(junkKey(n)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("key %d: %d bytes, %v", n, len(got), err)
		}
	}
}

// TestFaultsAtOpen lets each operation of an open fail in turn: it ends with an error
// or works.
func TestFaultsAtOpen(t *testing.T) {
	for _, forever := range []bool{false, true} {
		for at := int64(0); ; at++ {
			g := newRig(t)
			if err := g.store.Close(); err != nil {
				t.Fatal(err)
			}
			f := &fault{at: at, faultKind: faultKind{err: fmt.Errorf("injected: %w", syscall.EIO), forever: forever}}
			options := g.options
			options.Dir = &faultyDir{Dir: g.dir, fault: f}
			s, err := Open(options)
			if f.struck() == "" {
				if err != nil || at < 20 {
					t.Fatalf("%d operations, without a fault: %v", at, err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil {
				err = s.Close()
			}
			if err != nil && !errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d, %s: %v", at, f.struck(), err)
			}
			// A disk that works again is as it was.
			g.open()
			if err := g.store.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// stuckDevice is a data file whose operations of one kind do not return until they are
// let go.
type stuckDevice struct {
	vfs.Device
	kind vfs.IOKind
	held []*vfs.IO
}

func (d *stuckDevice) Submit(io *vfs.IO) {
	if io.Kind == d.kind {
		d.held = append(d.held, io)
		return
	}
	d.Device.Submit(io)
}

func (d *stuckDevice) Do(io *vfs.IO) error { return vfs.Do(d.Device, io) }

func (d *stuckDevice) letGo() {
	held := d.held
	d.held, d.kind = nil, 0
	for _, io := range held {
		d.Device.Submit(io)
	}
}

// TestStalledDataFile: an operation that does not return fails the disk. What can be
// answered is, with an error; closing does not wait, and the rest ends by itself.
func TestStalledDataFile(t *testing.T) {
	for _, kind := range []vfs.IOKind{vfs.Read, vfs.Write, vfs.Sync} {
		t.Run(fmt.Sprintf("operation %d", kind), func(t *testing.T) {
			g := newRig(t)
			r := g.create(1, 1<<20)
			g.write(r, 0, fill(4096, 1))
			g.flush(r)
			if err := g.store.Close(); err != nil {
				t.Fatal(err)
			}
			stuck := &stuckDevice{Device: g.device, kind: kind}
			g.options.Device = stuck
			s, err := Open(g.options)
			if err != nil {
				t.Fatal(err)
			}
			g.store = s
			r = g.replica(1)
			var ended []*Op
			submit := func(op *Op) *Op {
				op.Done = func(op *Op) { ended = append(ended, op) }
				r.Submit(op)
				g.settle()
				return op
			}
			first := map[vfs.IOKind]*Op{
				vfs.Read:  {Kind: Read, Length: 4096, Buf: block.NewBuffer(4096)},
				vfs.Write: writeOp(0, fill(4096, 2)),
				vfs.Sync:  {Kind: Flush},
			}[kind]
			if kind == vfs.Sync {
				submit(writeOp(0, fill(4096, 2)))
			}
			ended = nil
			submit(first)
			const limit = 5
			for n := 1; n < limit; n++ {
				if age := s.Tick(limit); age != n || s.Failed() != nil {
					t.Fatalf("age %d after %d ticks: %v", age, n, s.Failed())
				}
			}
			s.Tick(limit)
			g.settle()
			if !errors.Is(s.Failed(), block.ErrDiskFailed) {
				t.Fatalf("after %d ticks: %v", limit, s.Failed())
			}
			if len(ended) != 0 {
				t.Fatalf("%s was answered while its operation runs: %v", ended[0].Kind, ended[0].Err)
			}
			for _, op := range []*Op{{Kind: Read, Offset: 65536, Length: 4096, Buf: block.NewBuffer(4096)}, writeOp(65536, fill(4096, 3)), {Kind: Flush}} {
				if submit(op); len(ended) != 1 || ended[0] != op || !errors.Is(op.Err, block.ErrDiskFailed) {
					t.Fatalf("%s on a stalled disk: %v", op.Kind, op.Err)
				}
				ended = nil
			}
			if err := s.Close(); !errors.Is(err, block.ErrDiskFailed) {
				t.Fatalf("closed: %v", err)
			}
			stuck.letGo()
			g.settle()
			if len(ended) != 1 || ended[0] != first {
				t.Fatalf("%d requests ended with the operation", len(ended))
			}
			if kind == vfs.Sync && first.Err == nil {
				t.Fatal("a flush succeeded on a failed disk")
			}
		})
	}
}

// stuckDir is a metadata directory whose syncs do not return until they are let go.
type stuckDir struct {
	vfs.Dir
	gate chan struct{}
	on   func() bool
	// reached is told of each that is held up.
	reached chan struct{}
}

type stuckFile struct {
	pebblevfs.File
	dir *stuckDir
}

func (d *stuckDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := d.Dir.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &stuckFile{File: f, dir: d}, nil
}

func (d *stuckDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := d.Dir.ReuseForWrite(from, to, c)
	if err != nil {
		return nil, err
	}
	return &stuckFile{File: f, dir: d}, nil
}

func (f *stuckFile) wait() {
	if f.dir.on() {
		select {
		case f.dir.reached <- struct{}{}:
		default:
		}
		<-f.dir.gate
	}
}

func (f *stuckFile) Sync() error {
	f.wait()
	return f.File.Sync()
}

func (f *stuckFile) SyncData() error {
	f.wait()
	return f.File.SyncData()
}

// TestStalledDatabase: a sync of the database that does not return fails the disk, and
// nothing waits for it.
func TestStalledDatabase(t *testing.T) {
	g := newRig(t)
	g.create(1, 1<<20)
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	executor := vfs.NewGoExecutor(4)
	armed := make(chan struct{})
	dir := &stuckDir{Dir: g.dir, gate: make(chan struct{}), reached: make(chan struct{}, 1), on: func() bool {
		select {
		case <-armed:
			return true
		default:
			return false
		}
	}}
	options := g.options
	options.Simulated, options.Executor, options.Dir = false, executor, dir
	options.Device = vfs.NewMemDevice(executor, 64<<20)
	copyDevice(t, options.Device, g.device)
	s, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	close(armed)
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	first, second := make(chan error, 1), make(chan error, 1)
	r.Submit(&Op{Kind: Fence, NewFence: block.Fence{Epoch: 1}, Done: func(op *Op) { first <- op.Err }})
	// Before that, looks that come as fast as these may take another operation for one
	// that does not return.
	<-dir.reached
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for s.Failed() == nil && ctx.Err() == nil {
		s.Tick(3)
	}
	if !errors.Is(s.Failed(), block.ErrDiskFailed) {
		t.Fatalf("failed with %v", s.Failed())
	}
	r.Submit(&Op{Kind: Flush, Done: func(op *Op) { second <- op.Err }})
	if err := <-second; !errors.Is(err, block.ErrDiskFailed) {
		t.Fatalf("a flush on a stalled disk: %v", err)
	}
	if err := s.Close(); !errors.Is(err, block.ErrDiskFailed) {
		t.Fatalf("closed: %v", err)
	}
	close(dir.gate)
	<-first
	executor.Close()
}

// copyDevice copies the content of a data file.
func copyDevice(t *testing.T, to, from vfs.Device) {
	t.Helper()
	if err := to.Grow(from.Size()); err != nil {
		t.Fatal(err)
	}
	b := block.NewBuffer(block.ExtentSize)
	defer b.Release()
	for at := int64(0); at < from.Size(); at += block.ExtentSize {
		err := vfs.Do(from, &vfs.IO{Kind: vfs.Read, Offset: at, Length: block.ExtentSize, Data: b.Data})
		if err == nil {
			err = vfs.Do(to, &vfs.IO{Kind: vfs.Write, Offset: at, Length: block.ExtentSize, Data: b.Data})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFatalIsNotSurvived: a fault that the database finds in itself is no fault of the
// disk.
func TestFatalIsNotSurvived(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("it went on")
		}
	}()
	var logger pebble.Logger = databaseLogger{store: newRig(t).store}
	logger.Fatalf("level %d is out of order", 3)
}
