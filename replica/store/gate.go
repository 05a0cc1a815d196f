package store

// submitUpdate queues an Update. One that takes cuts waits until no write is under
// way, and holds back those that come. What began before belongs to the cut as a
// whole, window by window, and what is held back to the head.
func (s *Store) submitUpdate(t *task) {
	if takesCuts(t.op.Meta) {
		t.gate = true
		t.replica.gates++
		t.replica.cutting = append(t.replica.cutting, t)
		s.drained(t.replica)
		return
	}
	s.queueUpdate(t)
}

// drained goes on with the Updates that wait for the end of writes.
func (s *Store) drained(r *Replica) {
	if r.active > 0 || len(r.cutting) == 0 {
		return
	}
	waiting := r.cutting
	r.cutting = nil
	for _, t := range waiting {
		s.queueUpdate(t)
	}
}

// awaitGate reports whether t must wait for a cut to be taken.
func (s *Store) awaitGate(t *task) bool {
	if t.replica.gates == 0 {
		return false
	}
	t.replica.gated = append(t.replica.gated, t)
	return true
}

// openGate lets go what waits for a cut.
func (s *Store) openGate(r *Replica) {
	if r.gates--; r.gates > 0 {
		return
	}
	waiting := r.gated
	r.gated = nil
	for _, t := range waiting {
		s.makeReady(t)
	}
}
