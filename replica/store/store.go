package store

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// Options say where a store is and what it may use.
type Options struct {
	// Dir and Path are the directory of the metadata: the database in
	// Path/meta, journals beside it.
	Dir  vfs.Dir
	Path string
	// Device is the data file, held exclusively. Close closes it.
	Device vfs.Device
	// Executor runs the store's blocking jobs. It outlives the store.
	Executor vfs.Executor
	// Incarnation is the present one (rule 17). A journal written under another
	// is not read.
	Incarnation block.Incarnation
	Logger      *slog.Logger

	// Cluster, unless zero, must be the one that the store was formatted for.
	Cluster block.ClusterID

	// Capacity bounds the data file in bytes; 0 means the whole file system.
	Capacity int64
	// Reserve is what the data file leaves free, in bytes, so that deletion, trim
	// and metadata have room on a full disk. 0 means DefaultReserve.
	Reserve int64
	// GrowStep is by how much the data file grows, in bytes. 0 means 1 GiB.
	GrowStep int64
	// Memory bounds what the store holds in memory, in bytes: the head maps have what
	// the rest leaves. 0 means MemoryPerTiB for each TiB in use, and once at least.
	Memory int64
	// CacheSize, unless zero, bounds the head maps in memory whatever Memory says, in
	// bytes.
	CacheSize int64
	// MaxChanged is the number of changed extents that begins a flush by itself,
	// which bounds memory and journal. 0 means 16384.
	MaxChanged int
	// JournalSize is the length of a journal file in bytes. 0 means 8 MiB.
	JournalSize int64
	// MemTableSize is that of the database, in bytes. 0 means 4 MiB.
	MemTableSize uint64
	// Simulated keeps the database from working in the background, so that a
	// simulation is deterministic; it then only grows.
	Simulated bool
}

// DefaultReserve is what is kept for metadata unless Options say otherwise.
const DefaultReserve = 256 << 20

// Validate reports what is missing or impossible.
func (o *Options) Validate() error {
	switch {
	case o.Dir == nil || o.Path == "" || o.Device == nil || o.Executor == nil || o.Logger == nil:
		return fmt.Errorf("store options: Dir, Path, Device, Executor and Logger are needed: %w", block.ErrInvalid)
	case o.Capacity < 0 || o.Reserve < 0 || o.GrowStep < 0 || o.CacheSize < 0 || o.MaxChanged < 0 || o.JournalSize < 0:
		return fmt.Errorf("store options: negative limit: %w", block.ErrInvalid)
	case o.Memory != 0 && o.Memory < LeastMemory:
		return fmt.Errorf("store options: Memory of %d bytes, at least %d: %w", o.Memory, LeastMemory, block.ErrInvalid)
	case o.GrowStep%block.ExtentSize != 0:
		return fmt.Errorf("store options: GrowStep must be whole extents: %w", block.ErrInvalid)
	default:
		return nil
	}
}

func (o Options) withDefaults() Options {
	o.Reserve = cmp.Or(o.Reserve, DefaultReserve)
	o.GrowStep = cmp.Or(o.GrowStep, 1<<30)
	o.MaxChanged = cmp.Or(o.MaxChanged, 16384)
	o.JournalSize = cmp.Or(o.JournalSize, 8<<20)
	o.MemTableSize = cmp.Or(o.MemTableSize, 4<<20)
	return o
}

// MapBytes is what the head map of a volume takes in memory as a whole, in bytes;
// size is the volume's.
func MapBytes(size int64) int64 {
	const covered = pageExtents * block.ExtentSize
	return (size + covered - 1) / covered * pageBytes
}

