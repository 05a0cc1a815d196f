package store

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// faultKind is a way in which disks fail.
type faultKind struct {
	// kinds are those of the operations that are counted, as named by the wrappers
	// below; empty means all.
	kinds string
	// names is part of the names of the files that are counted; empty means all.
	names string
	// forever: not one operation fails, but also all after it.
	forever bool
	// err is what a file says, device what the data file says.
	err, device error
	// short: a write puts half of its bytes down before it fails.
	short bool
}

// fault is one thing that goes wrong with a disk.
type fault struct {
	faultKind
	// at is the operation that fails, counted from zero.
	at int64

	count atomic.Int64
	last  atomic.Pointer[string]
}

// hit counts an operation and reports whether it fails.
func (f *fault) hit(kind, name string) bool {
	if f.kinds != "" && !strings.Contains(f.kinds, kind) || !strings.Contains(name, f.names) {
		return false
	}
	n := f.count.Add(1) - 1
	if n != f.at && !(f.forever && n > f.at) {
		return false
	}
	what := kind + " " + name
	f.last.CompareAndSwap(nil, &what)
	return true
}

// struck names the first operation that failed, or is empty.
func (f *fault) struck() string {
	if p := f.last.Load(); p != nil {
		return *p
	}
	return ""
}

func (f *fault) onDevice(io *vfs.IO, device vfs.Device) error {
	kind := map[vfs.IOKind]string{vfs.Read: "read", vfs.Write: "write", vfs.Sync: "sync", vfs.Discard: "discard"}[io.Kind]
	if !f.hit(kind, "data file") {
		return nil
	}
	if f.short && io.Kind == vfs.Write {
		merged := block.NewBuffer(int(io.Length))
		defer merged.Release()
		whole := vfs.IO{Kind: vfs.Read, Offset: io.Offset, Length: io.Length, Data: merged.Data}
		err := vfs.Do(device, &whole)
		copy(merged.Data, io.Data[:io.Length/2&^(block.SectorSize-1)])
		whole.Kind = vfs.Write
		if err := errors.Join(err, vfs.Do(device, &whole)); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", kind, f.device)
}

// faultyDevice is the data file.
type faultyDevice struct {
	*vfs.MemDevice
	fault    *fault
	executor vfs.Executor
}

func (d *faultyDevice) Submit(io *vfs.IO) {
	if err := d.fault.onDevice(io, d.MemDevice); err != nil {
		d.executor.Go(func() { io.Err = err; io.Done(io) })
		return
	}
	d.MemDevice.Submit(io)
}

func (d *faultyDevice) Do(io *vfs.IO) error {
	if err := d.fault.onDevice(io, d.MemDevice); err != nil {
		return err
	}
	return d.MemDevice.Do(io)
}

func (d *faultyDevice) Grow(size int64) error {
	if d.fault.hit("grow", "data file") {
		return fmt.Errorf("grow: %w", d.fault.device)
	}
	return d.MemDevice.Grow(size)
}

// faultyDir is the metadata directory.
type faultyDir struct {
	vfs.Dir
	fault *fault
}

func (d *faultyDir) wrap(name string, f pebblevfs.File, err error) (pebblevfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: f, name: name, fault: d.fault}, nil
}

func (d *faultyDir) failing(kind, name string) error {
	if d.fault.hit(kind, name) {
		return fmt.Errorf("%s %s: %w", kind, name, d.fault.err)
	}
	return nil
}

func (d *faultyDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := d.failing("create", name); err != nil {
		return nil, err
	}
	f, err := d.Dir.Create(name, c)
	return d.wrap(name, f, err)
}

func (d *faultyDir) Open(name string, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	if err := d.failing("open", name); err != nil {
		return nil, err
	}
	f, err := d.Dir.Open(name, opts...)
	return d.wrap(name, f, err)
}

func (d *faultyDir) OpenDir(name string) (pebblevfs.File, error) {
	if err := d.failing("open", name); err != nil {
		return nil, err
	}
	f, err := d.Dir.OpenDir(name)
	return d.wrap(name, f, err)
}

