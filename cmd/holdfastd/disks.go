package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/rawdisk"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

const (
	// diskExecutorJobs is how many blocking metadata jobs of one store run at once.
	// Each store has its own: one that hangs must not hold up the others.
	diskExecutorJobs = 16
	// diskLockWait is how long a starting daemon waits for what the kernel still does on
	// a disk for one that was killed.
	diskLockWait = 10 * time.Second
	// openPatience is how long the node waits for its disks at start. One that takes
	// longer joins in when it is open.
	openPatience = 10 * time.Second
)

// disks are the stores of this node. It is the disk host and the replica host of the
// cluster member.
type disks struct {
	list diskList
	// member is nil until the node's cluster member is open.
	member *cluster.Cluster
	engine vfs.Engine
	memory int64 // of each store, in bytes; 0 follows what is in use
	log    *slog.Logger
	opened chan struct{} // closed when the node belongs to a cluster and its list is served
	// opening are the disks that are being opened at start, watching the watch over
	// all. Both are joined by close, as far as the disks let them.
	opening  sync.WaitGroup
	watching sync.WaitGroup
	stop     chan struct{}
	stopping sync.Once
	spent    spentDisks
	// noting are the notes of failures that are being made.
	noting sync.WaitGroup
	// processors is how many goroutines Go runs at once without disks.
	processors int

	mu     sync.Mutex
	host   *server.Host // nil until the node belongs to a cluster
	stores map[block.DiskID]*openDisk
	// failed are the disks that are not open, by their directory.
	failed map[string]error
}

// openDisk is a disk in service.
type openDisk struct {
	place diskPlace
	path  string
	// device is the block device that was mounted, empty for a directory.
	device   string
	store    *store.Store
	executor *vfs.GoExecutor
	health   diskHealth
	// noted: the watch has noted its failure.
	noted sync.Once
}

var (
	_ cluster.DiskHost    = (*disks)(nil)
	_ cluster.ReplicaHost = (*disks)(nil)
)

var errOpening = errors.New("it is still being opened")

func newDisks(dataDir string, engine vfs.Engine, memory int64, log *slog.Logger) *disks {
	return &disks{
		list:   diskList{path: filepath.Join(dataDir, "disks.json"), mounts: filepath.Join(dataDir, "disks")},
		engine: engine,
		memory: memory,
		log:    log,
		opened: make(chan struct{}),
		stop:   make(chan struct{}),
		stores: make(map[block.DiskID]*openDisk),
		failed: make(map[string]error),
		spent:  spentDisks{path: filepath.Join(dataDir, "failed-disks.json")},

		processors: runtime.GOMAXPROCS(0),
	}
}

// open opens every disk of the list. One that cannot be opened is reported and
// left out: the others serve.
func (d *disks) open(ctx context.Context, id block.ClusterID, host *server.Host) error {
	places, err := d.list.read()
	if err = errors.Join(err, d.spent.read()); err != nil {
		return err
	}
	d.mu.Lock()
	d.host = host
	for _, p := range places {
		d.failed[d.list.dir(p)] = errOpening
	}
	d.mu.Unlock()
	for _, p := range places {
		d.opening.Go(func() {
			if _, err := d.openAtStart(ctx, id, p); err != nil {
				path := d.list.dir(p)
				d.log.Error("disk is not served", "path", path, "err", err)
				d.mu.Lock()
				d.failed[path] = err
				d.mu.Unlock()
			}
		})
	}
	if !waitFor(&d.opening, openPatience) {
		d.log.Warn("some disks take long to open; the others are served")
	}
	d.watching.Go(d.watch)
	close(d.opened)
	return nil
}