// Store keeps the replicas of one disk. Its methods may be called from any
// goroutine.
type Store struct {
	options  Options
	identity Identity
	db       *pebble.DB
	zeroSum  [32]byte
	// watch knows how old the disk's operations are, guard stands before the files of
	// the database, which are in databaseDir.
	watch       vfs.Watch
	guard       *guard
	databaseDir vfs.Dir
	// shadow: the store is looked at only, and changed in memory.
	shadow bool
	// The jobs and callbacks, bound once so that starting one allocates nothing.
	journalJob, commitJob, growJob, deliverJob func()
	syncJob                                    func(*vfs.IO)

	// simulatedBytes were committed since the last table of a simulated store.
	simulatedBytes atomic.Int64
	// syncs counts the rounds that have synced the data file.
	syncs atomic.Int64

	mu sync.Mutex
	// turn is that of the goroutine which has the mutex, nil for most.
	turn *turn.Turn
	// quiet is signalled when something that Close waits for may have ended.
	quiet sync.Cond
	// closing refuses new requests, abandoned ends everything at once.
	closing, abandoned bool
	// left: the files are being closed, or are left as they are.
	left bool
	// stalled: an operation does not return. failed is set too.
	stalled bool
	// failed is set when the disk refused a write or a sync, for ever.
	failed error
	// replicas are in the order of their handles.
	replicas   []*Replica
	byID       map[block.ReplicaID]*Replica
	nextHandle handle
	slots      bitset

	space      allocator
	room       int64
	growing    bool
	growFailed bool
	// spaceWaiting are tasks that wait for free extents.
	spaceWaiting []*task

	cache cache
	// missing are the pages that wait to be read, loaders the jobs for that, of which
	// loadersComing have yet to look at them.
	missing                []*page
	loaders, loadersComing int
	loads                  aside
	freeLoaders            *pageLoader
	freePages              *page
	freePageCount          int
	// replicaBytes is what the replicas took when they were last looked at.
	replicaBytes int64

	writeback []*page
	changed   []entryRef
	// freed are areas that the database names and memory does not any more.
	freed []claim
	// held are areas that wait for the journal to be free.
	held []held
	// counted are replicas whose number of blocks has changed.
	counted  []*Replica
	unsynced []*Replica
	journal  journal

	// round is the flush round in progress; rounds is its memory.
	round  *round
	rounds round
	// collected counts the rounds that have collected changes, ended those that are
	// in the database.
	collected    uint64
	ended        uint64
	roundWanted  bool
	roundSynced  bool
	flushWaiting []*task

	commit        commit
	committing    bool
	commitWaiting []*task
	logWanting    []*Replica
	logWaiting    []*task

	deletions []*deletion
	// prunes are the replicas that may have something to prune.
	prunes        []*Replica
	deletionReady *deletion
	pruning       *pruning
	pruningReady  *pruning

	// inFlight counts tasks, jobs what the executor owes.
	inFlight, jobs         int
	ready, readyLast       *task
	finished, finishedLast *Op
	delivering             bool
	freeTasks              *task
	freePieces             *piece
	keyBuffer, valueBuffer []byte
}

// Incarnation is the one that the store was opened under.
func (s *Store) Incarnation() block.Incarnation { return s.options.Incarnation }

// Identity says to whom the store belongs.
func (s *Store) Identity() Identity { return s.identity }

// Failed is nil while the disk works, else the reason why it is out of service
// for writes.
func (s *Store) Failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Replicas lists the replicas, oldest first.
func (s *Store) Replicas() []*Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*Replica
	for _, r := range s.replicas {
		if !r.record.deleting {
			list = append(list, r)
		}
	}
	return list
}

// Replica finds a replica; block.ErrNotFound if the store does not have it.
func (s *Store) Replica(id block.ReplicaID) (*Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byID[id]
	if r == nil || r.record.deleting {
		return nil, fmt.Errorf("replica %s on disk %s: %w", id, s.identity.Disk, block.ErrNotFound)
	}
	return r, nil
}

// ReplicaSpec describes a new replica.
type ReplicaSpec struct {
	Replica block.ReplicaID
	Volume  block.VolumeID
	// Size is in bytes, whole sectors.
	Size int64
}

func (spec *ReplicaSpec) validate() error {
	if spec.Replica.IsZero() || spec.Volume.IsZero() {
		return fmt.Errorf("replica and volume need an ID: %w", block.ErrInvalid)
	}
	if spec.Size <= 0 || spec.Size > block.MaxVolumeSize || spec.Size%block.SectorSize != 0 {
		return fmt.Errorf("size of %d bytes: %w", spec.Size, block.ErrInvalid)
	}
	return nil
}

// Create adds an empty replica, durably. It blocks on the disk. Creating what
// exists with the same properties succeeds; with others it is block.ErrExists,
// and so is an ID whose deletion has not finished.
func (s *Store) Create(spec ReplicaSpec) error { return s.create(CloneSpec{ReplicaSpec: spec}) }

func (s *Store) create(spec CloneSpec) error {
	if err := spec.validate(); err != nil {
		return fmt.Errorf("create replica %s: %w", spec.Replica, err)
	}
	r, err := s.reserveReplica(spec)
	if err != nil {
		return fmt.Errorf("create replica %s: %w", spec.Replica, err)
	}
	if r == nil {
		return nil
	}
	err = s.storeReplica(r)
	s.mu.Lock()
	defer s.unlock()
	s.jobDone()
	if err != nil {
		s.fail(err)
		s.releaseOrigin(r)
		delete(s.byID, spec.Replica)
		return fmt.Errorf("create replica %s: %w", spec.Replica, err)
	}
	r.creating = false
	s.replicas = append(s.replicas, r)
	s.sortReplicas()
	return nil
}

