package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// gapMax is the bound in these tests.
const gapMax = 50 * millisecond

// drill lets requests of one duration end, a millisecond apart.
func (t *throttle) drill(now *block.Instant, n int, took int64, alone bool) {
	for range n {
		*now += block.Instant(millisecond)
		t.done(*now, took, alone)
	}
}

// The estimate is what one of a hundred exceeds.
func TestThrottleLearnsWhatIsUsual(t *testing.T) {
	var now block.Instant
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
// when they do not.
func TestThrottleFollowsTheClients(t *testing.T) {
	var now block.Instant
	throttle := throttle{usual: millisecond}
	worst := int64(0)
	for range 20 {
		throttle.drill(&now, 99, millisecond, false)
		throttle.drill(&now, 2, 3*millisecond, false)
		throttle.mayBegin(now, gapMax)
		worst = max(worst, throttle.gap)
	}
	if worst != gapMax {
		t.Errorf("jobs are %d ns apart at most, want %d", worst, gapMax)
	}
	for range 100 {
		throttle.drill(&now, 101, millisecond, false)
		throttle.mayBegin(now, gapMax)
	}
	if throttle.gap != 0 {
		t.Errorf("jobs are still %d ns apart", throttle.gap)
	}
}

// However slow clients are, a job begins within the bound, and who waits is told
// when to ask again.
func TestThrottleNeverStops(t *testing.T) {
	var now block.Instant
	throttle := throttle{usual: 1, gap: gapMax}
	begun := now
	for range 1000 {
		throttle.drill(&now, 1, second, false)
		if !throttle.mayBegin(now, gapMax) {
			if throttle.wake <= now {
				t.Fatalf("at %d nobody would ask again: %d", now, throttle.wake)
			}
			continue
		}
		if since := int64(now - begun); since > gapMax+restFor+2*millisecond {
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

// While jobs are slowed down, a copy goes extent by extent, with its share of the gap
// between them.
func TestSlowedCopyPausesBetweenExtents(t *testing.T) {
	s := leaving(t, false)
	s.write(3, 'x', 3*mib, 192*kib)
	s.answer("A")
	s.core.throttle.usual, s.core.throttle.last = millisecond, s.core.now
	s.core.throttle.restAt = s.core.now + block.Instant(second)
	s.core.throttle.gap = 2 * block.ExtentsPerChunk * millisecond
	s.drop()
	s.answer("B A B")
	s.expectAmong("A: read 3M+64K resync")
	for _, next := range []string{"A: read 3136K+64K resync", "A: read 3200K+64K resync"} {
		s.answer("A B")
		s.expectNone("A: read")
		s.pass(time.Millisecond)
		s.expectAmong(next)
	}
	s.core.throttle.gap = 0
	s.settle()
	s.expectAmong("admitted B, 192K copied")
	if got := s.content("B", 3*mib, 192*kib); got != "'x'" {
		t.Errorf("B has %s", got)
	}
}
