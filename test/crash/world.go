package crash

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// Faults are bugs that are planted in what the store stands on, in every store of a
// run, to see that they are noticed.
type Faults struct {
	// Device and Dir, unless nil, stand between the store and its disk.
	Device func(vfs.Device) vfs.Device
	Dir    func(vfs.Dir) vfs.Dir
	// Sync, unless nil, says which syncs of the metadata are carried out.
	Sync func(name string) bool
}

// world is a store in use, and what is known of it.
type world struct {
	steps   *vfs.StepExecutor
	device  *vfs.MemDevice
	dir     *vfs.MemDir
	store   *store.Store
	options store.Options
	faults  Faults

	model    *sectors.Model
	replicas []replica
	failure  error
	flushes  uint64
	names    byte

	recording bool
	mu        sync.Mutex
	moments   []moment
}

// replica is what is known of one. Of what was asked for and not answered, either may
// be found: that it is there, that it is gone, that it has the other size.
type replica struct {
	name               byte
	size, grownTo      int64
	creating, deleting bool
}

// moment is everything just before a sync.
type moment struct {
	// name is what is about to be synced.
	name     string
	device   *vfs.MemDevice
	image    *vfs.MemDirImage
	model    *sectors.Model
	replicas []replica
	options  store.Options
}

func testID(n byte) block.ID { return block.ID{0: n, 15: n} }

func replicaID(n byte) block.ReplicaID { return block.ReplicaID{ID: testID(n)} }

func snapshotID(n byte) block.SnapshotID { return block.SnapshotID{ID: block.ID{0: n, 1: 5, 15: n}} }

const diskPath = "disk"

// newWorld formats a store and opens it, with limits so small that every mechanism
// works.
func newWorld(faults Faults) (*world, error) {
	w := &world{steps: &vfs.StepExecutor{}, dir: vfs.NewMemDir(), model: sectors.New(), faults: faults}
	w.device = vfs.NewMemDevice(w.steps, 32<<20)
	w.options = store.Options{
		Path: diskPath, Incarnation: block.Incarnation{Boot: testID(9)}, Logger: slog.New(slog.DiscardHandler),
		Reserve: 1 << 20, GrowStep: 1 << 20, MemTableSize: 256 << 10, Simulated: true,
		JournalSize: 1 << 10, MaxChanged: 12,
	}
	if err := errors.Join(w.dir.MkdirAll(diskPath, 0o700), syncPath(w.dir, "/")); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	o := w.options
	o.Dir, o.Device, o.Executor = w.dir, w.device, w.steps
	id := store.Identity{
		Cluster: block.ClusterID{ID: testID(1)}, Node: block.NodeID{ID: testID(2)}, Disk: block.DiskID{ID: testID(3)},
	}
	if err := store.Format(o, id); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	w.recording = true
	return w, w.open()
}

func syncPath(dir vfs.Dir, name string) error {
	f, err := dir.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// open opens the store on the disk as it is, watching the syncs.
func (w *world) open() error {
	w.dir.OnSync(func(name string) bool {
		w.record(name)
		return w.faults.Sync == nil || w.faults.Sync(name)
	})
	o := w.options
	o.Executor, o.Dir, o.Device = w.steps, w.dir, &watchedDevice{MemDevice: w.device, world: w}
	if w.faults.Device != nil {
		o.Device = w.faults.Device(o.Device)
	}
	if w.faults.Dir != nil {
		o.Dir = w.faults.Dir(o.Dir)
	}
	s, err := store.Open(o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	w.store = s
	return nil
}

// record keeps the moment. The database syncs on goroutines of its own, for which
// the world waits.
func (w *world) record(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.recording {
		return
	}
	w.moments = append(w.moments, moment{
		name: path.Base(name), device: w.device.Fork(), image: w.dir.Image(), model: w.model.Clone(),
		replicas: slices.Clone(w.replicas), options: w.options,
	})
}

// watchedDevice records a moment before each sync.
type watchedDevice struct {
	*vfs.MemDevice
	world *world
}

// Submit implements vfs.Device.
func (d *watchedDevice) Submit(io *vfs.IO) {
	if io.Kind == vfs.Sync {
		d.world.record("data file")
	}
	d.MemDevice.Submit(io)
}

// Do implements vfs.Doer.
func (d *watchedDevice) Do(io *vfs.IO) error {
	if io.Kind == vfs.Sync {
		d.world.record("data file")
	}
	return d.MemDevice.Do(io)
}

func (w *world) fail(err error) {
	if w.failure == nil && err != nil {
		w.failure = err
	}
}

// settle runs every job, oldest first.
func (w *world) settle() {
	for n := 0; w.steps.Pending() > 0; n++ {
		if n > 1_000_000 {
			w.fail(errors.New("jobs without end"))
			return
		}
		w.steps.Step(0)
	}
}

// find is a replica of the store.
func (w *world) find(n byte) *store.Replica {
	r, err := w.store.Replica(replicaID(n))
	w.fail(err)
	return r
}

// submit starts an operation; done is called if it succeeds.
func (w *world) submit(n byte, op *store.Op, done func()) {
	r := w.find(n)
	if w.failure != nil {
		return
	}
	op.Done = func(op *store.Op) {
		if op.Err != nil {
			w.fail(fmt.Errorf("%s of %d at %d: %w", op.Kind, op.Length, op.Offset, op.Err))
			return
		}
		done()
	}
	r.Submit(op)
}

// end stops the store as the death of its process does, and leaves the disk to the
// caller.
func (w *world) end() {
	w.mu.Lock()
	w.recording = false
	w.mu.Unlock()
	w.fail(w.store.Abandon())
	for w.steps.Pending() > 0 {
		w.steps.Step(0)
	}
}

// reopen closes the store in order, which seals it, and opens it again. All is flushed
// before, for Close would wait for jobs that nobody runs.
func (w *world) reopen() {
	w.settle()
	w.flush(w.replicas[0].name)
	w.settle()
	if w.failure != nil {
		return
	}
	w.fail(w.store.Close())
	w.device = w.device.Fork() // the store has closed the other one
	if w.failure == nil {
		w.fail(w.open())
	}
	if w.failure == nil {
		w.settle()
	}
}

// restart ends the store, lets power be lost or not, and opens it again.
func (w *world) restart(power bool) {
	dir, steps := w.dir.Fork(), &vfs.StepExecutor{}
	device := w.device.Kill(steps, func(int, vfs.UnsyncedWrite, int) bool { return true })
	if power {
		nothing := func(int, int) bool { return false }
		dir = dir.Image().Crash(nothing, func(int) bool { return false })
		device = w.device.Crash(steps, func(int, vfs.UnsyncedWrite, int) bool { return false })
		w.options.Incarnation.DiskSequence++
	}
	recording := w.recording
	w.end()
	w.dir, w.device, w.steps = dir, device, steps
	w.mu.Lock()
	w.recording = recording
	w.mu.Unlock()
	if w.failure == nil {
		w.fail(w.open())
	}
	if w.failure == nil {
		w.settle()
	}
}
