package store

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// maxFindings bounds what one Check reports.
const maxFindings = 20

// checker compares the maps, in the database and in memory, with the allocation
// sets and with what has to be true of them.
type checker struct {
	handles map[handle]*Replica
	// chains are the states of each extent by layer, the head under headLayer.
	chains map[recoveredKey]map[uint32]*entryState
	// index are the layers in which an extent changed.
	index    map[recoveredKey][]uint32
	findings []error
}

func (c *checker) found(format string, args ...any) {
	if len(c.findings) < maxFindings {
		c.findings = append(c.findings, fmt.Errorf(format+": %w", append(args, block.ErrCorrupt)...))
	}
}

// Check verifies that each extent and block in use belongs to exactly one extent of
// one replica and that none is lost, that every state is one that a cut or a head
// needs, and that the index of changes is complete. It reads every map and needs a
// store on which nothing is going on, else it fails with block.ErrUnavailable.
// Damage is block.ErrCorrupt.
func (s *Store) Check() error {
	c := &checker{handles: map[handle]*Replica{}, chains: map[recoveredKey]map[uint32]*entryState{}, index: map[recoveredKey][]uint32{}}
	s.mu.Lock()
	busy := s.inFlight > 0 || s.jobs > 0 || s.round != nil || len(s.deletions) > 0 || s.pruning != nil
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
	err := scan(s.db, []byte{keyMap}, []byte{keyMap + 1}, func(key, value []byte) error {
		h, extent, err := splitMapKey(key)
		c.add(key, value, keptKey{recoveredKey{handle: h, extent: extent}, headLayer}, err)
		return nil
	})
	if err == nil {
		err = scan(s.db, []byte{keyUndo}, []byte{keyUndo + 1}, func(key, value []byte) error {
			h, extent, layer, err := splitUndoKey(key)
			c.add(key, value, keptKey{recoveredKey{handle: h, extent: extent}, layer}, err)
			return nil
		})
	}
	if err != nil {
		return err
	}
	return scan(s.db, []byte{keyChange}, []byte{keyChange + 1}, func(key, _ []byte) error {
		layer, extent, err := splitChangeKey(key)
		if err != nil {
			c.found("change key %x: %w", key, err)
			return nil
		}
		at := recoveredKey{handle: handleIn(key), extent: extent}
		if c.handles[at.handle] == nil {
			c.found("change key %x belongs to no replica", key)
			return nil
		}
		c.index[at] = append(c.index[at], layer)
		return nil
	})
}

// keptKey is where a state stands.
type keptKey struct {
	recoveredKey
	layer uint32
}

func (c *checker) add(key, value []byte, at keptKey, err error) {
	e := new(entryState)
	if err == nil {
		err = decodeEntry(value, e)
	}
	if err != nil {
		c.found("map key %x: %w", key, err)
		return
	}
	if r := c.handles[at.handle]; r == nil || int64(at.extent)*block.ExtentSize >= r.record.size {
		c.found("map key %x belongs to no replica", key)
		return
	}
	c.set(at, e)
}

func (c *checker) set(at keptKey, e *entryState) {
	chain := c.chains[at.recoveredKey]
	if chain == nil {
		chain = map[uint32]*entryState{}
		c.chains[at.recoveredKey] = chain
	}
	if e == nil {
		delete(chain, at.layer)
	} else {
		chain[at.layer] = e
	}
}

// keys are the extents with states, in order.
func (c *checker) keys() []recoveredKey {
	return slices.SortedFunc(maps.Keys(c.chains), func(a, b recoveredKey) int {
		if a.handle != b.handle {
			return int(a.handle) - int(b.handle)
		}
		return int(int64(a.extent) - int64(b.extent))
	})
}

// sorted is a chain, oldest first, the head last.
func sorted(chain map[uint32]*entryState) (list []keptState) {
	for _, layer := range slices.Sorted(maps.Keys(chain)) {
		if layer != headLayer {
			list = append(list, keptState{layer: layer, state: chain[layer]})
		}
	}
	if head := chain[headLayer]; head != nil {
		list = append(list, keptState{state: head})
	}
	return list
}

// checkStored compares the maps in the database with the durable set.
func (s *Store) checkStored(c *checker) {
	counts := s.checkAreas(c, "allocation map", s.space.durable, func(e splitExtent) uint16 { return e.durable })
	for _, r := range s.replicas {
		if n := counts[r.record.handle]; n != r.blocks {
			c.found("replica %s has %d blocks, its count says %d", r.id, n, r.blocks)
		}
	}
	for _, key := range c.keys() {
		c.checkChain(key)
	}
}

// checkMemory compares the maps as they are now with the used set.
func (s *Store) checkMemory(c *checker) {
	for _, r := range s.replicas {
		for number, p := range r.pages {
			for i := range p.entries {
				e := &p.entries[i]
				at := recoveredKey{handle: r.record.handle, extent: number*pageExtents + uint32(i)}
				c.set(keptKey{at, headLayer}, r.stored(&e.entryState))
				for u := e.undo; u != nil; u = u.next {
					c.set(keptKey{at, u.layer}, u.state)
				}
			}
		}
	}
	s.checkAreas(c, "extents in use", s.space.used, func(e splitExtent) uint16 { return e.used })
	free, slots, freeing := int64(s.space.end)-firstExtent, int64(0), int64(0)
	for n := uint32(firstExtent); n < s.space.end; n++ {
		used, durable, blocks := s.space.used.has(n), s.space.durable.has(n), s.space.blocks(n)
		slots += blocks.free()
		freeing += int64(bits.OnesCount16(blocks.durable &^ blocks.used))
		if used || durable {
			free--
		}
		if durable && !used && blocks.taken() == 0 {
			freeing += block.BlocksPerExtent
		}
	}
	if free != s.space.free || slots != s.space.slots || freeing != s.space.freeing {
		c.found("%d extents and %d blocks free and %d being freed, the counts say %d, %d and %d",
			free, slots, freeing, s.space.free, s.space.slots, s.space.freeing)
	}
}

