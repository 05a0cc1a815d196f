package store

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Space is the state of a store's space, in bytes.
type Space struct {
	// Capacity is what the store can hold: the data file and what it may still
	// grow to.
	Capacity int64
	// Used is what replicas occupy, including what is being freed.
	Used int64
	// Free is what can be written yet: Capacity without Used.
	Free int64
}

// Space reports the space of the store.
func (s *Store) Space() Space {
	s.mu.Lock()
	space, room := s.space, s.room
	s.mu.Unlock()
	file := int64(space.end) - firstExtent
	sp := Space{Capacity: file*block.ExtentSize + room}
	sp.Used = space.takenBlocks() * block.BlockSize
	sp.Free = sp.Capacity - sp.Used
	return sp
}

// MeasureSpace asks the file system how far the data file may still grow: others
// may have taken or given back room there. It blocks on the disk, and is for a
// caller that comes by every second or so.
func (s *Store) MeasureSpace() error {
	s.mu.Lock()
	busy := s.abandoned || s.growing
	s.mu.Unlock()
	if busy {
		return nil // who grows the file measures as well
	}
	size := s.options.Device.Size()
	room, err := s.roomToGrow(size)
	if err != nil {
		return fmt.Errorf("measure space of disk %s: %w", s.identity.Disk, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.growing && size == s.options.Device.Size() {
		s.room = room
	}
	return nil
}

// awaitSpace takes room for what the pieces of a window write to new places. If
// there is too little it reports true, and t goes on or fails later.
func (s *Store) awaitSpace(t *task) bool {
	extents, enough := s.needs(t)
	if !enough {
		s.spaceWaiting = append(s.spaceWaiting, t)
		// Without anything to free, waiting for rounds would go on for ever: each
		// would end by starting the next.
		switch {
		case s.space.freeing > 0 && (s.round != nil || len(s.changed) > 0):
			s.startRound()
		case s.cannotGrow() && len(s.held) > 0:
			// The journal's job is on its way, and lets go of them.
		default:
			s.startGrow()
		}
		return true
	}
	// Whole extents first: slots can do with what is left.
	for _, p := range t.pieces {
		if _, whole := p.need(); whole && extents > 0 {
			extents--
			p.takeExtent(s.space.alloc())
		}
	}
	for _, p := range t.pieces {
		p.plan(s)
	}
	if s.space.free < s.options.GrowStep/block.ExtentSize/4 && !s.growFailed {
		s.startGrow()
	}
	return false
}

// needs is what the pieces of a window take of free extents, and whether there is enough
// of them and of free blocks in split ones. On a disk that cannot grow, pieces for which no
// extent is left go to blocks between others: what is free can all be written.
func (s *Store) needs(t *task) (extents int64, enough bool) {
	slots := int64(0)
	most := int64(math.MaxInt64)
	if t.layer == 0 && s.cannotGrow() {
		most = s.space.free
	}
	for _, p := range t.pieces {
		if fresh, whole := p.need(); whole && extents < most {
			extents++
		} else {
			slots += int64(bits.OnesCount16(fresh))
		}
	}
	return extents, extents <= s.space.free && slots <= s.space.available(extents)
}

// cannotGrow reports whether the data file has found no room to grow, and nobody has
// given any back since.
func (s *Store) cannotGrow() bool { return s.growFailed && s.room < block.ExtentSize }

// wakeSpace lets everything that waits for space try again.
func (s *Store) wakeSpace() {
	for i, t := range s.spaceWaiting {
		s.spaceWaiting[i] = nil
		s.makeReady(t)
	}
	s.spaceWaiting = s.spaceWaiting[:0]
}

func (s *Store) startGrow() {
	if !s.growing {
		s.growing = true
		s.jobs++
		s.options.Executor.Go(s.growJob)
	}
}

// runGrow is the job that enlarges the data file.
func (s *Store) runGrow() {
	if s.isAbandoned() {
		return
	}
	size, room, err := s.growDevice()
	if !s.jobBack() {
		return
	}
	defer s.unlock()
	s.growing = false
	s.growFailed = err != nil
	s.room = room
	if err == nil {
		s.space.grow(extentsIn(size))
		s.wakeSpace()
		return
	}
	if !errors.Is(err, block.ErrNoSpace) {
		s.fail(err)
	}
	waiting := s.spaceWaiting
	s.spaceWaiting = nil
	for _, t := range waiting {
		if _, enough := s.needs(t); enough || len(s.held) > 0 {
			s.makeReady(t)
		} else {
			s.endWindow(t, err)
		}
	}
}

// extentsIn is the number of whole extents of a data file, which bounds the
// extent numbers.
func extentsIn(size int64) uint32 {
	return uint32(min(size/block.ExtentSize, maxExtents-1))
}

// growDevice adds a step to the data file, leaving the reserve to the metadata.
// It returns the new size and the room left for more.
func (s *Store) growDevice() (size, room int64, err error) {
	size = s.options.Device.Size()
	room, err = s.roomToGrow(size)
	if err != nil {
		return size, 0, err
	}
	step := min(s.options.GrowStep, room)
	if step < block.ExtentSize {
		return size, 0, fmt.Errorf("grow data file past %d bytes, %d are reserved for metadata: %w", size, s.options.Reserve, block.ErrNoSpace)
	}
	if err := s.options.Device.Grow(size + step); err != nil {
		return size, 0, err
	}
	return size + step, room - step, nil
}

// roomToGrow is by how much a data file of size bytes may grow now.
func (s *Store) roomToGrow(size int64) (int64, error) {
	free, err := s.options.Device.Free()
	if err != nil {
		return 0, err
	}
	room := free - s.options.Reserve
	if s.options.Capacity > 0 {
		room = min(room, s.options.Capacity-size)
	}
	return max(room, 0) &^ (block.ExtentSize - 1), nil
}