// waitFor waits for a group, for a limited time, and reports whether it has ended.
func waitFor(group *sync.WaitGroup, patience time.Duration) bool {
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// openAtStart mounts and opens what is at a place and puts it into service.
func (d *disks) openAtStart(ctx context.Context, id block.ClusterID, p diskPlace) (*openDisk, error) {
	device, err := d.mount(ctx, p)
	if err != nil {
		return nil, err
	}
	return d.openStore(id, &openDisk{place: p, path: d.list.dir(p), device: device}, diskLockWait)
}

// mount mounts the device of a place and returns its name, empty for a directory. One
// that has failed since it was mounted is mounted anew.
func (d *disks) mount(ctx context.Context, p diskPlace) (device string, err error) {
	uuid, ok := p.device()
	if !ok {
		return "", nil
	}
	dir := d.list.dir(p)
	if now, err := vfs.SystemIncarnation(dir); err == nil && now == d.spent.of(dir) {
		if err := rawdisk.Unmount(dir); err != nil {
			return "", fmt.Errorf("the disk has failed and cannot be mounted anew: %w", err)
		}
	}
	return rawdisk.Mount(ctx, uuid, dir)
}

// openStore opens a disk that is mounted and puts it into service.
func (d *disks) openStore(id block.ClusterID, disk *openDisk, lockWait time.Duration) (_ *openDisk, err error) {
	disk.executor = vfs.NewGoExecutor(diskExecutorJobs)
	options := d.options(id, disk.executor)
	options.LockWait, options.Spent = lockWait, d.spent.of(disk.path)
	if disk.store, err = store.OpenDisk(disk.path, options); err != nil {
		disk.executor.Close()
		return nil, err
	}
	d.mu.Lock()
	host := d.host
	d.mu.Unlock()
	if err := host.AddDisk(server.StoreDisk(disk.store)); err != nil {
		return nil, errors.Join(err, disk.close())
	}
	disk.measure()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stores[disk.store.Identity().Disk] = disk
	delete(d.failed, disk.path)
	// The thread of a disk's io_uring spends its life in a call that waits, and Go counts
	// it as running: with as many such threads as CPUs, each is put off when it comes
	// back. So each disk adds one.
	runtime.GOMAXPROCS(d.processors + len(d.stores))
	d.log.Info("disk is served", "disk", disk.store.Identity().Disk.String(), "path", disk.path, "device", disk.device)
	return disk, nil
}

func (d *disks) options(id block.ClusterID, executor vfs.Executor) store.DiskOptions {
	return store.DiskOptions{Options: store.Options{Executor: executor, Cluster: id, Memory: d.memory, Logger: d.log}, Engine: d.engine}
}

// close ends the store. What does not answer is left to the end of the process.
func (k *openDisk) close() error {
	err := k.store.Close()
	if !k.store.Stuck() {
		k.executor.Close()
	}
	return err
}

// AddDisk implements cluster.DiskHost. A node that has just joined is about to
// open its disks: that is waited for.
func (d *disks) AddDisk(ctx context.Context, id block.ClusterID, disk cluster.NewDisk) (cluster.AddedDisk, error) {
	if !filepath.IsAbs(disk.Path) {
		return cluster.AddedDisk{}, fmt.Errorf("the path must be absolute: %w", block.ErrInvalid)
	}
	select {
	case <-d.opened:
	case <-ctx.Done():
		return cluster.AddedDisk{}, fmt.Errorf("the disks of this node are not served yet: %w", block.ErrUnavailable)
	}
	added, err := d.add(ctx, id, disk)
	if err != nil {
		return cluster.AddedDisk{}, err
	}
	if err := d.remember(added.place); err != nil {
		return cluster.AddedDisk{}, err
	}
	return cluster.AddedDisk{ID: added.store.Identity().Disk, Path: added.path, Capacity: added.store.Space().Capacity, Device: added.device}, nil
}

func (d *disks) add(ctx context.Context, id block.ClusterID, disk cluster.NewDisk) (*openDisk, error) {
	device, err := rawdisk.IsDevice(disk.Path)
	if err != nil {
		return nil, err
	}
	if device {
		return d.addDevice(ctx, id, disk)
	}
	if disk.Force {
		return nil, fmt.Errorf("%s is a directory, and what is in a directory is never destroyed: give an empty one, without force: %w", disk.Path, block.ErrInvalid)
	}
	return d.formatOrOpen(ctx, id, diskPlace(filepath.Clean(disk.Path)))
}

// addDevice makes a device a disk. One that a disk of Holdfast lies on already is
// taken as it is; if that turns out to be of no use here, and may be lost, it is
// formatted anew.
func (d *disks) addDevice(ctx context.Context, id block.ClusterID, disk cluster.NewDisk) (*openDisk, error) {
	uuid, err := rawdisk.Identify(disk.Path)
	switch {
	case err == nil:
		added, err := d.formatOrOpen(ctx, id, devicePlace(uuid))
		useless := errors.Is(err, block.ErrForeign) || errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrVersion)
		if err == nil || !useless {
			return added, err
		}
		if umount := rawdisk.Unmount(d.list.dir(devicePlace(uuid))); umount != nil || !disk.Force {
			return nil, errors.Join(err, umount)
		}
	case !errors.Is(err, block.ErrNotFound):
		return nil, err
	}
	if uuid, err = rawdisk.Format(ctx, disk.Path, disk.Force); err != nil {
		return nil, err
	}
	return d.formatOrOpen(ctx, id, devicePlace(uuid))
}

