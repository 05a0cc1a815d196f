package core

import (
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// retireScene has A to be replaced by C, which is in the view and not in sync yet.
func retireScene(t *testing.T, sc scene) *script {
	sc.members, sc.size = "A B", 32*mib
	s := beginServing(t, sc)
	s.step(Event{Kind: EventRetire, Replica: replicaID(0), Successor: replicaID(2)})
	s.expectNone("propose")
	s.add()
	return s
}

// untilProposed answers everything, and lets time go by, until a proposal is made.
func (s *script) untilProposed(want string) {
	s.t.Helper()
	for n := 0; len(s.proposals) == 0; n++ {
		switch {
		case s.settleOnce():
		case n > 100_000:
			s.t.Fatalf("no %q", want)
		default:
			s.now = max(s.now, s.core.Deadline())
			s.step(Event{Kind: EventTick})
		}
	}
	s.expectAmong(want)
}

// landWithout commits the proposal as Raft does if the old replica leaves the view.
func (s *script) landWithout(i int) {
	s.t.Helper()
	p := s.land()
	s.view.Replicas = append(s.view.Replicas[:i:i], s.view.Replicas[i+1:]...)
	s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: block.Committed, View: s.view.Clone()})
}

// An old replica goes once the new one is in sync and not before, in one commit with
// its place in the view, while clients go on.
func TestRetirement(t *testing.T) {
	s := retireScene(t, scene{})
	s.untilProposed("propose admit C")
	s.expectNone("propose remove A")
	s.drop()
	s.commit()
	s.untilProposed("propose remove A")
	// Until the outcome is known it is a member like the others (rule 6).
	s.write(1, 'w', 0, 4*kib)
	s.answer("B C")
	s.expectNone("done 1")
	s.answer("A")
	s.expectAmong("done 1")
	s.expectNone("frozen")
	s.drop()
	s.landWithout(0)
	s.settle()
	s.expectAmong("A: close", "lost A: attachment ended", "B: store view 23 drop A", "C: store view 23 drop A")
	s.read(2, 0, 4*kib)
	s.settle()
	s.expectAmong("done 2 'w'")
}

// It stays while another member is failing, so that the in-sync set is not smaller than
// it was.
func TestRetirementWaitsForTheOthers(t *testing.T) {
	s := retireScene(t, scene{})
	s.untilProposed("propose admit C")
	s.drop()
	p := s.land()
	s.lose("B")
	s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: block.Committed, View: s.view.Clone()})
	s.untilProposed("propose remove B")
	s.expectNone("propose remove A")
	s.drop()
	s.commit()
	s.untilProposed("propose remove A")
}

// It stays while too few would be left to acknowledge a write.
func TestRetirementKeepsTheMinimum(t *testing.T) {
	s := retireScene(t, scene{config: func(c *Config) { c.MinInSync = 2 }})
	s.untilProposed("propose admit C")
	s.commit()
	s.lose("B")
	s.silent |= bit(1)
	s.untilProposed("propose remove B")
	s.drop()
	s.commit()
	s.settle()
	s.expectNone("propose remove A")
	s.silent = 0
	s.untilProposed("propose admit B waited out")
	s.drop()
	s.commit()
	s.untilProposed("propose remove A")
}

// What is not wanted any more is not proposed.
func TestRetirementIsTakenBack(t *testing.T) {
	s := retireScene(t, scene{})
	s.untilProposed("propose admit C")
	s.step(Event{Kind: EventRetire})
	s.drop()
	s.commit()
	s.settle()
	s.expectNone("propose")
}

// An engine that has seen as many replicas as it has room for ends, for the next one to
// begin with those that are there.
func TestTooManyReplicasInOneEpoch(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	for n := 2; !s.stopped; n++ {
		if n > maxReplicas {
			t.Fatal("it goes on")
		}
		s.view = s.view.Clone()
		s.view.Revision++
		s.view.Replicas = append(s.view.Replicas[:2:2], block.Member{ID: replicaID(n), Node: nodeID(n)})
		s.step(Event{Kind: EventView, View: s.view.Clone()})
		s.lines = s.lines[len(s.lines)-1:]
	}
	if s.lines[0] != "stopped: unavailable" || errors.Is(errRetired, block.ErrUnavailable) {
		t.Fatalf("%q", s.lines)
	}
}
