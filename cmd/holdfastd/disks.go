package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// diskExecutorJobs is how many blocking metadata jobs of a node's stores run at
// once.
const diskExecutorJobs = 16

// disks are the stores of this node. The list of their directories is kept in
// the data directory, so that replicas are served after a restart before Raft
// has a leader. It is the disk host and the replica host of the cluster member.
type disks struct {
	listPath string
	// member is nil until the node's cluster member is open.
	member   *cluster.Cluster
	executor *vfs.GoExecutor
	log      *slog.Logger
	opened   chan struct{} // closed when the node belongs to a cluster and its list is served

	mu     sync.Mutex
	host   *server.Host // nil until the node belongs to a cluster
	stores map[block.DiskID]*openDisk
	failed map[string]error
}

type openDisk struct {
	path  string
	store *store.Store
}

var (
	_ cluster.DiskHost    = (*disks)(nil)
	_ cluster.ReplicaHost = (*disks)(nil)
)

func newDisks(dataDir string, log *slog.Logger) *disks {
	return &disks{
		listPath: filepath.Join(dataDir, "disks.json"),
		executor: vfs.NewGoExecutor(diskExecutorJobs),
		log:      log,
		opened:   make(chan struct{}),
		stores:   make(map[block.DiskID]*openDisk),
		failed:   make(map[string]error),
	}
}

// open opens every disk of the list. One that cannot be opened is reported and
// left out: the others serve.
func (d *disks) open(id block.ClusterID, host *server.Host) error {
	paths, err := d.list()
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.host = host
	d.mu.Unlock()
	for _, path := range paths {
		if _, err := d.openOne(id, path); err != nil {
			d.log.Error("disk is not served", "path", path, "err", err)
			d.mu.Lock()
			d.failed[path] = err
			d.mu.Unlock()
		}
	}
	close(d.opened)
	return nil
}

func (d *disks) options(id block.ClusterID) store.DiskOptions {
	return store.DiskOptions{Options: store.Options{Executor: d.executor, Cluster: id, Logger: d.log}}
}

func (d *disks) openOne(id block.ClusterID, path string) (*openDisk, error) {
	s, err := store.OpenDisk(path, d.options(id))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	host := d.host
	d.mu.Unlock()
	if err := host.AddDisk(server.StoreDisk(s)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	disk := &openDisk{path: path, store: s}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stores[s.Identity().Disk] = disk
	delete(d.failed, path)
	d.log.Info("disk is served", "disk", s.Identity().Disk.String(), "path", path)
	return disk, nil
}

// AddDisk implements cluster.DiskHost. A node that has just joined is about to
// open its disks: that is waited for.
func (d *disks) AddDisk(ctx context.Context, id block.ClusterID, path string) (cluster.AddedDisk, error) {
	if !filepath.IsAbs(path) {
		return cluster.AddedDisk{}, fmt.Errorf("the path must be absolute: %w", block.ErrInvalid)
	}
	select {
	case <-d.opened:
	case <-ctx.Done():
		return cluster.AddedDisk{}, fmt.Errorf("the disks of this node are not served yet: %w", block.ErrUnavailable)
	}
	path = filepath.Clean(path)
	d.mu.Lock()
	var disk *openDisk
	for _, known := range d.stores {
		if known.path == path {
			disk = known
		}
	}
	d.mu.Unlock()
	if disk == nil {
		var err error
		if disk, err = d.formatOrOpen(id, path); err != nil {
			return cluster.AddedDisk{}, err
		}
	}
	if err := d.remember(path); err != nil {
		return cluster.AddedDisk{}, err
	}
	return cluster.AddedDisk{ID: disk.store.Identity().Disk, Path: path, Capacity: disk.store.Space().Capacity}, nil
}

// formatOrOpen takes back a directory that is a disk already and formats an
// empty one.
func (d *disks) formatOrOpen(id block.ClusterID, path string) (*openDisk, error) {
	disk, err := d.openOne(id, path)
	if !errors.Is(err, block.ErrNotFound) {
		return disk, err
	}
	drawn, err := block.NewID(rand.Reader)
	if err != nil {
		return nil, err
	}
	identity := store.Identity{Cluster: id, Node: d.member.NodeID(), Disk: block.DiskID{ID: drawn}}
	if err := store.FormatDisk(path, d.options(id), identity); err != nil {
		return nil, err
	}
	return d.openOne(id, path)
}

// Disks implements cluster.DiskHost.
func (d *disks) Disks() []cluster.DiskReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	reports := make([]cluster.DiskReport, 0, len(d.stores))
	for id, disk := range d.stores {
		measured := disk.store.MeasureSpace()
		space := disk.store.Space()
		report := cluster.DiskReport{ID: id, Capacity: space.Capacity, Free: space.Free}
		if err := cmp.Or(disk.store.Failed(), measured); err != nil {
			report.Failure = err.Error()
		}
		reports = append(reports, report)
	}
	if len(d.failed) == 0 || d.member == nil {
		return reports
	}
	// What cannot be opened is known by its path alone.
	for known := range d.member.State().Disks() {
		if err := d.failed[known.Path]; err != nil && known.Node == d.member.NodeID() && d.stores[known.ID] == nil {
			reports = append(reports, cluster.DiskReport{ID: known.ID, Capacity: known.Capacity, Failure: err.Error()})
		}
	}
	return reports
}

