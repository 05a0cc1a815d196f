package core

import (
	"cmp"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// changedRegionsMax bounds what is remembered for one absent replica: 64 GiB of
// scattered writes, in some 160 KiB.
const changedRegionsMax = 4096

// changes are the extents that may have been written since a replica left the in-sync
// set: what it had acknowledged by then equals what the members hold everywhere else.
// They only spare the comparison of the rest of the regions that it may lack, which
// are durable, and end with the engine.
type changes struct {
	// kept: nothing was forgotten, and the members were equal when it left.
	kept    bool
	regions []changedRegion
	// logged are the regions that its own intent logs have named since it left. What
	// it had acknowledged may be missing there after a loss of power, so they are
	// compared as a whole.
	logged block.Regions
}

// changedRegion has a bit for each extent of each chunk. Regions ascend.
type changedRegion struct {
	region block.Region
	chunks [block.ChunksPerRegion]uint16
}

// beginChanges begins with the writes under way, which it may have or not.
func (c *Core) beginChanges(i int) {
	p := &c.peers[i]
	p.changed = changes{kept: c.phase == serving && c.divide.count == 0 && c.unsure.count == 0 && c.repairs() == 0}
	for k := range c.writes {
		if w := &c.writes[k]; w.used && w.running {
			p.changed.add(w.span)
		}
	}
}

// repairs counts the jobs that may be changing what members hold.
func (c *Core) repairs() int {
	n := 0
	for i := range c.jobs {
		if c.jobs[i].used && c.jobs[i].target < 0 {
			n++
		}
	}
	return n
}

// noteChanges notes a write, before anybody gets it, for all who are not in sync.
func (c *Core) noteChanges(span block.Span) {
	for i := range c.peers {
		if !c.iss.has(i) {
			c.peers[i].changed.add(span)
		}
	}
}

func (s *changes) add(span block.Span) {
	if !s.kept {
		return
	}
	for e := span.Offset / block.ExtentSize; e <= (span.End()-1)/block.ExtentSize; e++ {
		r := block.Region(e / (block.ExtentsPerChunk * block.ChunksPerRegion))
		at, found := s.find(r)
		if !found {
			if len(s.regions) == changedRegionsMax {
				*s = changes{}
				return
			}
			s.regions = slices.Insert(s.regions, at, changedRegion{region: r})
		}
		s.regions[at].chunks[e/block.ExtentsPerChunk%block.ChunksPerRegion] |= 1 << uint(e%block.ExtentsPerChunk)
	}
}

func (s *changes) find(r block.Region) (int, bool) {
	return slices.BinarySearchFunc(s.regions, r, func(c changedRegion, r block.Region) int { return cmp.Compare(c.region, r) })
}

// extents are those of a chunk that may differ, and whether the others are known to
// be equal.
func (s *changes) extents(chunk int64) (uint16, bool) {
	r := block.Region(chunk / block.ChunksPerRegion)
	if !s.kept || s.logged.Has(r) {
		return 0, false
	}
	at, found := s.find(r)
	if !found {
		return 0, true
	}
	return s.regions[at].chunks[chunk%block.ChunksPerRegion], true
}

// differ has a bit for each chunk of the region in which something may differ.
func (c *changedRegion) differ() uint16 {
	chunks := uint16(0)
	for k, extents := range c.chunks {
		if extents != 0 {
			chunks |= 1 << uint(k)
		}
	}
	return chunks
}
