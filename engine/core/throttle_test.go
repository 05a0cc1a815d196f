package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// gapMax is the bound in these tests.
const gapMax = 50 * millisecond

// drill lets requests of one duration end, a millisecond apart; alone: no job is at work.
func (t *throttle) drill(now *block.Instant, n int, took int64, alone bool) {
	for range n {
		t.working = !alone
		*now += block.Instant(millisecond)
		t.done(*now, *now-block.Instant(took))
	}
}

// The estimate is what one of a hundred exceeds.
func TestThrottleLearnsWhatIsUsual(t *testing.T) {
	now := block.Instant(second)
	throttle := throttle{}
	for range 2000 {
		throttle.drill(&now, 97, millisecond, true)
		throttle.drill(&now, 3, 3*millisecond, true)
	}
	if got := throttle.usual; got < 28*millisecond/10 || got > 3*millisecond {
		t.Errorf("usual are %d ns when three of a hundred take 3 ms", got)
	}
	for range 2000 {
		throttle.drill(&now, 199, millisecond, true)
		throttle.drill(&now, 1, 3*millisecond, true)
	}
	before := throttle.usual
	if before < millisecond || before > 11*millisecond/10 {
		t.Errorf("usual are %d ns when one of two hundred takes 3 ms", before)
	}
	throttle.drill(&now, 10, 100*millisecond, true)
	if got := throttle.usual; got > 2*before {
		t.Errorf("a moment of trouble moves it from %d to %d ns", before, got)
	}
	throttle.drill(&now, 100, second, true)
	throttle.drill(&now, 200, millisecond, true)
	if got := throttle.usual; got != millisecond {
		t.Errorf("after large requests usual are %d ns", got)
	}
}

// Jobs that slow clients down are put further apart, up to a bound, and closer again
// when they do not, until they need no gaps and take larger steps.
func TestThrottleFollowsTheClients(t *testing.T) {
	now := block.Instant(second)
	throttle := throttle{gapMax: gapMax, usual: millisecond, worked: now - block.Instant(settled), judged: now}
	throttle.drill(&now, 300, millisecond, true)
	for range 10 {
		throttle.drill(&now, 97, millisecond, false)
		throttle.drill(&now, 3, 3*millisecond, false)
	}
	throttle.mayBegin(now)
	if got := throttle.gap(); got != gapMax/16 {
		t.Errorf("after a second jobs are %d ns apart, want %d", got, gapMax/16)
	}
	for range 10 {
		throttle.drill(&now, 970, millisecond, false)
		throttle.drill(&now, 30, 3*millisecond, false)
		throttle.mayBegin(now)
	}
	if got := throttle.gap(); got != gapMax || throttle.extents() != 1 {
		t.Errorf("jobs are %d ns apart at most, want %d", got, gapMax)
	}
	for range 20 {
		throttle.drill(&now, 1000, millisecond, false)
		throttle.mayBegin(now)
	}
	if got := throttle.gap(); got != 0 || throttle.extents() != block.ExtentsPerChunk {
		t.Errorf("jobs are %d ns apart, in steps of %d extents", got, throttle.extents())
	}
}

// What was usual before a replica came back is measured anew at once.
func TestThrottleRelearns(t *testing.T) {
	now := block.Instant(second)
	throttle := throttle{usual: millisecond, restAt: now + block.Instant(second)}
	throttle.drill(&now, usualRequests/2, 30*millisecond, true)
	throttle.relearn()
	if throttle.mayBegin(now) {
		t.Error("a job begins before anything is learned")
	}
	throttle.drill(&now, usualRequests, 3*millisecond, true)
	if throttle.usual != 3*millisecond {
		t.Errorf("usual are %d ns, want 3 ms", throttle.usual)
	}
	throttle.drill(&now, usualRequests, 2*millisecond, true)
	if throttle.usual == 2*millisecond {
		t.Error("a hundred others move it as far")
	}
}

// What is slow without jobs, too, is not held against them: a disk that stalls now and
// then stalls beside them as well.
func TestThrottleBearsStalls(t *testing.T) {
	now := block.Instant(second)
	throttle := throttle{gapMax: gapMax, usual: millisecond}
	for range 200 {
		throttle.atWork(now, false)
		now += block.Instant(settled)
		throttle.drill(&now, 92, millisecond, true)
		throttle.drill(&now, 8, 10*millisecond, true)
		throttle.usual = millisecond // else it would follow
		throttle.atWork(now, true)
		throttle.drill(&now, 920, millisecond, false)
		throttle.drill(&now, 80, 10*millisecond, false)
		throttle.mayBegin(now)
	}
	if throttle.pace != fastest {
		t.Errorf("jobs are %d ns apart, in steps of %d extents", throttle.gap(), throttle.extents())
	}
}