// Create implements cluster.ReplicaHost.
func (d *disks) Create(_ context.Context, spec cluster.ReplicaSpec) (block.Incarnation, error) {
	host, disk, err := d.find(spec.Disk)
	if err != nil {
		return block.Incarnation{}, err
	}
	if err := host.CreateReplica(spec.Disk, spec.Replica, spec.Volume, spec.Size); err != nil {
		return block.Incarnation{}, err
	}
	host.Quarantine(spec.Replica, false)
	return disk.store.Incarnation(), nil
}

// Delete implements cluster.ReplicaHost.
func (d *disks) Delete(_ context.Context, disk block.DiskID, replica block.ReplicaID) error {
	host, _, err := d.find(disk)
	if err != nil {
		return err
	}
	return host.DeleteReplica(replica)
}

// Quarantine implements cluster.ReplicaHost.
func (d *disks) Quarantine(replica block.ReplicaID, on bool) {
	d.mu.Lock()
	host := d.host
	d.mu.Unlock()
	if host != nil {
		host.Quarantine(replica, on)
	}
}

// Replicas implements cluster.ReplicaHost.
func (d *disks) Replicas() []cluster.HeldReplica {
	d.mu.Lock()
	defer d.mu.Unlock()
	var held []cluster.HeldReplica
	for id, disk := range d.stores {
		for _, r := range disk.store.Replicas() {
			held = append(held, cluster.HeldReplica{Disk: id, Replica: r.ID(), Volume: r.Volume()})
		}
	}
	return held
}

func (d *disks) find(id block.DiskID) (*server.Host, *openDisk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	disk := d.stores[id]
	if disk == nil {
		return nil, nil, fmt.Errorf("disk %s is not open on this node: %w", id, block.ErrNotFound)
	}
	return d.host, disk, nil
}

// list reads the directories of the disks.
func (d *disks) list() ([]string, error) {
	data, err := os.ReadFile(d.listPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read list of disks: %w", err)
	}
	var paths []string
	if err := json.Unmarshal(data, &paths); err != nil {
		return nil, fmt.Errorf("list of disks %s: %w: %w: restore it, or write the directories of this node's disks anew, as a JSON list of strings",
			d.listPath, block.ErrCorrupt, err)
	}
	return paths, nil
}

// remember puts a directory on the list, durably.
func (d *disks) remember(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	paths, err := d.list()
	if err != nil || slices.Contains(paths, path) {
		return err
	}
	data, err := json.MarshalIndent(append(paths, path), "", "  ")
	if err != nil {
		return err
	}
	if err := writeDurably(d.listPath, data); err != nil {
		return fmt.Errorf("write list of disks: %w", err)
	}
	return nil
}

// close ends the stores; nothing serves them any more.
func (d *disks) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, disk := range d.stores {
		errs = append(errs, disk.store.Close())
	}
	clear(d.stores)
	d.executor.Close()
	return errors.Join(errs...)
}

// writeDurably replaces a file so that a crash leaves the old or the new one.
func writeDurably(path string, data []byte) error {
	temporary := path + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
