package store

import "slices"

// claim is an area that a replica had.
type claim struct {
	replica *Replica
	area    area
}

// held is an area that memory does not name any more, and that a killed process would
// find named by its journal until that has the record with the number seq.
type held struct {
	seq  uint64
	area area
}

// freePlacement gives back what p named until now, which the record that comes next
// (note) says. What the database names is free when a flush round has taken it out there.
func (s *Store) freePlacement(r *Replica, p placement) { s.freeAfter(r, p, s.journal.seq+1) }

// freeAfter gives back what p named, once the journal has a record: until then whoever
// gets it would write over what a replay gives to its old owner.
func (s *Store) freeAfter(r *Replica, p placement, seq uint64) {
	for a := range p.areas {
		if d, some := s.space.durablePart(a); some && (s.round == nil || !slices.Contains(s.round.emptied, d)) {
			s.freed = append(s.freed, claim{replica: r, area: d})
		}
		if seq <= s.journal.written {
			s.space.unuseArea(a)
		} else {
			s.held = append(s.held, held{seq: seq, area: a})
		}
	}
}

// letGo gives back what was held for records that are written.
func (s *Store) letGo() {
	kept := s.held[:0]
	for _, h := range s.held {
		if h.seq <= s.journal.written {
			s.space.unuseArea(h.area)
		} else {
			kept = append(kept, h)
		}
	}
	if len(kept) < len(s.held) {
		s.held = kept
		s.wakeSpace()
	}
}
