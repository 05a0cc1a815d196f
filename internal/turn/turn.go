// Package turn lets many small steps of one goroutine share what is cheaper done once,
// and keeps what serves one volume on one thread.
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
//
// Some turns are of a Loop: a thread that waits for many things at once, as that of a
// disk does. A connection whose work ends in such turns has its Reader move there, so
// that no other thread is woken for what arrives.
package turn

import "slices"

// Turn is a number of steps of one goroutine. The zero Turn has none yet.
type Turn struct {
	enders []Ender
	loop   Loop
}

// Ender is what can be left to the end of a turn.
type Ender interface {
	// EndTurn does at once what was put off, in a turn of the caller, nil or the one
	// that ends. It is called without locks, and finds nothing to do if somebody else
	// was faster.
	EndTurn(t *Turn)
}

// Of makes a turn of a loop.
func Of(loop Loop) Turn { return Turn{loop: loop} }

// Loop is the loop whose turn it is, nil for none.
func (t *Turn) Loop() Loop {
	if t == nil {
		return nil
	}
	return t.loop
}

// Defer has e called at the end of the turn, once; at once if t is nil.
func (t *Turn) Defer(e Ender) {
	switch {
	case t == nil:
		e.EndTurn(nil)
	case !slices.Contains(t.enders, e):
		t.enders = append(t.enders, e)
	}
}

// End ends the turn: all that was deferred is done, and what is deferred by that. The
// next turn may begin.
func (t *Turn) End() {
	for i := 0; i < len(t.enders); i++ {
		if e := t.enders[i]; e != nil {
			t.enders[i] = nil
			e.EndTurn(t)
		}
	}
	t.enders = t.enders[:0]
}
