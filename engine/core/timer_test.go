package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestDeadlineIsNeverBehindTheLastTick(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	for range 100 {
		at := s.core.Deadline()
		if at <= s.now {
			t.Fatalf("deadline %d at instant %d", at, s.now)
		}
		s.now = at
		s.step(Event{Kind: EventTick})
	}
}

func TestDeadlineOfAStoppedCore(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.step(Event{Kind: EventAbort})
	if s.core.Deadline() != never {
		t.Error("a stopped core waits for something")
	}
}

func TestPingsGoOutAtTheirInterval(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.showPings = true
	s.pass(499 * time.Millisecond)
	s.expect()
	s.pass(time.Millisecond)
	s.expect("A: ping", "B: ping")
	s.answer("A")
	s.pass(500 * time.Millisecond)
	s.expect("A: ping") // one at a time
}

// While nobody uses the volume, pings are rare; who is asked for something is pinged as on
// a busy one from then on.
func TestPingsOfAnIdleVolumeAreRare(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.pass(time.Minute)
	s.showPings = true
	pings := 0
	for range 120 {
		s.pass(500 * time.Millisecond)
		for _, m := range []string{"A", "B"} {
			if len(s.waiting[s.index(m)]) > 0 {
				pings++
				s.answer(m)
			}
		}
		s.lines = nil
	}
	if pings < 11 || pings > 13 {
		t.Errorf("%d pings in a minute, want one of each member in ten seconds", pings)
	}
	s.showPings = false
	s.pass(3 * time.Second)
	s.silent = bit(1)
	s.write(1, 'w', 0, 4*kib)
	s.pass(3 * time.Second)
	s.expectAmong("propose remove B")
}

// A volume whose requests are all answered when pings are due is not idle all the same.
func TestPingsOfAVolumeThatIsHardlyUsed(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.pass(time.Minute)
	for tag := range uint64(20) {
		s.write(tag+1, 'w', 0, 4*kib)
		s.settle()
		s.pass(300 * time.Millisecond)
		// The first request hastens the next pings, and the others keep them up.
		if since := s.now - s.core.beatAt; tag > 1 && since > block.Instant(500*millisecond) {
			t.Fatalf("the last pings were sent %v ago", time.Duration(since))
		}
	}
	s.lines = nil
}

// A member that falls silent while nobody uses the volume is noticed all the same.
func TestSilenceOnAnIdleVolumeIsNoticed(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.pass(time.Minute)
	s.lines = nil
	s.silent = bit(1)
	s.pass(13 * time.Second)
	s.expectAmong("propose remove B")
}

// A read on an idle volume asks for its lease itself, and a member that does not answer is
// given up as soon as on a busy one.
func TestReadOnAnIdleVolume(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.pass(time.Minute + 3*time.Second)
	s.lines = nil
	s.silent = bit(1)
	s.read(1, 0, 4*kib)
	s.pass(3 * time.Second)
	s.expectAmong("propose remove B")
}

// Pings were not wanted for long, and are again: a member that is silent must be
// noticed at the deadline, not at the next tick that comes along.
func TestPingsGoOnAfterAPause(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.pass(time.Hour)
	s.silent = bit(0)
	s.write(1, 'w', 0, 4*kib)
	s.expect("A: write 'w' 0+4K")
	s.pass(8500 * time.Millisecond)
	s.expectAmong("A: close", "frozen: unavailable")
}

// Time never goes back, whatever the events say.
func TestTimeNeverGoesBack(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.core.Step(Event{Kind: EventTick, Now: s.now - block.Instant(second)})
	if s.core.now != s.now {
		t.Errorf("now is %d, want %d", s.core.now, s.now)
	}
}
