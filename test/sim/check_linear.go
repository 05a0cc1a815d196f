package sim

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/holdfast-io/holdfast/engine/core"
)

// configurationsMax bounds the work on one sector; past it the sector is judged
// no more, and the run reports how many sectors that happened to.
const configurationsMax = 4096

// register judges the linearizability of one sector, exactly: it keeps every
// state that the sector may be in after some legal order of what happened. A
// read that no state allows, or a write acknowledged in none, is a violation.
//
// A write may take effect from its invocation on, and, when its outcome is not
// known, until the next engine serves: by then the replicas' doors have shut out
// the older engine (rule 4), and what it did has either happened or never will.
type register struct {
	number  uint64
	history *history
	states  []possibility
	// slots are the operations that a state's bits stand for.
	slots [64]slot
	used  uint64
	queue []mark
	durable
	gaveUp bool
	// violated: it gave up because it found something.
	violated bool
	past     past
}

// possibility is one possibility: the write whose bytes the sector holds (nil: never
// written), and which of the open operations have taken effect.
type possibility struct {
	write *operation
	done  uint64
}

type slot struct {
	op *operation
	// frozen: it cannot take effect any more.
	frozen bool
}

func newRegister(number uint64, h *history) *register {
	return &register{number: number, history: h, states: []possibility{{}}, durable: newDurable()}
}

func (s possibility) shown() value {
	if s.write == nil {
		return 0
	}
	return s.write.shown()
}

// add appends a mark and judges everything that has become decidable.
func (r *register) add(m mark) {
	if !r.violated {
		r.past.note(m)
	}
	r.queue = append(r.queue, m)
	r.run()
}

// run judges everything that is decidable.
func (r *register) run() {
	for len(r.queue) > 0 && !r.gaveUp {
		head := r.queue[0]
		if head.kind == markInvoke && head.op.kind == core.ReadRequest && head.op.outcome == pending {
			return
		}
		r.queue = r.queue[1:]
		r.judge(head)
	}
	r.queue = nil
}

func (r *register) judge(m mark) {
	switch m.kind {
	case markInvoke:
		r.invoked(m.op)
	case markEnd:
		r.ended(m.op)
	case markServe:
		for i := range r.open() {
			if r.slots[i].op.writes() && r.slots[i].op.epoch < m.epoch {
				r.slots[i].frozen = true
				if r.slots[i].op.outcome == unsettled {
					r.free(i)
				}
			}
		}
	case markReset:
		r.reset()
	}
}

func (r *register) invoked(op *operation) {
	switch {
	case op.kind == core.FlushRequest:
		r.flushBegins(op, r.states)
	case op.kind == core.ReadRequest:
		if op.outcome == succeeded && op.judges(r.number) {
			r.take(op)
			r.close()
		}
	default:
		r.writeBegins(op, r)
		if r.take(op) {
			r.close()
		}
	}
}

func (r *register) ended(op *operation) {
	if op.kind == core.FlushRequest {
		r.flushEnds(op)
		return
	}
	if op.fua {
		defer r.flushEnds(op)
	}
	i := r.find(op)
	if i < 0 {
		return
	}
	if op.outcome == unsettled {
		if r.slots[i].frozen {
			r.free(i)
		}
		return
	}
	kept := r.states[:0:0]
	for _, s := range r.states {
		if s.done>>i&1 == 1 {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		r.impossible(op)
		return
	}
	r.states = kept
	r.free(i)
	if op.kind == core.ReadRequest {
		r.lost = false
	}
}

// impossible reports op and stops judging the sector.
func (r *register) impossible(op *operation) {
	r.gaveUp, r.violated = true, true
	checker := "linearizable"
	if r.lost {
		checker = "flushed-data"
	}
	text := fmt.Sprintf("sector %d: %v cannot be: possible are %s", r.number, op, r.describe())
	if op.kind == core.ReadRequest {
		text = fmt.Sprintf("sector %d: %v returned %d, possible are %s", r.number, op, op.readAt(r.number), r.describe())
	}
	r.history.fail(checker, text)
}

// close makes the states complete: every open write that may take effect, in
// every order. An open read takes effect as soon as a state shows what it
// returned, for waiting can only lose it.
func (r *register) close() {
	seen := make(map[possibility]bool, len(r.states))
	work := r.states
	r.states = r.states[:0:0]
	for len(work) > 0 {
		s := r.reads(work[len(work)-1])
		work = work[:len(work)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		r.states = append(r.states, s)
		if len(r.states) > configurationsMax {
			r.gaveUp = true
			return
		}
		for i := range r.open() {
			sl := r.slots[i]
			if sl.op.writes() && !sl.frozen && s.done>>i&1 == 0 {
				work = append(work, possibility{write: sl.op, done: s.done | 1<<i})
			}
		}
	}
}

func (r *register) reads(s possibility) possibility {
	for i := range r.open() {
		if op := r.slots[i].op; op.kind == core.ReadRequest && op.readAt(r.number) == s.shown() {
			s.done |= 1 << i
		}
	}
	return s
}

// take gives op a slot; false when there is none left.
func (r *register) take(op *operation) bool {
	i := bits.TrailingZeros64(^r.used)
	if i == 64 {
		r.gaveUp = true
		return false
	}
	r.used |= 1 << i
	r.slots[i] = slot{op: op}
	return true
}

func (r *register) find(op *operation) int {
	for i := range r.open() {
		if r.slots[i].op == op {
			return i
		}
	}
	return -1
}

// free forgets a slot, and so which states it had taken effect in.
func (r *register) free(i int) {
	r.used &^= 1 << i
	r.slots[i] = slot{}
	seen := make(map[possibility]bool, len(r.states))
	kept := r.states[:0]
	for _, s := range r.states {
		s.done &^= 1 << i
		if !seen[s] {
			seen[s] = true
			kept = append(kept, s)
		}
	}
	r.states = kept
}

// open yields the slots in use.
func (r *register) open() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for w := r.used; w != 0; w &= w - 1 {
			if !yield(bits.TrailingZeros64(w)) {
				return
			}
		}
	}
}

// possible lists the values the sector may hold.
func (r *register) possible() []value {
	var out []value
	for _, s := range r.states {
		if !slices.Contains(out, s.shown()) {
			out = append(out, s.shown())
		}
	}
	slices.Sort(out)
	return out
}

func (r *register) describe() string { return fmt.Sprint(r.possible()) }
