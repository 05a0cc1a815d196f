package core

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestLockSharedAndExclusive(t *testing.T) {
	var l lockTable
	span := block.Span{Offset: 8192, Length: 4096}
	first, granted := l.acquire(span, false, 1)
	if !granted {
		t.Fatal("a free range was not granted")
	}
	second, granted := l.acquire(span, false, 2)
	if !granted {
		t.Fatal("a shared range was not shared")
	}
	third, granted := l.acquire(span, true, 3)
	if granted || l.held(third) {
		t.Fatal("a shared range was granted exclusively")
	}
	if _, granted := l.acquire(span, false, 4); granted {
		t.Fatal("a reader passed a writer that waits")
	}
	if g := l.release(first, nil); len(g) != 0 {
		t.Fatalf("granted %v", g)
	}
	if g := l.release(second, nil); !slices.Equal(g, []lockOwner{3}) || !l.held(third) {
		t.Fatalf("granted %v, want the writer", g)
	}
	if g := l.release(third, nil); !slices.Equal(g, []lockOwner{4}) {
		t.Fatalf("granted %v, want the last reader", g)
	}
}

// Ranges are widened to blocks: requests overlap when they touch the same one.
func TestLockIsByBlock(t *testing.T) {
	var l lockTable
	l.acquire(block.Span{Offset: 512, Length: 512}, true, 1)
	if _, granted := l.acquire(block.Span{Offset: 3584, Length: 512}, true, 2); granted {
		t.Error("two writers in one block")
	}
	if _, granted := l.acquire(block.Span{Offset: 4096, Length: 512}, true, 3); !granted {
		t.Error("the next block was not granted")
	}
}

// One that waits may give up; those behind it go on.
func TestLockOfOneThatWaitsIsReleased(t *testing.T) {
	var l lockTable
	span := block.Span{Length: 4096}
	l.acquire(span, false, 1)
	waiting, _ := l.acquire(span, true, 2)
	l.acquire(span, false, 3)
	if g := l.release(waiting, nil); !slices.Equal(g, []lockOwner{3}) {
		t.Errorf("granted %v, want the reader behind", g)
	}
}

// The owners of requests and jobs never meet.
func TestLockOwners(t *testing.T) {
	for i := range 100 {
		if requestOwner(i) < 0 || jobOwner(i) >= 0 || int(-1-jobOwner(i)) != i {
			t.Fatalf("owners of slot %d: %d and %d", i, requestOwner(i), jobOwner(i))
		}
	}
}

// naiveLocks says the same in the plainest way: a set of blocks for each entry,
// and a range is held if no earlier entry shares a block with it, unless both
// only read.
type naiveLocks struct {
	entries []naiveLock
}

type naiveLock struct {
	ticket    uint64
	owner     lockOwner
	exclusive bool
	blocks    map[int64]bool
	held      bool
}

func (l *naiveLocks) settle() []lockOwner {
	var granted []lockOwner
	for i := range l.entries {
		e := &l.entries[i]
		free := true
		for _, f := range l.entries[:i] {
			for b := range f.blocks {
				free = free && !(e.blocks[b] && (e.exclusive || f.exclusive))
			}
		}
		if free && !e.held {
			e.held = true
			granted = append(granted, e.owner)
		}
	}
	return granted
}

func TestLockAgainstNaiveReference(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var l lockTable
		var naive naiveLocks
		for n := range 120 {
			if len(naive.entries) > 0 && (random.IntN(2) == 0 || len(naive.entries) > 20) {
				i := random.IntN(len(naive.entries))
				got := l.release(naive.entries[i].ticket, nil)
				naive.entries = slices.Delete(naive.entries, i, i+1)
				if want := naive.settle(); !slices.Equal(got, want) {
					t.Fatalf("seed %d, step %d: released %v, want %v", seed, n, got, want)
				}
				continue
			}
			span := block.Span{Offset: 512 * random.Int64N(64), Length: 512 * (1 + random.Int64N(24))}
			exclusive := random.IntN(2) == 0
			ticket, granted := l.acquire(span, exclusive, lockOwner(n))
			e := naiveLock{ticket: ticket, owner: lockOwner(n), exclusive: exclusive, blocks: map[int64]bool{}}
			for b := range blocksOf(span) {
				e.blocks[b] = true
			}
			naive.entries = append(naive.entries, e)
			if want := len(naive.settle()) == 1; granted != want || l.held(ticket) != want {
				t.Fatalf("seed %d, step %d: granted %v, want %v", seed, n, granted, want)
			}
		}
	}
}
