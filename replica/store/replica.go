package store

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// Replica is one copy of a volume in a store.
type Replica struct {
	store *Store
	id    block.ReplicaID

	// All that follows is guarded by the store's mutex.
	record   replicaRecord
	creating bool
	inFlight int

	// extents is the number of extents that the last built commit names.
	extents uint64

	// next is the metadata after the commit in flight, durable that before it.
	next    metadata
	durable metadata

	// log are the regions that writes may rely on being in the intent log;
	// logNext is the log after the commit in flight, logWanted waits for a commit.
	log, logNext, logWanted block.Regions
	wantsLog                bool
	// suspect are the regions in which checksums may be stale after a crash.
	suspect block.Regions
	// unsynced are regions with data that no sync covers, syncing those that the
	// flush round in progress covers.
	unsynced, syncing block.Regions
	hasUnsynced       bool

	flush        flushRecord
	durableFlush flushRecord
	slotDirty    bool
	slotBuffer   *block.Buffer
	slotIO       vfs.IO

	pages map[uint32]*page
	// long are Zeros of many windows in progress; held are tasks that overlap
	// them, or each other, in the order of their arrival.
	long []*task
	held []*task
}

func (s *Store) newReplica(id block.ReplicaID, record replicaRecord) *Replica {
	return &Replica{
		store: s, id: id, record: record, pages: map[uint32]*page{},
		flush: flushRecord{replica: id}, durableFlush: flushRecord{replica: id},
	}
}

func (f *flushRecord) clone() flushRecord {
	c := *f
	c.confirmed = slices.Clone(f.confirmed)
	return c
}

// ID is the replica's.
func (r *Replica) ID() block.ReplicaID { return r.id }

// Volume is the volume that the replica is a copy of.
func (r *Replica) Volume() block.VolumeID { return r.record.volume }

// Size is in bytes.
func (r *Replica) Size() int64 { return r.record.size }

// Used is what the replica takes on the disk as of the last flush, in bytes.
func (r *Replica) Used() int64 {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return int64(r.extents) * block.ExtentSize
}

// Fence is the durable one.
func (r *Replica) Fence() block.Fence {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.durable.fence
}

// View is the durable one; the zero view if there is none.
func (r *Replica) View() block.View {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if r.durable.view == nil {
		return block.View{}
	}
	return r.durable.view.Clone()
}

// Log is the intent log. It may name regions that are only about to enter it.
func (r *Replica) Log() block.Regions {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	log := r.log.Clone()
	log.Union(r.logNext)
	return log
}

// DirtySets are the durable ones, in the order of their creation.
func (r *Replica) DirtySets() []block.DirtySet {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	sets := slices.Clone(r.durable.dirty)
	for i := range sets {
		sets[i].Regions = sets[i].Regions.Clone()
	}
	return sets
}

// FlushNumber is the highest one in the data file (rule 10).
func (r *Replica) FlushNumber() block.FlushNumber {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.durableFlush.number
}

// Confirmed are the flushes that the replica knows others to have finished.
func (r *Replica) Confirmed() []block.Confirmed {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return slices.Clone(r.durableFlush.confirmed)
}

// Extent is a run of blocks that are alike.
type Extent struct {
	block.Span
	// Data: the blocks have been written; else they read as zeros.
	Data bool
}

// maxExtentsSpan bounds the answer of Extents.
const maxExtentsSpan = 1 << 30

// Extents tells which blocks of span, whole blocks of at most 1 GiB, hold data.
// It may block on the database.
func (r *Replica) Extents(span block.Span) ([]Extent, error) {
	if !span.Within(r.Size(), block.SectorSize) || span.Length > maxExtentsSpan {
		return nil, fmt.Errorf("extents of %d bytes at %d: %w", span.Length, span.Offset, block.ErrInvalid)
	}
	var list []Extent
	for at := span.Offset; at < span.End(); {
		masks, err := r.pageData(uint32(at / zeroWindow))
		if err != nil {
			return nil, err
		}
		for end := min(span.End(), at-at%zeroWindow+zeroWindow); at < end; {
			next := min(at-at%block.BlockSize+block.BlockSize, end)
			data := masks[at%zeroWindow/block.ExtentSize]&(1<<(at%block.ExtentSize/block.BlockSize)) != 0
			if n := len(list); n > 0 && list[n-1].Data == data {
				list[n-1].Length += next - at
			} else {
				list = append(list, Extent{Span: block.Span{Offset: at, Length: next - at}, Data: data})
			}
			at = next
		}
	}
	return list, nil
}

// pageData returns the blocks with data of each extent of a page.
func (r *Replica) pageData(number uint32) (masks [pageExtents]uint16, err error) {
	s := r.store
	s.mu.Lock()
	p := r.pages[number]
	cached := p != nil && p.loaded && p.err == nil
	if cached {
		for i := range p.entries {
			masks[i] = p.entries[i].data
		}
	}
	closed := s.closing || s.abandoned
	if !closed {
		s.jobs++
	}
	s.mu.Unlock()
	if closed {
		return masks, fmt.Errorf("extents of replica %s: %w", r.id, block.ErrClosed)
	}
	defer s.jobEnded()
	if cached {
		return masks, nil
	}
	// A page that is not in memory has no change that the database lacks.
	states, err := s.readPage(r.record.handle, number)
	if err != nil {
		return masks, fmt.Errorf("extents of replica %s: %w", r.id, err)
	}
	for i := range states {
		masks[i] = states[i].data
	}
	return masks, nil
}

// jobEnded counts a blocking call of a user as a job that has ended.
func (s *Store) jobEnded() {
	s.mu.Lock()
	s.jobDone()
	s.mu.Unlock()
}