func (d *faultyDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := d.failing("create", to); err != nil {
		return nil, err
	}
	f, err := d.Dir.ReuseForWrite(from, to, c)
	return d.wrap(to, f, err)
}

func (d *faultyDir) Rename(from, to string) error {
	if err := d.failing("rename", to); err != nil {
		return err
	}
	return d.Dir.Rename(from, to)
}

func (d *faultyDir) Remove(name string) error {
	if err := d.failing("remove", name); err != nil {
		return err
	}
	return d.Dir.Remove(name)
}

func (d *faultyDir) List(name string) ([]string, error) {
	if err := d.failing("list", name); err != nil {
		return nil, err
	}
	return d.Dir.List(name)
}

type faultyFile struct {
	pebblevfs.File
	name  string
	fault *fault
}

func (f *faultyFile) failing(kind string) error {
	if f.fault.hit(kind, f.name) {
		return fmt.Errorf("%s %s: %w", kind, f.name, f.fault.err)
	}
	return nil
}

func (f *faultyFile) Write(p []byte) (int, error) {
	err := f.failing("write")
	if err == nil {
		return f.File.Write(p)
	}
	if !f.fault.short {
		return 0, err
	}
	n, writeErr := f.File.Write(p[:len(p)/2])
	return n, errors.Join(err, writeErr)
}

func (f *faultyFile) Read(p []byte) (int, error) {
	if err := f.failing("read"); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.failing("read"); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) Sync() error {
	if err := f.failing("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) SyncData() error {
	if err := f.failing("sync"); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *faultyFile) SyncTo(length int64) (bool, error) {
	if err := f.failing("sync"); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

func (f *faultyFile) Preallocate(offset, length int64) error {
	if err := f.failing("allocate"); err != nil {
		return err
	}
	return f.File.Preallocate(offset, length)
}

// faultKinds are the ways in which TestEveryFault lets a disk fail.
func faultKinds() map[string]faultKind {
	const changes = "write sync create rename remove grow allocate discard"
	eio := fmt.Errorf("injected: %w", syscall.EIO)
	full := fmt.Errorf("injected: %w", syscall.ENOSPC)
	dead := fmt.Errorf("injected: %w", block.ErrDiskFailed)
	return map[string]faultKind{
		"error once":        {err: eio, device: dead},
		"error for ever":    {err: eio, device: dead, forever: true},
		"short write":       {err: eio, device: dead, kinds: "write", short: true},
		"full once":         {err: full, device: block.ErrNoSpace, kinds: changes},
		"full for ever":     {err: full, device: block.ErrNoSpace, kinds: changes, forever: true},
		"full, short write": {err: full, device: block.ErrNoSpace, kinds: "write", short: true},
	}
}

// TestEveryFault lets each single operation on the data file, the database and the
// journal fail in turn, in each of several ways, until a run meets no fault any
// more. Whatever fails, requests end; what was acknowledged before and after is
// there after the death of the process, and what was flushed after a loss of power;
// and a store that has lost a write or a sync takes none any more.
func TestEveryFault(t *testing.T) {
	for name, kind := range faultKinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stops := 0
			for n := int64(0); ; n++ {
				f := &fault{faultKind: kind, at: n}
				c := faultyRun(t, f)
				if c.failure != nil {
					t.Fatalf("operation %d, %s: %v", n, f.struck(), c.failure)
				}
				if f.struck() == "" {
					t.Logf("%d operations, %d of which ended all writing", n, stops)
					if n < 20 || stops == 0 {
						t.Fatal("the faults met next to nothing")
					}
					return
				}
				if c.store.Failed() != nil {
					stops++
				}
				for _, kill := range []bool{true, false} {
					if err := c.afterFault(t, kill); err != nil {
						t.Fatalf("operation %d, %s, then a crash (kill %v): %v", n, f.struck(), kill, err)
					}
				}
				if err := c.store.Abandon(); err != nil && f.struck() == "" {
					t.Fatal(err)
				}
			}
		})
	}
}