// Only requests far from any job say what is usual: between two, long ones have no room.
func TestThrottleLearnsFarFromJobs(t *testing.T) {
	now := block.Instant(second)
	throttle := throttle{gapMax: gapMax, usual: millisecond}
	throttle.atWork(now, true)
	now++
	throttle.atWork(now, false)
	beside, behind := now, now+1
	throttle.done(behind+block.Instant(settled), beside)
	throttle.done(now+block.Instant(settled)-1, behind)
	if throttle.seen != 0 {
		t.Error("a request beside a job, or right behind it, says what is usual")
	}
	throttle.done(now+block.Instant(settled), behind)
	if throttle.seen != 1 {
		t.Error("a request far from any job does not say what is usual")
	}
}

// A rest lasts until enough requests have shown what is usual, but not for ever.
func TestThrottleRests(t *testing.T) {
	for _, c := range []struct {
		every, want time.Duration
	}{
		{100 * time.Microsecond, 120 * time.Millisecond},
		{2 * time.Millisecond, 480 * time.Millisecond},
		{20 * time.Millisecond, 500 * time.Millisecond},
	} {
		now := block.Instant(10 * second)
		throttle := throttle{gapMax: gapMax, usual: millisecond, worked: now}
		began := now
		for !throttle.mayBegin(now) {
			if throttle.wake <= now {
				t.Fatalf("at %d nobody would ask again: %d", now, throttle.wake)
			}
			for now < throttle.wake {
				now += block.Instant(c.every)
				throttle.done(now, now-block.Instant(50_000))
			}
		}
		if took := time.Duration(now - began); took < c.want || took > c.want+c.want/10 {
			t.Errorf("with a request every %v the rest takes %v, want %v", c.every, took, c.want)
		}
	}
}

// However slow clients are, a job begins within the bound, and who waits is told
// when to ask again.
func TestThrottleNeverStops(t *testing.T) {
	var now block.Instant
	throttle := throttle{gapMax: gapMax, usual: 1, pace: slowest}
	begun := now
	for range 1000 {
		throttle.drill(&now, 1, second, false)
		if !throttle.mayBegin(now) {
			if throttle.wake <= now {
				t.Fatalf("at %d nobody would ask again: %d", now, throttle.wake)
			}
			continue
		}
		if since := int64(now - begun); since > gapMax+restMax+2*millisecond {
			t.Fatalf("no job began for %d ns", since)
		}
		begun = now
		throttle.begun(now)
	}
}

func TestThrottleLetsGoWhenClientsAreQuiet(t *testing.T) {
	throttle := throttle{usual: millisecond, last: block.Instant(second)}
	if now := throttle.last + block.Instant(clientsQuiet); throttle.busy(now, false) || !throttle.busy(now, true) || !throttle.busy(now-1, false) {
		t.Error("clients are taken for busy without a request, or for quiet with one")
	}
}

// slowCopy has B return beside busy clients, at the slowest pace, until after a rest the
// copy of its first chunk begins. A step has a millisecond of the gap.
func (s *script) slowCopy() {
	s.t.Helper()
	t := &s.core.throttle
	t.usual, t.last = millisecond, s.core.now+block.Instant(second)
	t.judged = s.core.now + block.Instant(second) // not before the end
	t.gapMax, t.pace = 2*block.ExtentsPerChunk*millisecond, slowest
	s.drop()
	s.answer("B A B")
	s.expectNone("A: read")
	s.pass(time.Duration(restMax))
	s.expectAmong("A: read 3M+64K resync")
}

// While jobs are slowed down, a copy goes extent by extent, with its share of the gap
// between them.
func TestSlowedCopyPausesBetweenExtents(t *testing.T) {
	s := leaving(t, false)
	s.write(3, 'x', 3*mib, 192*kib)
	s.answer("A")
	s.slowCopy()
	for _, next := range []string{"A: read 3136K+64K resync", "A: read 3200K+64K resync"} {
		s.answer("A B")
		s.expectNone("A: read")
		s.pass(time.Millisecond)
		s.expectAmong(next)
	}
	s.core.throttle.gapMax = 0
	s.settle()
	s.expectAmong("admitted B, 192K copied")
	if got := s.content("B", 3*mib, 192*kib); got != "'x'" {
		t.Errorf("B has %s", got)
	}
}

// A chunk of which one extent is copied costs that extent's share of the gap, not all of
// it.
func TestSlowedCopyPaysForWhatItCopies(t *testing.T) {
	s := leaving(t, false)
	s.write(3, 'x', 3*mib, 64*kib)
	s.answer("A")
	s.write(4, 'x', 5*mib, 64*kib)
	s.answer("A")
	s.slowCopy()
	s.answer("A B")
	s.expectNone("A: read")
	s.pass(time.Millisecond) // after the step
	s.expectNone("A: read")
	s.pass(time.Millisecond) // before the next one
	s.expectAmong("A: read 5M+64K resync")
	s.core.throttle.gapMax = 0
	s.settle()
	s.expectAmong("admitted B, 128K copied")
}
