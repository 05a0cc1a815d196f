package store

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// maxFindings bounds what one Check reports.
const maxFindings = 20

// checker compares the maps, in the database and in memory, with the allocation
// sets.
type checker struct {
	handles  map[handle]*Replica
	stored   map[recoveredKey]uint32
	counts   map[handle]uint64
	findings []error
}

func (c *checker) found(format string, args ...any) {
	if len(c.findings) < maxFindings {
		c.findings = append(c.findings, fmt.Errorf(format+": %w", append(args, block.ErrCorrupt)...))
	}
}

// Check verifies that each extent in use belongs to exactly one place and that
// none is lost. It reads every map and needs a store on which nothing is going
// on, else it fails with block.ErrUnavailable. Damage is block.ErrCorrupt.
func (s *Store) Check() error {
	c := &checker{handles: map[handle]*Replica{}, stored: map[recoveredKey]uint32{}, counts: map[handle]uint64{}}
	s.mu.Lock()
	busy := s.inFlight > 0 || s.jobs > 0 || s.round != nil || len(s.deletions) > 0
	closed := s.closing || s.abandoned
	for _, r := range s.replicas {
		c.handles[r.record.handle] = r
	}
	if !busy && !closed {
		s.jobs++
	}
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("check disk %s: %w", s.identity.Disk, block.ErrClosed)
	}
	if busy {
		return fmt.Errorf("check disk %s: it is in use: %w", s.identity.Disk, block.ErrUnavailable)
	}
	defer s.jobEnded()
	if err := s.readMaps(c); err != nil {
		return fmt.Errorf("check disk %s: %w", s.identity.Disk, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkStored(c)
	s.checkMemory(c)
	return errors.Join(c.findings...)
}

func (s *Store) readMaps(c *checker) error {
	var e entryState
	return scan(s.db, []byte{keyMap}, []byte{keyMap + 1}, func(key, value []byte) error {
		h, extent, err := splitMapKey(key)
		if err == nil {
			err = decodeEntry(value, &e)
		}
		if err != nil {
			c.found("map key %x: %w", key, err)
			return nil
		}
		r := c.handles[h]
		if r == nil || int64(extent)*block.ExtentSize >= r.record.size {
			c.found("map key %x belongs to no replica", key)
			return nil
		}
		c.stored[recoveredKey{handle: h, extent: extent}] = e.extent
		c.counts[h]++
		return nil
	})
}

// checkStored compares the maps in the database with the durable set.
func (s *Store) checkStored(c *checker) {
	owned := bitset{}
	for key, n := range c.stored {
		if n < firstExtent || n >= s.space.end || owned.has(n) {
			c.found("extent %d of replica number %d, extent %d, lies outside the file or belongs to two places", n, key.handle, key.extent)
			continue
		}
		owned.add(n)
	}
	c.compare("allocation map", owned, s.space.durable)
	for h, r := range c.handles {
		if c.counts[h] != r.extents {
			c.found("replica %s has %d extents, its count says %d", r.id, c.counts[h], r.extents)
		}
	}
}

// checkMemory compares the maps as they are now with the used set.
func (s *Store) checkMemory(c *checker) {
	for _, r := range s.replicas {
		for number, p := range r.pages {
			for i := range p.entries {
				key := recoveredKey{handle: r.record.handle, extent: number*pageExtents + uint32(i)}
				if p.entries[i].extent == 0 {
					delete(c.stored, key)
				} else {
					c.stored[key] = p.entries[i].extent
				}
			}
		}
	}
	owned := bitset{}
	for key, n := range c.stored {
		if owned.has(n) {
			c.found("extent %d of replica number %d, extent %d, belongs to two places in memory", n, key.handle, key.extent)
		}
		owned.add(n)
	}
	c.compare("extents in use", owned, s.space.used)
	free, freeing := int64(s.space.end)-firstExtent, int64(0)
	for i := range max(len(s.space.used), len(s.space.durable)) {
		used, durable := s.space.used.word(i), s.space.durable.word(i)
		free -= int64(bits.OnesCount64(used | durable))
		freeing += int64(bits.OnesCount64(durable &^ used))
	}
	if free != s.space.free || freeing != s.space.freeing {
		c.found("%d extents free and %d being freed, the counts say %d and %d", free, freeing, s.space.free, s.space.freeing)
	}
}

// compare reports extents that are in one set only.
func (c *checker) compare(what string, owned, marked bitset) {
	for i := range max(len(owned), len(marked)) {
		for w := owned.word(i) ^ marked.word(i); w != 0; w &= w - 1 {
			n := uint32(i*64 + bits.TrailingZeros64(w))
			if owned.has(n) {
				c.found("extent %d is in use and not in the %s", n, what)
			} else {
				c.found("extent %d is in the %s and belongs to nobody", n, what)
			}
		}
	}
}
