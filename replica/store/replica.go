package store

import (
	"slices"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// Replica is one copy of a volume in a store.
type Replica struct {
	store *Store
	id    block.ReplicaID
	size  atomic.Int64

	// All that follows is guarded by the store's mutex.
	record   replicaRecord
	creating bool
	inFlight int
	// origin is the line that shows through, pins counts the lines that show a cut
	// of this one, by its layer.
	origin *Replica
	pins   map[uint32]int
	// newest is the layer of the youngest cut that anything needs, newestValid that
	// of the youngest valid one.
	newest, newestValid uint32
	// retired: a deletion frees all that it has. wantsPruning: it is among the prunes.
	retired, wantsPruning bool
	// headGone is the cut down to which the head of a deleted replica was freed.
	headGone uint32

	// active counts the windows that write. Updates that take cuts wait in cutting
	// until there are none; while there are such, or their commit goes on, gates is
	// not zero and windows wait in gated.
	active, gates  int
	cutting, gated []*task

	// blocks is the number of blocks that the last built round names.
	blocks       int64
	countChanged bool

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
	r := &Replica{
		store: s, id: id, record: record, pages: map[uint32]*page{}, pins: map[uint32]int{},
		flush: flushRecord{replica: id}, durableFlush: flushRecord{replica: id},
	}
	r.next.size, r.next.line.head = record.size, firstLayer
	r.publish(r.next)
	return r
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
func (r *Replica) Size() int64 { return r.size.Load() }

// Used is what the replica takes on the disk as of the last flush, in bytes.
func (r *Replica) Used() int64 {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.blocks * block.BlockSize
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

// jobEnded counts a blocking call of a user as a job that has ended.
func (s *Store) jobEnded() {
	s.mu.Lock()
	s.jobDone()
	s.mu.Unlock()
}
