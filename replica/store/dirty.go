package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// maxDirtySets bounds the replicas that a replica keeps dirty sets for, and
// maxMembers the copies of a volume in a view.
const (
	maxDirtySets = 64
	maxMembers   = 64
)

func validateUpdate(u *block.Update, size int64) error {
	if u.Grow != 0 {
		if u.Grow < size || u.Grow > block.MaxVolumeSize || u.Grow%block.SectorSize != 0 {
			return fmt.Errorf("grow from %d to %d bytes: %w", size, u.Grow, block.ErrInvalid)
		}
		size = u.Grow
	}
	for _, c := range u.Cuts {
		if c.Snapshot.IsZero() || c.Snapshot == block.KeptHead {
			return fmt.Errorf("cut for snapshot %s: %w", c.Snapshot, block.ErrInvalid)
		}
	}
	limit := block.RegionCount(size)
	for _, list := range [][]block.DirtySet{u.SetDirty, u.AddDirty, u.ClearDirty} {
		for i := range list {
			if !list[i].Regions.Within(limit) {
				return fmt.Errorf("dirty set of replica %s: regions past the end: %w", list[i].Replica, block.ErrInvalid)
			}
		}
	}
	if u.View != nil && len(u.View.Replicas) > maxMembers {
		return fmt.Errorf("view of %d replicas, at most %d: %w", len(u.View.Replicas), maxMembers, block.ErrInvalid)
	}
	if !u.ClearLog.Within(limit) {
		return fmt.Errorf("log regions past the end: %w", block.ErrInvalid)
	}
	return nil
}

// applyDirty is the list of dirty sets after u. Neither the old list nor its
// sets are changed.
func applyDirty(old []block.DirtySet, u *block.Update) ([]block.DirtySet, error) {
	if len(u.SetDirty)+len(u.AddDirty)+len(u.ClearDirty)+len(u.DropDirty) == 0 {
		return old, nil
	}
	sets := slices.Clone(old)
	find := func(id block.ReplicaID) int {
		return slices.IndexFunc(sets, func(d block.DirtySet) bool { return d.Replica == id })
	}
	for _, d := range u.SetDirty {
		d.Regions = d.Regions.Clone()
		if i := find(d.Replica); i >= 0 {
			sets[i] = d
		} else {
			sets = append(sets, d)
		}
	}
	for _, d := range u.AddDirty {
		i := find(d.Replica)
		if i < 0 {
			d.Regions = d.Regions.Clone()
			sets = append(sets, d)
			continue
		}
		if sets[i].Removal != d.Removal {
			return nil, fmt.Errorf("add to dirty set of replica %s: removal %d, the stored set is of removal %d: %w",
				d.Replica, d.Removal, sets[i].Removal, block.ErrConflict)
		}
		sets[i].Regions = sets[i].Regions.Clone()
		sets[i].Regions.Union(d.Regions)
	}
	for _, d := range u.ClearDirty {
		if i := find(d.Replica); i >= 0 && sets[i].Removal == d.Removal {
			sets[i].Regions = sets[i].Regions.Clone()
			sets[i].Regions.Subtract(d.Regions)
		}
	}
	for _, id := range u.DropDirty {
		if i := find(id); i >= 0 {
			sets = slices.Delete(sets, i, i+1)
		}
	}
	if len(sets) > maxDirtySets {
		return nil, fmt.Errorf("%d dirty sets, at most %d: %w", len(sets), maxDirtySets, block.ErrInvalid)
	}
	return sets, nil
}

// putDirty stores what differs between two lists of dirty sets.
func (s *Store) putDirty(b *pebble.Batch, r *Replica, before, after []block.DirtySet) {
	h := r.record.handle
	put := func(id block.ReplicaID, old, now block.Regions) {
		s.putRegions(b, old, now, func(k []byte, page uint32) []byte { return dirtyPageKey(k, h, id, page) })
	}
	for _, d := range before {
		if !slices.ContainsFunc(after, func(a block.DirtySet) bool { return a.Replica == d.Replica }) {
			s.put(b.Delete(dirtyKey(nil, h, d.Replica), nil))
			put(d.Replica, d.Regions, nil)
		}
	}
	for _, d := range after {
		i := slices.IndexFunc(before, func(a block.DirtySet) bool { return a.Replica == d.Replica })
		if i < 0 || before[i].Removal != d.Removal {
			s.put(b.Set(dirtyKey(nil, h, d.Replica), binary.LittleEndian.AppendUint64(nil, uint64(d.Removal)), nil))
		}
		if i < 0 {
			put(d.Replica, nil, d.Regions)
		} else {
			put(d.Replica, before[i].Regions, d.Regions)
		}
	}
}

// loadDirty reads the dirty sets of a replica.
func (s *Store) loadDirty(h handle) ([]block.DirtySet, error) {
	var sets []block.DirtySet
	err := scan(s.db, handleKey(nil, keyDirtySet, h), handleKey(nil, keyDirtySet, h+1), func(key, value []byte) error {
		var d block.DirtySet
		dec := decoder{rest: key[5:]}
		d.Replica.ID = dec.id()
		if err := dec.end("dirty set key"); err != nil {
			return err
		}
		dec = decoder{rest: value}
		d.Removal = block.Revision(dec.u64())
		sets = append(sets, d)
		return dec.end("dirty set")
	})
	if err != nil {
		return nil, err
	}
	for i := range sets {
		d := &sets[i]
		lower := dirtyPageKey(nil, h, d.Replica, 0)
		upper := dirtyPageKey(nil, h, d.Replica, ^uint32(0))
		if d.Regions, err = s.loadRegions(lower, upper); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// loadRegions reads a set of regions whose page numbers end the keys.
func (s *Store) loadRegions(lower, upper []byte) (block.Regions, error) {
	var regions block.Regions
	err := scan(s.db, lower, upper, func(key, value []byte) error {
		if len(key) != len(lower) {
			return fmt.Errorf("key %x: %w", key, block.ErrCorrupt)
		}
		return decodeRegionPage(value, &regions, binary.BigEndian.Uint32(key[len(key)-4:]))
	})
	return regions, err
}
