package core

import (
	"slices"
	"testing"
)

func TestSet(t *testing.T) {
	s := bit(0) | bit(5) | bit(maxReplicas-1)
	if !s.has(0) || s.has(1) || !s.has(5) || !s.has(63) {
		t.Errorf("set %x", s)
	}
	if s.count() != 3 || s.first() != 0 || (s&^bit(0)).first() != 5 {
		t.Errorf("set %x: %d, first %d", s, s.count(), s.first())
	}
	if got := slices.Collect(s.all()); !slices.Equal(got, []int{0, 5, 63}) {
		t.Errorf("all: %v", got)
	}
	for range set(0).all() {
		t.Error("the empty set has an element")
	}
	for i := range s.all() {
		if i > 0 {
			t.Error("the walk goes on after a break")
		}
		break
	}
}
