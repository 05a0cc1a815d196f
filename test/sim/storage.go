package sim

import (
	"fmt"
	"log/slog"
	"math/rand/v2"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// diskCapacity is the size of a node's disk in bytes.
const diskCapacity = 1 << 30

// lossMode is how much of what was not synced a power loss takes.
type lossMode uint8

const (
	loseAll lossMode = iota
	loseNothing
	loseWrites
	loseSectors
	lossModes
)

// storage is a node's disk through all lives of its daemon.
type storage struct {
	node        *node
	id          block.DiskID
	incarnation block.Incarnation
	device      *vfs.MemDevice
	directory   *pebblevfs.MemFS
	drive       *drive
	executor    *executor
	rot         rot
	// store is the present life's, nil while no daemon runs.
	store *store.Store
	// watched are its replicas as the server of the present life has them.
	watched map[block.ReplicaID]*watched
	// found are deleted replicas that are to come up when the store is opened.
	found []store.ReplicaSpec
	// old is what the disk was some time ago; nil if nobody kept a copy.
	old *image
}

// storePath is the store's directory in its own file system.
const storePath = "disk"

func newStorage(n *node) (*storage, error) {
	l := n.world.loop
	s := &storage{node: n, id: block.DiskID{ID: l.id()}, drive: &drive{}, rot: rot{world: n.world}, directory: pebblevfs.NewCrashableMem()}
	s.incarnation = block.Incarnation{Boot: l.id(), DiskSequence: 1, Superblock: 1}
	s.executor = &executor{loop: l, drive: s.drive}
	s.device = vfs.NewMemDevice(s.executor, diskCapacity)
	if err := s.directory.MkdirAll(storePath, 0o700); err != nil {
		return nil, err
	}
	root, err := s.directory.OpenDir("")
	if err != nil {
		return nil, err
	}
	if err := root.Sync(); err != nil {
		return nil, err
	}
	id := store.Identity{Cluster: n.world.cluster, Node: n.id, Disk: s.id}
	return s, store.Format(s.options(&process{}), id)
}

func (s *storage) options(p *process) store.Options {
	return store.Options{
		Dir: &gate{FS: s.directory, process: p, drive: s.drive}, Path: storePath, Device: s.device, Executor: s.executor,
		Incarnation: s.incarnation, Logger: slog.New(slog.DiscardHandler), Cluster: s.node.world.cluster,
		Reserve: 1 << 20, GrowStep: block.ExtentSize, MemTableSize: 256 << 10, CacheSize: 1 << 20, MaxChanged: 256,
		JournalSize: 64 << 10, Simulated: true,
	}
}

// open opens the store for a life of the daemon.
func (s *storage) open(p *process) (server.Disk, error) {
	s.executor.process = p
	opened, err := store.Open(s.options(p))
	if err != nil {
		return nil, err
	}
	s.dig(opened)
	s.store = opened
	s.watched = make(map[block.ReplicaID]*watched)
	s.node.world.checkOpened(s.node)
	s.node.world.doors.reopened(opened.Replicas())
	s.rot.reopened(opened)
	s.device.Inject(s.inject)
	return &servedDisk{storage: s, store: opened}, nil
}

// inject decides the fate of each operation on the device.
func (s *storage) inject(io *vfs.IO) error {
	if s.drive.fails(io.Kind) {
		return fmt.Errorf("simulated trouble with operation %d: %w", io.Kind, block.ErrDiskFailed)
	}
	return nil
}

// end leaves the disk as the end of the daemon, or of the machine, does.
func (s *storage) end(powerLoss bool, mode lossMode) {
	l := s.node.world.loop
	s.abandon()
	s.executor = &executor{loop: l, drive: s.drive}
	if !powerLoss {
		s.device = s.device.Kill(s.executor, func(int, vfs.UnsyncedWrite, int) bool { return l.chance(50) })
		return
	}
	fate := make(map[int]bool)
	s.device = s.device.Crash(s.executor, func(i int, _ vfs.UnsyncedWrite, _ int) bool {
		switch mode {
		case loseNothing:
			return true
		case loseWrites:
			if _, drawn := fate[i]; !drawn {
				fate[i] = l.chance(50)
			}
			return fate[i]
		case loseSectors:
			return l.chance(50)
		}
		return false
	})
	// The clone walks maps in no fixed order: only all or nothing is the same in
	// each run of a seed.
	cfg := pebblevfs.CrashCloneCfg{}
	if mode == loseNothing || mode == loseWrites && l.chance(50) {
		// How often it draws depends on files that the database has not yet
		// removed, so it gets a source of its own.
		cfg = pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))}
	}
	s.directory = s.directory.CrashClone(cfg)
	s.incarnation.Boot = l.id()
}

// full fills the disk up, or makes room again.
func (s *storage) full(on bool) {
	if on {
		s.device.SetCapacity(s.device.Size())
	} else {
		s.device.SetCapacity(diskCapacity)
	}
}

// abandon drops the store of a daemon that died.
func (s *storage) abandon() {
	if s.store == nil {
		return
	}
	if err := s.store.Abandon(); err != nil {
		s.node.world.fail("restart", fmt.Sprintf("abandon store of %v: %v", s.node, err))
	}
	s.store = nil
}

// servedDisk is a store as the server wants it.
type servedDisk struct {
	storage *storage
	store   *store.Store
}

// ID implements server.Disk.
func (d *servedDisk) ID() block.DiskID { return d.store.Identity().Disk }

// Cluster implements server.Disk.
func (d *servedDisk) Cluster() block.ClusterID { return d.store.Identity().Cluster }

// Incarnation implements server.Disk.
func (d *servedDisk) Incarnation() block.Incarnation { return d.store.Incarnation() }

// Free implements server.Disk.
func (d *servedDisk) Free() int64 { return d.store.Space().Free }

// Replicas implements server.Disk.
func (d *servedDisk) Replicas() []server.Replica {
	var list []server.Replica
	for _, r := range d.store.Replicas() {
		list = append(list, d.storage.watch(r))
	}
	return list
}

// Create implements server.Disk.
func (d *servedDisk) Create(id block.ReplicaID, volume block.VolumeID, size int64) (server.Replica, error) {
	d.storage.node.world.identities.mayMake(id)
	if err := d.store.Create(store.ReplicaSpec{Replica: id, Volume: volume, Size: size}); err != nil {
		return nil, err
	}
	r, err := d.store.Replica(id)
	if err != nil {
		return nil, err
	}
	return d.storage.watch(r), nil
}

// Delete implements server.Disk.
func (d *servedDisk) Delete(id block.ReplicaID) error {
	d.storage.node.world.identities.mayDelete(id)
	return d.store.Delete(id)
}
