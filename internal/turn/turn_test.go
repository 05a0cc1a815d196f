package turn_test

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/turn"
)

// ender counts its calls and may defer another.
type ender struct {
	called int
	turn   *turn.Turn
	next   *ender
}

func (e *ender) EndTurn(*turn.Turn) {
	e.called++
	if next := e.next; next != nil {
		e.next = nil
		e.turn.Defer(next)
	}
}

func TestTurnEndsEachOnce(t *testing.T) {
	t.Parallel()
	var own turn.Turn
	first, second := &ender{}, &ender{}
	for range 3 {
		own.Defer(first)
		own.Defer(second)
	}
	if first.called+second.called != 0 {
		t.Fatal("called before the end")
	}
	own.End()
	own.End()
	if first.called != 1 || second.called != 1 {
		t.Fatalf("called %d and %d times, want once each", first.called, second.called)
	}
}

// TestTurnEndsWhatEndingDefers: also what has been ended in this turn.
func TestTurnEndsWhatEndingDefers(t *testing.T) {
	t.Parallel()
	var own turn.Turn
	again := &ender{}
	other := &ender{turn: &own, next: again}
	own.Defer(again)
	own.Defer(other)
	own.End()
	if again.called != 2 {
		t.Fatalf("called %d times, want 2", again.called)
	}
}

func TestNoTurnDefersNothing(t *testing.T) {
	t.Parallel()
	var none *turn.Turn
	e := &ender{}
	none.Defer(e)
	if e.called != 1 {
		t.Fatalf("called %d times, want once", e.called)
	}
}

func TestTurnAllocatesNothing(t *testing.T) {
	var own turn.Turn
	e := &ender{}
	if n := testing.AllocsPerRun(100, func() { own.Defer(e); own.End() }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
