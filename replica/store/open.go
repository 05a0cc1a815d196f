package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

const metaName = "meta"

func (s *Store) metaPath() string { return s.options.Dir.PathJoin(s.options.Path, metaName) }

func encodeHandle(h handle) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(h)) }

// databaseLogger passes on what the database says.
type databaseLogger struct{ store *Store }

func (l databaseLogger) Infof(string, ...any) {}

func (l databaseLogger) Errorf(format string, args ...any) {
	l.store.options.Logger.Error("database", "disk", l.store.identity.Disk, "message", fmt.Sprintf(format, args...))
}

// Fatalf is called when the database has found a fault of its own, and must not
// return. What the disk does wrong does not come to it (guard).
func (l databaseLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func (s *Store) databaseOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                 s.databaseDir,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       s.options.MemTableSize,
		// The cache has what the tables in memory leave of it.
		MemTableStopWritesThreshold: memTableStop,
		Logger:                      databaseLogger{store: s},
		ErrorIfNotExists:            true,
		// Without this the database ends the process on damage; the reader that
		// meets it gets an error as well, and can go elsewhere.
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.options.Logger.Error("database damaged", "disk", s.identity.Disk, "path", info.Path, "error", info.Details)
			},
			BackgroundError: func(err error) { _ = s.guard.show("work in", metaName, err) },
		},
		// A commit that waits for a compaction could not be given up when the disk fails.
		L0StopWritesThreshold: 1000,
	}
	if s.options.Simulated {
		o.DisableAutomaticCompactions = true
		// Nothing would ever lower the number of tables that this compares with.
		o.L0StopWritesThreshold = math.MaxInt32
		o.DisableTableStats = true
		o.CacheSize = 1 << 20
	}
	return o
}

// newStore binds the jobs.
func newStore(options Options) *Store {
	s := &Store{options: options.withDefaults(), byID: map[block.ReplicaID]*Replica{}, nextHandle: 1, zeroSum: zeroExtentSum()}
	s.quiet.L = &s.mu
	s.guard = newGuard(&s.watch, logSize(s.options.MemTableSize), func() { s.options.Executor.Go(s.runDatabaseFailed) })
	s.databaseDir = &metaDir{Dir: options.Dir, guard: s.guard, guarded: true}
	s.options.Dir = &metaDir{Dir: options.Dir, guard: s.guard}
	s.options.Device = s.watch.Device(options.Device)
	s.journalJob, s.commitJob, s.growJob, s.deliverJob = s.runJournal, s.runCommit, s.runGrow, s.runDeliver
	s.syncJob = s.syncDone
	return s
}

// Format makes an empty store. The data file must be empty and the directory
// must not hold a database. It blocks on the disk.
func Format(options Options, id Identity) error {
	if err := options.Validate(); err != nil {
		return err
	}
	if id.Cluster.IsZero() || id.Disk.IsZero() {
		return fmt.Errorf("format store: cluster and disk need an ID: %w", block.ErrInvalid)
	}
	s := newStore(options)
	s.identity = id
	if options.Device.Size() != 0 {
		return fmt.Errorf("format store in %s: the data file is not empty: %w", options.Path, block.ErrExists)
	}
	if _, err := options.Dir.Stat(s.metaPath()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("format store in %s: %s exists: %w", options.Path, metaName, block.ErrExists)
	}
	if err := s.formatDatabase(); err != nil {
		return fmt.Errorf("format store in %s: %w", options.Path, err)
	}
	// The superblock comes last: without it there is no store.
	if err := s.formatDevice(); err != nil {
		return fmt.Errorf("format store in %s: %w", options.Path, err)
	}
	return nil
}