// checkAreas compares what the states name with one of the sets of the allocation,
// and counts the blocks of each replica.
func (s *Store) checkAreas(c *checker, what string, set bitset, of func(splitExtent) uint16) map[handle]int64 {
	whole, split := bitset{}, map[uint32]uint16{}
	var named bitset
	counts := map[handle]int64{}
	for _, key := range c.keys() {
		for _, a := range chainAreas(sorted(c.chains[key])) {
			switch {
			case a.extent < firstExtent || a.extent >= s.space.end:
				c.found("extent %d of replica number %d, extent %d, lies outside the file", a.extent, key.handle, key.extent)
				continue
			case whole.has(a.extent), a.blocks == 0 && named.has(a.extent), split[a.extent]&a.blocks != 0:
				c.found("extent %d, blocks %#x, of replica number %d, extent %d, belongs to two places in the %s", a.extent, a.blocks, key.handle, key.extent, what)
				continue
			}
			named.add(a.extent)
			if a.blocks == 0 {
				whole.add(a.extent)
			}
			split[a.extent] |= a.blocks
			counts[key.handle] += a.size()
		}
	}
	c.compare(what, named, set)
	for n := uint32(firstExtent); n < s.space.end; n++ {
		if marked := of(s.space.blocks(n)); marked != split[n] {
			c.found("blocks %#x of extent %d are in use, in the %s are %#x", split[n], n, what, marked)
		}
	}
	return counts
}

// checkChain looks at the states of one extent.
func (c *checker) checkChain(key recoveredKey) {
	r, chain := c.handles[key.handle], sorted(c.chains[key])
	place := fmt.Sprintf("replica %s, extent %d", r.id, key.extent)
	var before *keptState
	for i := range chain {
		k := &chain[i]
		top := k.layer
		if top == headLayer {
			top = r.durable.line.head
		} else if !r.durable.cutsIn(k.state.layer, top) {
			c.found("%s: no cut needs the state of layers %d to %d", place, k.state.layer, top)
		}
		if k.state.layer > top || before != nil && k.state.layer <= before.layer {
			c.found("%s: the state of layers %d to %d is out of order", place, k.state.layer, top)
		}
		c.checkOwner(place, k, before)
		c.checkForeign(place, r, key.extent, k.state)
		if k.state.layer > r.durable.oldest() {
			below, _ := r.durable.neighbours(k.state.layer)
			_, above := r.durable.neighbours(k.state.layer - 1)
			c.checkIndex(place, key, below, above)
		}
		if k.layer != headLayer {
			below := r.newestIn(0, k.layer)
			_, above := r.durable.neighbours(k.layer)
			c.checkIndex(place, key, below, above)
		}
		before = k
	}
}

// checkOwner wants a head to own what no kept state names, and a kept state to own
// nothing. A head that has not changed since the newest cut may say either.
func (c *checker) checkOwner(place string, k, before *keptState) {
	for p := range k.state.placements {
		shared := false
		if before != nil && p.slot() {
			shared = p.mask()&k.state.shared(before.state) != 0
		} else if before != nil {
			shared = before.state.names(p.extent())
		}
		switch {
		case p.owned() && (k.layer != headLayer || shared):
			c.found("%s: the state of layer %d owns %#x, which another state names", place, k.state.layer, uint64(p))
		case k.layer == headLayer && !p.owned() && !p.foreign() && !shared:
			c.found("%s: nobody owns %#x of the head", place, uint64(p))
		}
	}
}

// checkForeign wants what a clone shows to be what its origin has.
func (c *checker) checkForeign(place string, r *Replica, extent uint32, e *entryState) {
	mask := e.flagged(placementForeign)
	if mask == 0 {
		return
	}
	if r.origin == nil {
		c.found("%s: blocks %#x of another replica, without an origin", place, mask)
		return
	}
	shown := c.stateAt(r.origin, r.durable.line.originLayer, extent)
	if shown == nil || mask&^e.shared(shown) != 0 {
		c.found("%s: blocks %#x are not those of the origin", place, mask)
	}
}

// stateAt is the state of an extent at a cut.
func (c *checker) stateAt(r *Replica, layer, extent uint32) *entryState {
	for _, k := range sorted(c.chains[recoveredKey{handle: r.record.handle, extent: extent}]) {
		if k.state.layer <= layer && (k.layer >= layer || k.layer == headLayer) {
			return k.state
		}
	}
	if r.origin == nil {
		return nil
	}
	return c.stateAt(r.origin, r.durable.line.originLayer, extent)
}

// checkIndex wants a change between two cuts that follow each other to be in the
// index.
func (c *checker) checkIndex(place string, key recoveredKey, below, above uint32) {
	if !slices.ContainsFunc(c.index[key], func(l uint32) bool { return l > below && l <= above }) {
		c.found("%s: the change in layers %d to %d is not in the index", place, below+1, above)
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
