package store

import (
	"unsafe"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// MemoryPerTiB is what a store may hold in memory for each TiB in use unless
	// Options say otherwise, in bytes; a store with less in use may hold as much.
	MemoryPerTiB = 64 << 20
	// LeastMemory is the least bound that Options may give, in bytes.
	LeastMemory = 32 << 20

	// leastMaps is what the maps may take whatever the rest does; mostMaps bounds
	// them where the bound follows the space in use.
	leastMaps = 4 << 20
	mostMaps  = 256 << 20
	// changesReserve is kept for the changes that no flush round has stored.
	changesReserve = 6 << 20
	// leastHeld is how many changed extents may keep their pages in memory before a
	// flush round lets go of them.
	leastHeld = 512
)

// memTableStop is how many tables in memory the database may have before a commit
// waits for one to be written; it keeps one more for later.
const memTableStop = 3

// Memory is what a store holds in memory, in bytes.
type Memory struct {
	// Limit is the bound of the store as of now. Maps make room for the rest, down
	// to 4 MiB.
	Limit int64
	// Maps are the parts of head maps that are cached.
	Maps int64
	// Allocation says which extents and blocks are taken.
	Allocation int64
	// Replicas are intent logs, dirty sets, cuts and what else is kept of each.
	Replicas int64
	// Changes are what no commit has stored, and the memory of flush rounds.
	Changes int64
	// Database are its cache and its tables in memory.
	Database int64
}

// Total is the sum of the parts.
func (m Memory) Total() int64 {
	return m.Maps + m.Allocation + m.Replicas + m.Changes + m.Database
}

// Memory reports what the store holds, and makes the maps follow it. It may wait
// for the database, and is for a caller that comes by every second or so.
func (s *Store) Memory() Memory {
	s.mu.Lock()
	s.replicaBytes = 0
	for _, r := range s.replicas {
		s.replicaBytes += r.memory()
	}
	m := Memory{
		Limit: s.memoryLimit(), Maps: s.cache.count * pageBytes, Allocation: s.space.memory(),
		Replicas: s.replicaBytes, Changes: s.changesMemory(),
	}
	if s.closing || s.abandoned || s.left {
		s.mu.Unlock()
		return m
	}
	s.evict()
	s.jobs++
	s.unlock()
	d := s.db.Metrics()
	m.Database = int64(d.MemTable.Size+d.MemTable.ZombieSize) + d.BlockCache.Size + d.FileCache.Size
	s.jobEnded()
	return m
}

// memoryLimit is the bound of what the store holds.
func (s *Store) memoryLimit() int64 {
	if s.options.Memory > 0 {
		return s.options.Memory
	}
	const share = (1 << 40) / MemoryPerTiB
	return max(s.space.takenBlocks()*block.BlockSize/share, MemoryPerTiB)
}

// mapLimit is what the maps may take: what the rest leaves of the bound.
func (s *Store) mapLimit() int64 {
	if s.options.CacheSize > 0 {
		return s.options.CacheSize
	}
	database := (memTableStop + 1) * int64(s.options.MemTableSize)
	left := max(s.memoryLimit()-s.space.memory()-s.replicaBytes-database-changesReserve, leastMaps)
	if s.options.Memory == 0 {
		left = min(left, mostMaps)
	}
	return left
}

// mapsHeld reports whether changed extents keep the maps above their bound.
func (s *Store) mapsHeld() bool {
	if len(s.changed) < leastHeld {
		return false
	}
	limit := s.mapLimit()
	return s.cache.count*pageBytes > limit && int64(len(s.changed))*pageBytes > limit/2
}

// memory is in bytes, and so are those that follow.
func (a *allocator) memory() int64 {
	const perUnsettled = 16
	words := cap(a.used) + cap(a.durable) + cap(a.partial) + cap(a.split)
	return int64(words)*8 + a.splitPages*int64(unsafe.Sizeof(splitPage{})) + int64(len(a.unsettled))*perUnsettled
}

func (s *Store) changesMemory() int64 {
	r := &s.rounds
	n := (cap(s.changed) + cap(r.refs)) * int(unsafe.Sizeof(entryRef{}))
	n += (cap(r.set) + cap(r.clear) + cap(r.emptied)) * int(unsafe.Sizeof(area{}))
	n += cap(s.freed)*int(unsafe.Sizeof(claim{})) + cap(s.held)*int(unsafe.Sizeof(held{})) + cap(s.journal.pending) + cap(s.journal.spare)
	return int64(n + len(s.changed)*int(unsafe.Sizeof(entryState{})))
}

func (r *Replica) memory() int64 {
	n := int(unsafe.Sizeof(Replica{})) + len(r.pages)*16
	if r.slotBuffer != nil {
		n += block.BlockSize
	}
	for _, set := range []block.Regions{r.log, r.logNext, r.logWanted, r.suspect, r.unsynced, r.syncing} {
		n += cap(set) * int(unsafe.Sizeof(block.RegionPage{}))
	}
	for i := range r.durable.dirty {
		n += int(unsafe.Sizeof(block.DirtySet{})) + cap(r.durable.dirty[i].Regions)*int(unsafe.Sizeof(block.RegionPage{}))
	}
	n += (cap(r.flush.confirmed) + cap(r.durableFlush.confirmed)) * int(unsafe.Sizeof(block.Confirmed{}))
	return int64(n + cap(r.durable.cuts)*int(unsafe.Sizeof(cut{})))
}
