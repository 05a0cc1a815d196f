// The race detector makes sync.Pool drop what it is given at random, which
// counts as allocations.

//go:build !race

package core

import (
	"fmt"
	"testing"
)

// TestAllocations holds the hot path: no allocation for a read or a write once
// the tables have grown. A flush has a list of confirmations of its own, because
// links may hold it for long.
func TestAllocations(t *testing.T) {
	for _, c := range []struct {
		name      string
		kind      RequestKind
		snapshots int
		max       float64
	}{
		{"write", WriteRequest, 0, 0},
		{"read", ReadRequest, 0, 0},
		{"zero", ZeroRequest, 0, 0},
		{"flush", FlushRequest, 0, 1},
		{"write of a volume with snapshots", WriteRequest, 250, 0},
		{"flush of a volume with snapshots", FlushRequest, 250, 1},
	} {
		for _, members := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/replicas=%d", c.name, members), func(t *testing.T) {
				s := newBench(t, members, c.snapshots)
				for range 2048 {
					s.run(c.kind)
				}
				done := s.done
				got := testing.AllocsPerRun(1000, func() { s.run(c.kind) })
				if s.done <= done {
					t.Fatal("nothing was completed")
				}
				if got > c.max {
					t.Errorf("%v allocations, at most %v", got, c.max)
				}
			})
		}
	}
}