// formatOrOpen takes back a place that is a disk already and formats an empty one. A
// disk that has failed is opened anew.
func (d *disks) formatOrOpen(ctx context.Context, id block.ClusterID, p diskPlace) (*openDisk, error) {
	path := d.list.dir(p)
	if disk := d.at(p); disk != nil {
		if disk.store.Failed() == nil {
			return disk, nil
		}
		if err := d.spent.note(path, disk.store.Incarnation()); err != nil {
			return nil, err
		}
		d.withdraw(disk)
		d.mu.Lock()
		d.failed[path] = disk.store.Failed()
		d.mu.Unlock()
	}
	device, err := d.mount(ctx, p)
	if err != nil {
		return nil, err
	}
	disk, err := d.openStore(id, &openDisk{place: p, path: path, device: device}, 0)
	if !errors.Is(err, block.ErrNotFound) {
		return disk, err
	}
	drawn, err := block.NewID(rand.Reader)
	if err != nil {
		return nil, err
	}
	executor := vfs.NewGoExecutor(1)
	defer executor.Close()
	identity := store.Identity{Cluster: id, Node: d.member.NodeID(), Disk: block.DiskID{ID: drawn}}
	if err := store.FormatDisk(path, d.options(id, executor), identity); err != nil {
		return nil, err
	}
	return d.openStore(id, &openDisk{place: p, path: path, device: device}, 0)
}

// at is the open disk at a place, nil if there is none.
func (d *disks) at(p diskPlace) *openDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, disk := range d.stores {
		if disk.place == p {
			return disk
		}
	}
	return nil
}

// noteFailure has a disk that has failed opened under another incarnation alone.
func (d *disks) noteFailure(disk *openDisk) {
	if disk.store.Failed() == nil || d.spent.of(disk.path) == disk.store.Incarnation() {
		return
	}
	if err := d.spent.note(disk.path, disk.store.Incarnation()); err != nil {
		d.log.Error("the failure of a disk is not kept: mount its file system anew before this daemon is restarted", "path", disk.path, "err", err)
	}
}

// withdraw takes a disk out of service and closes it, as far as it lets itself be closed.
func (d *disks) withdraw(disk *openDisk) {
	id := disk.store.Identity().Disk
	d.mu.Lock()
	host := d.host
	delete(d.stores, id)
	d.mu.Unlock()
	host.RemoveDisk(id)
	if err := disk.close(); err != nil {
		d.log.Warn("a disk was not closed in order", "disk", id.String(), "err", err)
	}
}

// RemoveDisk implements cluster.DiskHost.
func (d *disks) RemoveDisk(_ context.Context, id block.DiskID) error {
	d.mu.Lock()
	disk := d.stores[id]
	d.mu.Unlock()
	if disk == nil {
		return nil
	}
	d.withdraw(disk)
	if err := d.forget(disk.place); err != nil {
		return err
	}
	d.log.Info("disk is no longer served", "disk", id.String(), "path", disk.path)
	if disk.device == "" {
		return nil
	}
	return rawdisk.Unmount(disk.path)
}

func (d *disks) remember(p diskPlace) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list.add(p)
}

func (d *disks) forget(p diskPlace) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list.remove(p)
}

// close ends the stores; nothing serves them any more.
func (d *disks) close() error {
	if !waitFor(&d.opening, openPatience) {
		d.log.Warn("some disks are still being opened and are left so")
	}
	d.mu.Lock()
	open := slices.Collect(maps.Values(d.stores))
	clear(d.stores)
	d.mu.Unlock()
	errs := make([]error, len(open))
	var closing sync.WaitGroup
	for i, disk := range open {
		closing.Go(func() {
			d.noteFailure(disk)
			errs[i] = disk.close()
			d.noteFailure(disk) // the last sync may have failed
		})
	}
	closing.Wait()
	d.stopping.Do(func() { close(d.stop) })
	d.watching.Wait()
	d.noting.Wait()
	return errors.Join(errs...)
}
