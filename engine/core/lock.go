package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// lockOwner names who holds or wants a range: a request by its slot, a job by
// -1 minus its slot.
type lockOwner int32

func requestOwner(i int) lockOwner { return lockOwner(i) }
func jobOwner(i int) lockOwner     { return lockOwner(-1 - i) }

// lockTable serialises overlapping work. Writes, zeroes and
// repairs are exclusive, reads shared. It is first come, first served: a range
// is granted when no earlier entry that conflicts is left, held or waiting, so
// that nobody starves.
//
// Entries are kept in the order of their arrival. Their number is bounded by the
// slots of requests and jobs, and every scan is over one compact slice.
type lockTable struct {
	entries []lockEntry
	next    uint64
}

type lockEntry struct {
	span      block.Span
	ticket    uint64
	owner     lockOwner
	exclusive bool
	granted   bool
}

// conflicts reports whether one of two entries must wait for the other.
//
// Rule 11 (one order): requests overlap if they touch the same 4 KiB block (spans
// here are whole blocks), and what overlaps goes one after the other, in the order
// of arrival: so it is applied in one order on all replicas.
func (e *lockEntry) conflicts(f *lockEntry) bool {
	return !e.mayShare(f) && e.span.Overlaps(f.span)
}

// mayShare reports whether two entries do not care about each other wherever they
// are.
//
// Rule 13 (reads wait): reads share a range with reads only. A read that overlaps a
// write in flight waits for its end, and what it returns is on every member.
func (e *lockEntry) mayShare(f *lockEntry) bool { return !e.exclusive && !f.exclusive }

// acquire asks for a range, which is widened to whole blocks, and reports
// whether it is granted at once.
func (t *lockTable) acquire(span block.Span, exclusive bool, owner lockOwner) (ticket uint64, granted bool) {
	t.next++
	e := lockEntry{span: span.Blocks(), ticket: t.next, owner: owner, exclusive: exclusive}
	e.granted = t.free(&e, len(t.entries))
	t.entries = append(t.entries, e)
	return e.ticket, e.granted
}

// free reports whether none of the first n entries conflicts with e.
func (t *lockTable) free(e *lockEntry, n int) bool {
	for i := range n {
		if t.entries[i].conflicts(e) {
			return false
		}
	}
	return true
}

// release gives a range back, held or not, and appends the owners of those that
// are granted by it to grants.
func (t *lockTable) release(ticket uint64, grants []lockOwner) []lockOwner {
	at := -1
	for i := range t.entries {
		if t.entries[i].ticket == ticket {
			at = i
			break
		}
	}
	invariant.Assert(at >= 0, "release of a lock that nobody has")
	gone := t.entries[at]
	t.entries = append(t.entries[:at], t.entries[at+1:]...)
	for i := at; i < len(t.entries); i++ {
		e := &t.entries[i]
		if e.granted || !e.conflicts(&gone) || !t.free(e, i) {
			continue
		}
		e.granted = true
		grants = append(grants, e.owner)
	}
	return grants
}

// idle reports whether nobody holds or wants any of a span.
func (t *lockTable) idle(span block.Span) bool {
	e := lockEntry{span: span.Blocks(), exclusive: true}
	return t.free(&e, len(t.entries))
}

// held reports whether the ticket is granted; for assertions.
func (t *lockTable) held(ticket uint64) bool {
	for i := range t.entries {
		if t.entries[i].ticket == ticket {
			return t.entries[i].granted
		}
	}
	return false
}