func (s *Store) sortReplicas() {
	slices.SortFunc(s.replicas, func(a, b *Replica) int { return cmp.Compare(a.record.handle, b.record.handle) })
}

// reserveReplica takes the name, a handle and a slot; nil if the replica is
// there already.
func (s *Store) reserveReplica(spec CloneSpec) (*Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old := s.byID[spec.Replica]; {
	case s.closing:
		return nil, block.ErrClosed
	case s.failed != nil:
		return nil, s.failed
	case old != nil && old.creating:
		return nil, fmt.Errorf("another call creates it: %w", block.ErrUnavailable)
	case old != nil && old.record.deleting:
		return nil, fmt.Errorf("its deletion has not finished: %w", block.ErrExists)
	case old != nil && (old.record.volume != spec.Volume || old.record.size != spec.Size || !old.clones(spec)):
		return nil, fmt.Errorf("of volume %s, size %d: %w", old.record.volume, old.record.size, block.ErrExists)
	case old != nil:
		return nil, nil
	}
	origin, line, err := s.findOrigin(spec)
	if err != nil {
		return nil, err
	}
	slot := uint32(0)
	for s.slots.has(slot) {
		slot++
	}
	if slot >= flushSlots {
		return nil, fmt.Errorf("the disk has %d replicas already: %w", flushSlots, block.ErrNoSpace)
	}
	s.slots.add(slot)
	r := s.newReplica(spec.Replica, replicaRecord{handle: s.nextHandle, volume: spec.Volume, size: spec.Size, slot: slot})
	r.creating = true
	r.origin, r.next.line = origin, line
	r.publish(r.next)
	r.pinOrigin()
	s.nextHandle++
	s.byID[spec.Replica] = r
	s.jobs++
	return r, nil
}

func (s *Store) storeReplica(r *Replica) error {
	b := s.db.NewBatch()
	defer b.Close()
	err := b.Set(replicaKey(r.id), r.record.encode(), nil)
	if err == nil {
		// Handles rise; of two creations at once the later number may be stored
		// first, so the open looks at the records as well.
		err = b.Set([]byte{keyHandle}, encodeHandle(r.record.handle+1), nil)
	}
	if err == nil && r.origin != nil {
		err = b.Set(handleKey(nil, keyLine, r.record.handle), r.next.line.encode(), nil)
	}
	if err != nil {
		return databaseError(err)
	}
	return s.commitBatch(b)
}

// fail takes the store out of service for writes. It is never undone.
func (s *Store) fail(err error) {
	if s.failed != nil {
		return
	}
	if errors.Is(err, block.ErrNoSpace) {
		// Nothing becomes possible by waiting for space any more.
		err = errors.New(err.Error())
	}
	s.failed = fmt.Errorf("disk %s: %w: %w", s.identity.Disk, block.ErrDiskFailed, err)
	s.options.Logger.Error("disk failed", "disk", s.identity.Disk, "error", err)
	s.wakeSpace()
	s.failFlushes()
	for i, t := range s.logWaiting {
		s.logWaiting[i] = nil
		s.makeReady(t)
	}
	s.logWaiting = s.logWaiting[:0]
	// What waits for a commit is failed by the job of that commit.
	s.startCommit()
}

// runDatabaseFailed is the job that fails the store after the guard.
func (s *Store) runDatabaseFailed() {
	s.mu.Lock()
	if s.abandoned || s.left {
		s.mu.Unlock()
		return
	}
	s.fail(fmt.Errorf("metadata: %w", databaseError(s.guard.failed())))
	s.unlock()
}

// Tick lets time pass for the watch over the operations on the disk, and returns the
// age of the oldest, in ticks. It is called about once a second and never blocks. At
// the age of limit the disk has failed: what runs may never return, so requests that
// depend on it are not answered, all others are, with an error.
func (s *Store) Tick(limit int) (oldest int) {
	oldest = s.watch.Tick()
	if oldest < limit {
		return oldest
	}
	s.mu.Lock()
	if s.stalled || s.abandoned || s.left {
		s.mu.Unlock()
		return oldest
	}
	s.stalled = true
	s.fail(fmt.Errorf("an operation on the disk does not return: %w", block.ErrDiskFailed))
	s.quiet.Broadcast()
	s.unlock()
	return oldest
}

// Stuck reports whether the disk has failed by not answering, and still does not.
func (s *Store) Stuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stuck()
}

// stuck: waiting for what runs is in vain. The mutex is held.
func (s *Store) stuck() bool { return s.stalled && !s.watch.Idle() }