func (s *Store) formatDatabase() error {
	if err := s.options.Dir.MkdirAll(s.metaPath(), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", s.metaPath(), err)
	}
	if err := syncDir(s.options.Dir, s.options.Path); err != nil {
		return err
	}
	o := s.databaseOptions()
	o.ErrorIfNotExists, o.ErrorIfExists = false, true
	db, err := s.openDatabase(o)
	if err != nil {
		return err
	}
	err = db.Set([]byte{keyIdentity}, encodeSuperblock(s.identity), pebble.Sync)
	s.guard.release()
	err = cmp.Or(s.guard.failed(), err, db.Close(), s.guard.failed())
	if err != nil {
		return databaseError(err)
	}
	return nil
}

// openDatabase is pebble.Open, which believes that it has written what it wanted to.
func (s *Store) openDatabase(o *pebble.Options) (*pebble.DB, error) {
	db, err := pebble.Open(s.metaPath(), o)
	s.guard.opened.Store(true)
	failure := s.guard.failed()
	switch {
	case failure == nil && err == nil:
		return db, nil
	case failure == nil && errors.Is(err, pebble.ErrDBDoesNotExist):
		return nil, fmt.Errorf("the metadata is missing: %w", block.ErrCorrupt)
	case failure == nil:
		return nil, databaseError(err)
	}
	s.guard.release()
	if err == nil {
		err = db.Close()
	}
	return nil, databaseError(errors.Join(failure, err))
}

func syncDir(dir vfs.Dir, path string) error {
	f, err := dir.OpenDir(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

func (s *Store) formatDevice() error {
	dev := s.options.Device
	room, err := s.roomToGrow(0)
	if err != nil {
		return err
	}
	if err := dev.Grow(firstExtent*block.ExtentSize + min(s.options.GrowStep, max(room-firstExtent*block.ExtentSize, 0))); err != nil {
		return err
	}
	return s.writeSuperblock()
}

func (s *Store) writeSuperblock() error {
	b := block.NewBuffer(block.BlockSize)
	defer b.Release()
	clear(b.Data)
	copy(b.Data, encodeSuperblock(s.identity))
	if err := vfs.Do(s.options.Device, &vfs.IO{Kind: vfs.Write, Length: block.BlockSize, Data: b.Data}); err != nil {
		return err
	}
	return vfs.Do(s.options.Device, &vfs.IO{Kind: vfs.Sync})
}

// ReadIdentity reads a store's superblock.
func ReadIdentity(dev vfs.Device) (Identity, error) {
	id, _, err := readSuperblock(dev)
	return id, err
}

func readSuperblock(dev vfs.Device) (Identity, uint32, error) {
	if dev.Size() < firstExtent*block.ExtentSize {
		return Identity{}, 0, fmt.Errorf("data file of %d bytes is not a store: %w", dev.Size(), block.ErrCorrupt)
	}
	b := block.NewBuffer(block.BlockSize)
	defer b.Release()
	if err := vfs.Do(dev, &vfs.IO{Kind: vfs.Read, Length: block.BlockSize, Data: b.Data}); err != nil {
		return Identity{}, 0, err
	}
	return decodeSuperblock(b.Data)
}

// Open opens a store and recovers it: what a killed process had handed to the
// operating system under the same incarnation is there again. It blocks on the
// disk. The caller keeps the device if Open fails.
func Open(options Options) (*Store, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	s := newStore(options)
	id, version, err := readSuperblock(options.Device)
	if err != nil {
		return nil, fmt.Errorf("open store in %s: data file: %w", options.Path, err)
	}
	s.identity = id
	if c := options.Cluster; !c.IsZero() && c != id.Cluster {
		return nil, fmt.Errorf("open store in %s: it belongs to cluster %s, this is %s: %w", options.Path, id.Cluster, c, block.ErrForeign)
	}
	if err := s.checkLogs(); err != nil {
		return nil, fmt.Errorf("open store in %s: %w", options.Path, err)
	}
	if err := s.breakSeal(); err != nil {
		return nil, fmt.Errorf("open store in %s: %w", options.Path, err)
	}
	if s.db, err = s.openDatabase(s.databaseOptions()); err != nil {
		return nil, fmt.Errorf("open store in %s: %w", options.Path, err)
	}
	err = s.load()
	if err == nil && version != Version {
		err = s.writeSuperblock()
	}
	if err != nil {
		s.guard.release()
		return nil, errors.Join(fmt.Errorf("open store in %s: %w", options.Path, err), s.db.Close())
	}
	s.mu.Lock()
	s.startDeletions()
	s.startPruning()
	s.mu.Unlock()
	return s, nil
}

// load reads everything but the maps, and replays the journal.
func (s *Store) load() error {
	b, err := s.get([]byte{keyIdentity})
	if err != nil {
		return err
	}
	id, version, err := decodeSuperblock(b)
	if err != nil {
		return fmt.Errorf("%s: %w", s.metaPath(), err)
	}
	if id != s.identity {
		return fmt.Errorf("the metadata is of disk %s, the data file of disk %s: %w", id.Disk, s.identity.Disk, block.ErrCorrupt)
	}
	if version == 1 {
		if err := s.upgrade(); err != nil {
			return err
		}
	}
	s.space.grow(extentsIn(s.options.Device.Size()))
	if s.room, err = s.roomToGrow(s.options.Device.Size()); err != nil {
		return err
	}
	if err := s.loadAllocation(); err != nil {
		return err
	}
	// A process that was killed may have written flush numbers without a sync.
	// Whatever is shown from now on must not be taken back by a loss of power.
	if err := vfs.Do(s.options.Device, &vfs.IO{Kind: vfs.Sync}); err != nil {
		return fmt.Errorf("sync data file: %w", err)
	}
	if err := s.loadReplicas(); err != nil {
		return err
	}
	if err := s.loadNumbers(); err != nil {
		return err
	}
	return s.recoverJournal()
}

// get reads one value; an absent one is nil.
func (s *Store) get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.metaPath(), databaseError(err))
	}
	b := append([]byte(nil), v...)
	if err := closer.Close(); err != nil {
		return nil, databaseError(err)
	}
	return b, nil
}

