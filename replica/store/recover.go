package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// recovery is what a journal says beyond the database.
type recovery struct {
	store   *Store
	handles map[handle]*Replica
	// entries are the newest states by extent, in the order of their first record.
	entries map[recoveredKey]entryState
	order   []recoveredKey
	seq     uint64
}

type recoveredKey struct {
	handle handle
	extent uint32
}

// recoverJournal brings into the database what the journal has beyond it. Then
// the journal is not needed any more.
func (s *Store) recoverJournal() error {
	same, err := s.sameIncarnation()
	if err != nil {
		return err
	}
	if same {
		if err := s.replayJournal(); err != nil {
			return err
		}
	}
	if err := s.removeJournals(); err != nil || same {
		return err
	}
	// From now on a journal in the directory is one of this incarnation.
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Set([]byte{keyIncarnation}, appendIncarnation(nil, s.options.Incarnation), nil); err != nil {
		return databaseError(err)
	}
	return s.commitBatch(b)
}

// sameIncarnation reports whether the store was last opened under the present
// incarnation. If not, nothing in the journals can be relied upon: they, and the
// data that they name, may have reached the disk in part.
func (s *Store) sameIncarnation() (bool, error) {
	b, err := s.get([]byte{keyIncarnation})
	if err != nil || b == nil {
		return false, err
	}
	d := decoder{rest: b}
	last := d.incarnation()
	return last == s.options.Incarnation, d.end("incarnation")
}

// replayJournal commits what the journal has. The data file is synced first,
// for the records name data that it may only hold in its caches.
func (s *Store) replayJournal() error {
	rec := &recovery{store: s, handles: map[handle]*Replica{}, entries: map[recoveredKey]entryState{}, seq: s.journal.seq}
	for _, r := range s.replicas {
		rec.handles[r.record.handle] = r
	}
	if err := s.readJournal(rec.add); err != nil {
		return err
	}
	if len(rec.order) == 0 {
		return nil
	}
	if err := vfs.Do(s.options.Device, &vfs.IO{Kind: vfs.Sync}); err != nil {
		return fmt.Errorf("sync data file: %w", err)
	}
	if err := rec.commit(); err != nil {
		return err
	}
	s.journal.seq, s.journal.applied = rec.seq, rec.seq
	return nil
}

// removeJournals removes every journal file, durably: one that came back later
// might be taken for one of the present incarnation.
func (s *Store) removeJournals() error {
	names, err := journalNames(s.options.Dir, s.options.Path)
	if err != nil || len(names) == 0 {
		return err
	}
	for _, name := range names {
		if err := s.options.Dir.Remove(s.options.Dir.PathJoin(s.options.Path, name)); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return syncDir(s.options.Dir, s.options.Path)
}

// add takes one record over, unless the database has it.
func (rec *recovery) add(r *journalRecord) error {
	if r.seq <= rec.store.journal.applied {
		return nil
	}
	if r.seq <= rec.seq {
		return fmt.Errorf("record %d after %d: %w", r.seq, rec.seq, block.ErrCorrupt)
	}
	replica := rec.handles[r.handle]
	if replica == nil || int64(r.extent)*block.ExtentSize >= replica.record.size || r.entry.extent >= rec.store.space.end {
		return fmt.Errorf("record %d of replica number %d, extent %d: %w", r.seq, r.handle, r.extent, block.ErrCorrupt)
	}
	rec.seq = r.seq
	key := recoveredKey{handle: r.handle, extent: r.extent}
	if _, known := rec.entries[key]; !known {
		rec.order = append(rec.order, key)
	}
	rec.entries[key] = r.entry
	return nil
}

// commit stores the recovered entries and the extents they take and free.
func (rec *recovery) commit() error {
	s := rec.store
	b := s.db.NewBatch()
	defer b.Close()
	var pages bitset
	stored := make([]uint32, len(rec.order))
	for i, key := range rec.order {
		old, err := s.storedEntry(key)
		if err != nil {
			return err
		}
		if old.extent != 0 {
			s.space.unuse(old.extent)
			s.space.forget(old.extent)
			pages.add(allocationPage(old.extent))
			stored[i] = old.extent
		}
	}
	for i, key := range rec.order {
		e := rec.entries[key]
		if e.data != 0 {
			if s.space.used.has(e.extent) {
				return fmt.Errorf("journal: extent %d belongs to two places: %w", e.extent, block.ErrCorrupt)
			}
			s.space.use(e.extent)
			s.space.persist(e.extent)
			pages.add(allocationPage(e.extent))
		}
		s.countExtents(b, rec.handles[key.handle], stored[i], e.extent)
		s.putEntry(b, key.handle, key.extent, &e)
	}
	s.putAllocation(&commit{batch: b}, pages)
	s.put(b.Set([]byte{keyJournal}, binary.LittleEndian.AppendUint64(nil, rec.seq), nil))
	if s.failed != nil {
		return s.failed
	}
	return s.commitBatch(b)
}

// storedEntry reads one entry from the database.
func (s *Store) storedEntry(key recoveredKey) (e entryState, err error) {
	k := mapKey(nil, key.handle, key.extent)
	b, err := s.get(k)
	if err != nil || b == nil {
		return e, err
	}
	if err := decodeEntry(b, &e); err != nil {
		return e, fmt.Errorf("map key %x: %w", k, err)
	}
	return e, nil
}
