package store

import "encoding/binary"

// touched are parts of the allocation map: pages, and split extents.
type touched struct {
	pages bitset
	split []uint32
}

func (t *touched) add(areas []area) {
	for _, a := range areas {
		t.pages.add(allocationPage(a.extent))
		if a.blocks != 0 {
			t.split = append(t.split, a.extent)
		}
	}
}

// putAllocation stores the given pages of the allocation map as they are when
// this commit is durable. The extents it frees stay taken until then, and so do
// those that only a later commit will name.
func (s *Store) putAllocation(c *commit, parts touched) {
	var cleared []area
	switch {
	case c.round:
		cleared = append(cleared, s.round.clear...)
	case s.round != nil:
		cleared = append(cleared, s.round.set...)
	}
	if c.deletion != nil {
		cleared = append(cleared, c.deletion.areas...)
	}
	for _, a := range cleared {
		s.space.hide(a)
	}
	for i, w := range parts.pages {
		for bit := range 64 {
			if w&(1<<bit) == 0 {
				continue
			}
			page := uint32(i*64 + bit)
			s.keyBuffer = allocationKey(s.keyBuffer[:0], page)
			s.valueBuffer = s.space.appendAllocationPage(s.valueBuffer[:0], page)
			s.put(c.batch.Set(s.keyBuffer, s.valueBuffer, nil))
		}
	}
	for _, n := range parts.split {
		s.keyBuffer = splitKey(s.keyBuffer[:0], n)
		if mask := s.space.blocks(n).durable; mask != 0 {
			s.valueBuffer = binary.LittleEndian.AppendUint16(s.valueBuffer[:0], mask)
			s.put(c.batch.Set(s.keyBuffer, s.valueBuffer, nil))
		} else {
			s.put(c.batch.Delete(s.keyBuffer, nil))
		}
	}
	for _, a := range cleared {
		s.space.show(a)
	}
}
