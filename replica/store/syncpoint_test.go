package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// moment is the state of everything just before a sync.
type moment struct {
	name    string
	device  *vfs.MemDevice
	strict  *pebblevfs.MemFS
	lenient *pebblevfs.MemFS
	model   *model
}

// watcher records a moment before each sync of the data file and of any file of
// the metadata.
type watcher struct {
	c       *chaos
	moments []moment
}

func (w *watcher) record(name string) {
	w.moments = append(w.moments, moment{
		name: name, device: w.c.device.Fork(),
		strict:  w.c.dir.CrashClone(pebblevfs.CrashCloneCfg{}),
		lenient: keepAll(w.c.dir),
		model:   w.c.model.clone(),
	})
}

func keepAll(dir *pebblevfs.MemFS) *pebblevfs.MemFS {
	return dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

func (m *model) clone() *model {
	c := &model{sectors: map[byte][]history{}, nextTag: m.nextTag}
	for n, list := range m.sectors {
		list = slices.Clone(list)
		for i := range list {
			list[i].events = slices.Clone(list[i].events)
		}
		c.sectors[n] = list
	}
	return c
}

type watchedDevice struct {
	vfs.Device
	watcher *watcher
}

func (d *watchedDevice) Submit(io *vfs.IO) {
	if io.Kind == vfs.Sync {
		d.watcher.record("data file")
	}
	d.Device.Submit(io)
}

func (d *watchedDevice) Do(io *vfs.IO) error { return vfs.Do(d.Device, io) }

type watchedDir struct {
	vfs.Dir
	watcher *watcher
}

func (d *watchedDir) wrap(name string, f pebblevfs.File, err error) (pebblevfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, name: name, watcher: d.watcher}, nil
}

func (d *watchedDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := d.Dir.Create(name, c)
	return d.wrap(name, f, err)
}

func (d *watchedDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := d.Dir.ReuseForWrite(from, to, c)
	return d.wrap(to, f, err)
}

type watchedFile struct {
	pebblevfs.File
	name    string
	watcher *watcher
}

func (f *watchedFile) Sync() error {
	f.watcher.record(f.name)
	return f.File.Sync()
}

func (f *watchedFile) SyncData() error {
	f.watcher.record(f.name)
	return f.File.SyncData()
}

func (f *watchedFile) SyncTo(length int64) (bool, error) {
	f.watcher.record(f.name)
	return f.File.SyncTo(length)
}

const syncPointSize = 1 << 20

// scenario is what the store does around the syncs: writes of parts of blocks to
// valid, new and reused blocks, trims, flushes of both replicas.
func scenario(c *chaos) {
	write := func(n byte, first, count int) {
		tag := c.model.begin(n, first, count, false)
		data := make([]byte, count*block.SectorSize)
		for i := range count {
			fillSector(data[i*block.SectorSize:(i+1)*block.SectorSize], n, tag+uint64(i))
		}
		c.submit(c.replica(n), writeOp(int64(first)*block.SectorSize, data), func(*Op) { c.model.ack(n, first, count, tag, false) })
	}
	zero := func(n byte, first, count int) {
		tag := c.model.begin(n, first, count, true)
		op := &Op{Kind: Zero, Offset: int64(first) * block.SectorSize, Length: int64(count) * block.SectorSize}
		c.submit(c.replica(n), op, func(*Op) { c.model.ack(n, first, count, tag, true) })
	}
	number := uint64(0)
	flush := func(n byte) {
		number++
		marks := c.model.mark(n)
		c.submit(c.replica(n), &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: number}}, func(*Op) { c.model.flushed(n, marks) })
	}
	write(1, 0, 8)
	write(1, 130, 3)
	write(2, 0, 256)
	c.settle()
	flush(1)
	c.settle()
	write(1, 1, 1)
	write(1, 20, 30)
	zero(2, 3, 200)
	c.settle()
	flush(2)
	write(1, 256, 128)
	c.settle()
	zero(1, 0, 128)
	c.settle()
	write(1, 2, 1)
	write(2, 10, 1)
	flush(1)
	flush(2)
	c.settle()
	write(2, 128, 256)
	write(1, 4, 2)
	c.settle()
	c.submit(c.replica(1), &Op{Kind: Update, Meta: &block.Update{ClearLog: block.Regions{1}}}, func(*Op) {})
	c.settle()
	flush(2)
	c.settle()
}

// subsets yields which of n writes survive: all subsets of few, of many none,
// all, each alone, all but one and some at random.
func subsets(n int, random *rand.Rand) func(yield func(func(i int) bool) bool) {
	const few, samples = 10, 200
	return func(yield func(func(i int) bool) bool) {
		if n <= few {
			for set := range 1 << n {
				if !yield(func(i int) bool { return set&(1<<i) != 0 }) {
					return
				}
			}
			return
		}
		for _, all := range []bool{false, true} {
			if !yield(func(int) bool { return all }) {
				return
			}
			for one := range n {
				if !yield(func(i int) bool { return (i == one) != all }) {
					return
				}
			}
		}
		for range samples {
			if !yield(func(int) bool { return random.IntN(2) == 0 }) {
				return
			}
		}
	}
}

// TestEverySyncPoint loses power just before every sync, with subsets of the
// unsynced writes of the data file, and with none and all of those of the
// metadata.
func TestEverySyncPoint(t *testing.T) {
	c := &chaos{rig: newRig(t), random: rand.New(rand.NewPCG(1, 1)), model: newModel(), sizes: map[byte]int64{}}
	for n := byte(1); n <= 2; n++ {
		c.create(n, syncPointSize)
		c.model.add(n, syncPointSize)
		c.order = append(c.order, n)
	}
	w := &watcher{c: c}
	c.bugs = bugs{
		device: func(d vfs.Device) vfs.Device { return &watchedDevice{Device: d, watcher: w} },
		dir:    func(d vfs.Dir) vfs.Dir { return &watchedDir{Dir: d, watcher: w} },
	}
	c.reopen()
	scenario(c)
	if c.failure != nil {
		t.Fatal(c.failure)
	}
	cases := 0
	for _, m := range w.moments {
		for _, dir := range []*pebblevfs.MemFS{m.strict, m.lenient} {
			for keep := range subsets(len(m.device.Unsynced()), c.random) {
				cases++
				if err := afterPowerLoss(t, c.options, m, dir, keep); err != nil {
					t.Fatalf("before the sync of %s: %v", m.name, err)
				}
			}
		}
	}
	if len(w.moments) < 15 {
		t.Fatalf("only %d sync points", len(w.moments))
	}
	t.Logf("%d sync points, %d crashes", len(w.moments), cases)
}

func afterPowerLoss(t *testing.T, options Options, m moment, dir *pebblevfs.MemFS, keep func(i int) bool) error {
	g := &rig{t: t, steps: &vfs.StepExecutor{}, dir: keepAll(dir), options: options}
	g.device = m.device.Fork().Crash(g.steps, func(i int, _ vfs.UnsyncedWrite, _ int) bool { return keep(i) })
	g.options.Incarnation.DiskSequence++
	c := &chaos{rig: g, model: m.model.clone(), order: []byte{1, 2}}
	c.openBroken()
	if c.failure != nil {
		return c.failure
	}
	c.verify(false)
	if err := c.store.Abandon(); err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	return c.failure
}
