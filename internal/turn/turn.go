// Package turn lets many small steps of one goroutine share what is cheaper done once.
//
// A goroutine that reads twenty requests off a socket, or is told by the kernel that
// twelve operations of a disk have ended, takes a step for each: it puts a message
// into a queue, an event into an inbox. Each step makes something necessary that costs
// a system call or wakes a thread - the queue must be written, the inbox emptied - and
// that costs the same for one message as for all. So a step defers it to the end of
// the turn, and the goroutine ends its turn before it sleeps.
//
// A Turn belongs to one goroutine. Who is handed one uses it until it returns, and
// never keeps it. Nil stands for a goroutine that has none: then nothing is deferred.
package turn

import "slices"

// Turn is a number of steps of one goroutine. The zero Turn has none yet.
type Turn struct{ enders []Ender }

// Ender is what can be left to the end of a turn.
type Ender interface {
	// EndTurn does at once what was put off. It is called without locks, and finds
	// nothing to do if somebody else was faster.
	EndTurn()
}

// Defer has e called at the end of the turn, once; at once if t is nil.
func (t *Turn) Defer(e Ender) {
	switch {
	case t == nil:
		e.EndTurn()
	case !slices.Contains(t.enders, e):
		t.enders = append(t.enders, e)
	}
}

// End ends the turn: all that was deferred is done, and what is deferred by that. The
// next turn may begin.
func (t *Turn) End() {
	for i := 0; i < len(t.enders); i++ {
		e := t.enders[i]
		t.enders[i] = nil
		e.EndTurn()
	}
	t.enders = t.enders[:0]
}
