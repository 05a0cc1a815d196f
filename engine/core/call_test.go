package core

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// order is what the list through the slots says, looked at from both ends.
func (t *callTable) order(test *testing.T) []uint64 {
	var forward, back []uint64
	for at := t.head; at != 0; at = t.slots[at-1].next {
		forward = append(forward, t.slots[at-1].req.Seq)
	}
	for at := t.tail; at != 0; at = t.slots[at-1].prev {
		back = append(back, t.slots[at-1].req.Seq)
	}
	slices.Reverse(back)
	if !slices.Equal(forward, back) {
		test.Fatalf("forward %v, back %v", forward, back)
	}
	return forward
}

// Calls are found by their sequence number, kept in the order of creation, and
// never mistaken for a later one in the same slot (rule 29).
func TestCallsAgainstNaiveReference(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 3))
		var table callTable
		var live, gone []uint64
		for range 200 {
			switch {
			case len(live) < 2 || random.IntN(2) == 0 && len(live) < 30:
				at := table.add(purpose(random.IntN(6)), 7, 9, block.Request{Op: block.OpRead})
				live = append(live, table.slots[at].req.Seq)
			case random.IntN(20) == 0:
				table.unsend()
				if table.unsent != len(live) {
					t.Fatalf("%d unsent, want %d", table.unsent, len(live))
				}
			default:
				i := random.IntN(len(live))
				at := table.find(live[i])
				if at < 0 {
					t.Fatalf("seed %d: call %x is not found", seed, live[i])
				}
				if e := table.remove(at); e.req.Seq != live[i] || e.index != 7 || e.stamp != 9 {
					t.Fatalf("seed %d: call %x removed for %x", seed, e.req.Seq, live[i])
				}
				gone = append(gone, live[i])
				live = slices.Delete(live, i, i+1)
			}
			if table.active != len(live) || !slices.Equal(table.order(t), live) {
				t.Fatalf("seed %d: order %v, want %v", seed, table.order(t), live)
			}
			if len(gone) > 0 && table.find(gone[random.IntN(len(gone))]) >= 0 {
				t.Fatalf("seed %d: a call that has ended is found", seed)
			}
		}
		if len(table.slots) > 30 {
			t.Errorf("seed %d: %d slots for at most 30 calls", seed, len(table.slots))
		}
		table.clear()
		if table.active != 0 || table.unsent != 0 || table.writes != 0 || table.head != 0 || table.tail != 0 {
			t.Errorf("seed %d: cleared table %+v", seed, table)
		}
	}
}

// The number of an OpOpen is no call's.
func TestCallIsNeverFoundByTheNumberOfAnOpen(t *testing.T) {
	var table callTable
	table.add(forRead, 0, 0, block.Request{})
	if table.find(table.count<<slotBits|(1<<slotBits-1)) >= 0 {
		t.Error("found a call")
	}
}

// Each call holds one reference of its buffer.
func TestCallHoldsItsBuffer(t *testing.T) {
	var buffers ledger
	var table callTable
	at := table.add(forWrite, 0, 0, block.Request{Buf: buffers.take(4096)})
	table.add(forWrite, 0, 0, block.Request{Buf: buffers.take(4096)})
	if e := table.remove(at); e.req.Buf != nil || buffers.held() != 1 || table.writes != 1 {
		t.Errorf("%d buffers held, %d writes", buffers.held(), table.writes)
	}
	table.clear()
	if buffers.held() != 0 {
		t.Errorf("%d buffers held", buffers.held())
	}
}
