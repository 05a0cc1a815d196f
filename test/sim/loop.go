package sim

import (
	"container/heap"
	"math/rand/v2"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Virtual durations in nanoseconds.
const (
	microsecond = int64(1000)
	millisecond = 1000 * microsecond
	second      = 1000 * millisecond
)

// event is one thing that happens at a virtual instant. Events of the same
// instant happen in the order in which they were scheduled.
type event struct {
	at    block.Instant
	order uint64
	// process is whose event it is; nil for the world's own.
	process *process
	run     func()
	// index is the place in the heap, negative once popped or cancelled.
	index int
}

// process is one life of a daemon. Events of a dead process are dropped; those
// of a paused one wait until it goes on.
type process struct {
	dead   bool
	paused bool
	// gone says dead to goroutines that a library left behind.
	gone atomic.Bool
	held []*event
}

// loop is the only scheduler of a world: a priority queue on virtual time and
// the one source of randomness. Everything that happens, happens inside step.
type loop struct {
	now   block.Instant
	steps int
	order uint64
	queue eventQueue
	rng   *rand.Rand
	trace *trace
}

func newLoop(seed uint64, keep int) *loop {
	return &loop{
		// A machine that has been up for a while: instant zero means "never" to
		// nobody.
		now:   block.Instant(1000 * second),
		rng:   rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)),
		trace: newTrace(keep),
	}
}

// after schedules run for the process (nil: the world) in delay nanoseconds and
// returns what cancel takes.
func (l *loop) after(p *process, delay int64, run func()) *event {
	l.order++
	e := &event{at: l.now + block.Instant(max(delay, 0)), order: l.order, process: p, run: run}
	heap.Push(&l.queue, e)
	return e
}

// cancel takes an event back and reports whether it had not yet run.
func (l *loop) cancel(e *event) bool {
	if e == nil || e.run == nil {
		return false
	}
	e.run = nil
	if e.index >= 0 {
		heap.Remove(&l.queue, e.index)
	}
	return true
}

// step runs the next event; false when there is none.
func (l *loop) step() bool {
	for len(l.queue) > 0 {
		e, _ := heap.Pop(&l.queue).(*event)
		if e.at > l.now {
			l.now = e.at
		}
		switch {
		case e.process != nil && e.process.dead:
			continue
		case e.process != nil && e.process.paused:
			e.process.held = append(e.process.held, e)
			continue
		}
		l.steps++
		run := e.run
		e.run = nil
		run()
		return true
	}
	return false
}

// resume lets a paused process go on: what waited happens now, in its order.
func (l *loop) resume(p *process) {
	p.paused = false
	held := p.held
	p.held = nil
	for _, e := range held {
		if e.run == nil {
			continue
		}
		l.order++
		e.at, e.order = l.now, l.order
		heap.Push(&l.queue, e)
	}
}

// chance is true with the probability of percent.
func (l *loop) chance(percent int) bool { return l.rng.IntN(100) < percent }

// between draws a duration from [low, high).
func (l *loop) between(low, high int64) int64 {
	if high <= low {
		return low
	}
	return low + l.rng.Int64N(high-low)
}

// id fills an ID from the loop's randomness.
func (l *loop) id() block.ID {
	var id block.ID
	for i := range id {
		id[i] = byte(l.rng.Uint32())
	}
	return id
}

// eventQueue implements heap.Interface.
type eventQueue []*event

func (q eventQueue) Len() int { return len(q) }

func (q eventQueue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].order < q[j].order
}

func (q eventQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *eventQueue) Push(x any) {
	e, _ := x.(*event)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop implements heap.Interface.
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.index = -1
	return e
}