// faultyRun plays the scenario on a store whose disk has the fault.
func faultyRun(t *testing.T, f *fault) *chaos {
	c := &chaos{rig: newRig(t), random: rand.New(rand.NewPCG(1, 1)), model: sectors.New(), sizes: map[byte]int64{}}
	for n := byte(1); n <= 2; n++ {
		c.create(n, faultSize)
		c.model.Add(n, faultSize)
		c.order = append(c.order, n)
	}
	// Whatever opening takes does not count.
	armed := &fault{faultKind: f.faultKind, at: f.at}
	armed.count.Store(math.MinInt32)
	c.bugs = bugs{
		device: func(d vfs.Device) vfs.Device {
			return &faultyDevice{MemDevice: d.(*vfs.MemDevice), fault: armed, executor: c.steps}
		},
		dir: func(d vfs.Dir) vfs.Dir { return &faultyDir{Dir: d, fault: armed} },
	}
	c.reopen()
	if c.failure != nil {
		return c
	}
	armed.count.Store(0)
	c.tolerant = true
	scenario(c)
	if p := armed.last.Load(); p != nil {
		f.last.Store(p)
	}
	c.tolerant = false
	c.failsStop(f)
	return c
}

// failsStop checks what the errors of the run say.
func (c *chaos) failsStop(f *fault) {
	if c.inFlight != 0 {
		c.fail(fmt.Errorf("%d requests did not end", c.inFlight))
	}
	if f.struck() == "" && len(c.failed) > 0 {
		c.fail(fmt.Errorf("failed without a fault: %w", c.failed[0]))
	}
	for _, err := range c.failed {
		failed, full := errors.Is(err, block.ErrDiskFailed), errors.Is(err, block.ErrNoSpace)
		if failed == full {
			c.fail(fmt.Errorf("neither full nor failed, or both: %w", err))
		}
		// An engine lets a write wait for space, and nothing else.
		if full && !strings.HasPrefix(err.Error(), "write") && !strings.HasPrefix(err.Error(), "zero") {
			c.fail(fmt.Errorf("it is no write: %w", err))
		}
	}
	lost := strings.HasPrefix(f.struck(), "sync") || strings.HasPrefix(f.struck(), "write") && !errors.Is(f.err, syscall.ENOSPC)
	if lost && c.store.Failed() == nil {
		c.fail(errors.New("the store goes on after a write or a sync that failed"))
	}
	if c.store.Failed() == nil {
		return
	}
	for _, op := range []*Op{writeOp(0, fill(4096, 3)), {Kind: Zero, Length: 4096}, {Kind: Flush}, {Kind: Update, Meta: &block.Update{}}} {
		if err := c.do(c.replica(1), op); !errors.Is(err, block.ErrDiskFailed) {
			c.fail(fmt.Errorf("%s after the failure: %w", op.Kind, err))
		}
	}
}

// afterFault crashes a copy of what is left and opens it on a disk that works.
func (c *chaos) afterFault(t *testing.T, kill bool) error {
	g := &rig{t: t, steps: &vfs.StepExecutor{}, options: c.options}
	after := &chaos{rig: g, model: c.model.Clone(), order: c.order}
	random := rand.New(rand.NewPCG(1, 1))
	if kill {
		g.dir = keepAll(c.dir)
		g.device = c.device.Fork().Kill(g.steps, func(int, vfs.UnsyncedWrite, int) bool { return true })
	} else {
		g.dir = c.dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: random})
		g.device = c.device.Fork().Crash(g.steps, func(int, vfs.UnsyncedWrite, int) bool { return random.IntN(2) == 0 })
		g.options.Incarnation.DiskSequence++
	}
	after.openBroken()
	if after.failure != nil {
		return after.failure
	}
	after.verify(kill)
	if after.failure == nil {
		// It works again.
		after.submit(after.replica(1), writeOp(0, fill(4096, 1)), func(*Op) {})
		after.settle()
		after.submit(after.replica(1), &Op{Kind: Flush}, func(*Op) {})
		after.settle()
	}
	return errors.Join(after.failure, after.store.Abandon())
}