func (s *Store) loadAllocation() error {
	err := scan(s.db, []byte{keyAllocation}, []byte{keyAllocation + 1}, func(key, value []byte) error {
		if len(key) != 5 {
			return fmt.Errorf("allocation key %x: %w", key, block.ErrCorrupt)
		}
		return s.space.loadAllocationPage(binary.BigEndian.Uint32(key[1:]), value)
	})
	if err == nil {
		err = scan(s.db, []byte{keySplit}, []byte{keySplit + 1}, func(key, value []byte) error {
			if len(key) != 5 {
				return fmt.Errorf("split extent key %x: %w", key, block.ErrCorrupt)
			}
			return s.space.loadSplit(binary.BigEndian.Uint32(key[1:]), value)
		})
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.metaPath(), err)
	}
	return nil
}

func (s *Store) loadReplicas() error {
	err := scan(s.db, []byte{keyReplica}, []byte{keyReplica + 1}, func(key, value []byte) error {
		d := decoder{rest: key[1:]}
		id := block.ReplicaID{ID: d.id()}
		if err := d.end("replica key"); err != nil {
			return err
		}
		record, err := decodeReplicaRecord(value)
		if err != nil {
			return fmt.Errorf("replica %s: %w", id, err)
		}
		if s.slots.has(record.slot) {
			return fmt.Errorf("replica %s: flush slot %d is taken: %w", id, record.slot, block.ErrCorrupt)
		}
		s.slots.add(record.slot)
		s.nextHandle = max(s.nextHandle, record.handle+1)
		r := s.newReplica(id, record)
		s.byID[id] = r
		s.replicas = append(s.replicas, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", s.metaPath(), err)
	}
	s.sortReplicas()
	for _, r := range s.replicas {
		if err := s.loadReplica(r); err != nil {
			return fmt.Errorf("read replica %s in %s: %w", r.id, s.metaPath(), err)
		}
	}
	if err := s.linkOrigins(); err != nil {
		return err
	}
	for _, r := range s.replicas {
		if r.record.deleting {
			s.queueRetired(r)
		}
	}
	return nil
}

// linkOrigins finds the line that each clone shows.
func (s *Store) linkOrigins() error {
	byHandle := map[handle]*Replica{}
	for _, r := range s.replicas {
		byHandle[r.record.handle] = r
	}
	for _, r := range s.replicas {
		line := r.next.line
		if line.origin == 0 {
			continue
		}
		o := byHandle[line.origin]
		if o == nil || o == r || !o.durable.cutsIn(line.originLayer, line.originLayer) {
			return fmt.Errorf("replica %s shows layer %d of replica number %d, which is not there: %w", r.id, line.originLayer, line.origin, block.ErrCorrupt)
		}
		r.origin = o
		r.pinOrigin()
	}
	return nil
}

func (s *Store) loadReplica(r *Replica) error {
	h := r.record.handle
	b, err := s.get(handleKey(nil, keyFence, h))
	if err != nil {
		return err
	}
	if b != nil {
		if r.next.fence, err = decodeFence(b); err != nil {
			return err
		}
	}
	if b, err = s.get(handleKey(nil, keyView, h)); err != nil {
		return err
	}
	if b != nil {
		if r.next.view, err = decodeView(b); err != nil {
			return err
		}
	}
	if b, err = s.get(handleKey(nil, keyUsed, h)); err != nil {
		return err
	}
	if b != nil {
		d := decoder{rest: b}
		r.blocks = int64(d.u64())
		if err := d.end("block count"); err != nil {
			return err
		}
	}
	if err := s.loadCuts(r); err != nil {
		return err
	}
	if r.next.dirty, err = s.loadDirty(h); err != nil {
		return err
	}
	if r.log, err = s.loadRegions(logPageKey(nil, h, 0), logPageKey(nil, h, ^uint32(0))); err != nil {
		return err
	}
	r.logNext, r.suspect = r.log.Clone(), r.log.Clone()
	if !r.log.Empty() {
		// The process before may have written there without a sync.
		r.unsynced, r.hasUnsynced = r.log.Clone(), true
		s.unsynced = append(s.unsynced, r)
	}
	r.publish(r.next)
	return s.loadFlush(r)
}

// loadFlush reads both blocks of the replica's slot and takes the newer. A block
// that is damaged or belongs to a replica that had the slot before is as good as
// none: the replica then shows a lower flush number, and is resynced as a whole.
func (s *Store) loadFlush(r *Replica) error {
	b := block.NewBuffer(2 * block.BlockSize)
	defer b.Release()
	io := &vfs.IO{Kind: vfs.Read, Offset: flushOffset(r.record.slot, 0), Length: 2 * block.BlockSize, Data: b.Data}
	if err := vfs.Do(s.options.Device, io); err != nil {
		return err
	}
	for half := range 2 {
		data := b.Data[half*block.BlockSize:][:block.BlockSize]
		f, err := decodeFlush(data)
		switch {
		case errors.Is(err, block.ErrVersion):
			return fmt.Errorf("data file at byte %d: %w", io.Offset+int64(half)*block.BlockSize, err)
		case err == nil && f.replica == r.id && f.counter >= r.flush.counter:
			r.flush = *f
		}
	}
	r.durableFlush = r.flush.clone()
	return nil
}

func (s *Store) loadNumbers() error {
	b, err := s.get([]byte{keyHandle})
	if err != nil {
		return err
	}
	if b != nil {
		d := decoder{rest: b}
		s.nextHandle = max(s.nextHandle, handle(d.u32()))
		if err := d.end("next handle"); err != nil {
			return err
		}
	}
	if b, err = s.get([]byte{keyJournal}); err != nil || b == nil {
		return err
	}
	d := decoder{rest: b}
	s.journal.applied = d.u64()
	s.journal.seq = s.journal.applied
	return d.end("journal number")
}
