package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// recovery is what a journal says beyond the database.
type recovery struct {
	store   *Store
	handles map[handle]*Replica
	// entries are the newest states by extent and layer, in the order of the first
	// record of an extent.
	entries map[recoveredKey]map[uint32]*entryState
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
	if err := s.removeJournals(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	if err := s.distrustCuts(b); err != nil {
		return err
	}
	if !same {
		// From now on a journal in the directory is one of this incarnation.
		if err := b.Set([]byte{keyIncarnation}, appendIncarnation(nil, s.options.Incarnation), nil); err != nil {
			return databaseError(err)
		}
	}
	if b.Empty() {
		return nil
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
	rec := &recovery{store: s, handles: map[handle]*Replica{}, entries: map[recoveredKey]map[uint32]*entryState{}, seq: s.journal.seq}
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
	if r.seq != rec.seq+1 {
		// Journals go when the database has what they say: it, or one of them, has lost the rest.
		return fmt.Errorf("record %d after %d: %w", r.seq, rec.seq, block.ErrCorrupt)
	}
	replica := rec.handles[r.handle]
	if replica == nil || int64(r.extent)*block.ExtentSize >= replica.record.size || !rec.possible(replica, r) {
		return fmt.Errorf("record %d of replica number %d, extent %d: %w", r.seq, r.handle, r.extent, block.ErrCorrupt)
	}
	rec.seq = r.seq
	key := recoveredKey{handle: r.handle, extent: r.extent}
	if _, known := rec.entries[key]; !known {
		rec.order = append(rec.order, key)
		rec.entries[key] = map[uint32]*entryState{}
	}
	for _, k := range r.states {
		rec.entries[key][k.layer] = k.state
	}
	return nil
}

// possible reports whether what a record says can be.
func (rec *recovery) possible(replica *Replica, r *journalRecord) bool {
	for _, k := range r.states {
		if k.layer >= replica.next.line.head {
			return false
		}
		if k.state != nil && (k.state.layer > replica.next.line.head || !k.state.within(rec.store.space.end)) {
			return false
		}
	}
	return true
}

// commit stores the recovered entries and the areas they take and free.
func (rec *recovery) commit() error {
	s := rec.store
	b := s.db.NewBatch()
	defer b.Close()
	var parts touched
	chains := make([][]keptState, len(rec.order))
	for i, key := range rec.order {
		stored, err := s.storedChain(key)
		if err != nil {
			return err
		}
		chains[i] = stored
		for _, a := range chainAreas(stored) {
			s.space.unuseArea(a)
			s.space.forgetArea(a)
			parts.add([]area{a})
			s.countBlocks(rec.handles[key.handle], -a.size())
		}
	}
	for i, key := range rec.order {
		now := rec.put(b, key, chains[i])
		for _, a := range chainAreas(now) {
			if !s.space.isFree(a) {
				return fmt.Errorf("journal: extent %d, blocks %#x, belongs to two places: %w", a.extent, a.blocks, block.ErrCorrupt)
			}
			s.space.useArea(a)
			s.space.persistArea(a)
			parts.add([]area{a})
			s.countBlocks(rec.handles[key.handle], a.size())
		}
	}
	s.putCounts(b)
	s.putAllocation(&commit{batch: b}, parts)
	s.put(b.Set([]byte{keyJournal}, binary.LittleEndian.AppendUint64(nil, rec.seq), nil))
	if s.failed != nil {
		return s.failed
	}
	return s.commitBatch(b)
}

// put stores what the journal has of one extent, and returns the chain as it is
// then.
func (rec *recovery) put(b *pebble.Batch, key recoveredKey, chain []keptState) []keptState {
	s, r, changes := rec.store, rec.handles[key.handle], rec.entries[key]
	chain = slices.DeleteFunc(chain, func(k keptState) bool { _, changed := changes[k.layer]; return changed })
	for _, layer := range slices.Sorted(maps.Keys(changes)) {
		state := changes[layer]
		if layer == headLayer {
			s.putHead(b, key.handle, key.extent, state)
		} else {
			s.putUndo(b, key.handle, key.extent, layer, state)
		}
		s.putChanges(b, r, key.extent, layer, state)
		if state != nil {
			chain = append(chain, keptState{layer: layer, state: state})
		}
	}
	return chain
}

// storedChain reads all states of an extent from the database.
func (s *Store) storedChain(key recoveredKey) (chain []keptState, err error) {
	head := mapKey(nil, key.handle, key.extent)
	b, err := s.get(head)
	if err != nil {
		return nil, err
	}
	if b != nil {
		e := new(entryState)
		if err := decodeEntry(b, e); err != nil {
			return nil, fmt.Errorf("map key %x: %w", head, err)
		}
		chain = append(chain, keptState{state: e})
	}
	lower, upper := undoKey(nil, key.handle, key.extent, 0), undoKey(nil, key.handle, key.extent, ^uint32(0))
	err = scan(s.db, lower, upper, func(k, value []byte) error {
		_, _, layer, err := splitUndoKey(k)
		if err != nil {
			return err
		}
		e := new(entryState)
		if err := decodeEntry(value, e); err != nil {
			return fmt.Errorf("undo key %x: %w", k, err)
		}
		chain = append(chain, keptState{layer: layer, state: e})
		return nil
	})
	return chain, err
}

// chainAreas are what the states of an extent name, each area once: extents as a
// whole, and the blocks of split ones together.
func chainAreas(chain []keptState) (areas []area) {
	for _, k := range chain {
		for p := range k.state.placements {
			if p.foreign() || p.mask() == 0 {
				continue
			}
			for a := range p.areas {
				i := slices.IndexFunc(areas, func(b area) bool { return b.extent == a.extent && (b.blocks == 0) == (a.blocks == 0) })
				if i < 0 {
					areas = append(areas, a)
				} else {
					areas[i].blocks |= a.blocks
				}
			}
		}
	}
	return areas
}
