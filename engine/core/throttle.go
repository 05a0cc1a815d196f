package core

import "github.com/holdfast-io/holdfast/internal/block"

const (
	// slowQuarters is what a request may take during a copy, in quarters of what is
	// usual, and slowPercent how many may take longer than that. Twice as long is what
	// is promised, and the pace swings about what is aimed at.
	slowQuarters = 7
	slowPercent  = 1
	// A decision about the pace takes that many requests or that long, whichever is
	// later, but no longer than judgeMax.
	judgeRequests = 100
	judgeMin      = 50 * millisecond
	judgeMax      = second
	// gapFirst is the least time between the beginnings of two jobs that are slowed
	// down; Timing.JobGap is the most, so that a resync never stops.
	gapFirst = millisecond
	// clientsQuiet is how long after the last request of a client jobs run at full
	// speed.
	clientsQuiet = 20 * millisecond
	// restEvery and restFor: while clients are at work, no job begins for a moment
	// now and then, to learn what a request takes without.
	restEvery = 3 * second
	restFor   = 60 * millisecond
)

// throttle keeps jobs in the background from slowing clients down to less than half.
// It knows from requests that ended while no job was running what all but one of a
// hundred take at most, counts those that take much longer during jobs, and puts gaps between the beginnings of jobs: doubled when there are too many,
// an eighth shorter when not. Time comes with the requests only.
type throttle struct {
	// usual is that estimate in nanoseconds; 0 before the first requests. It begins
	// with the second longest of a hundred, of which there are seen so far.
	usual           int64
	seen            int
	longest, second int64
	// ended counts the requests since judged, slow those that took too long; last is
	// when the last one ended.
	ended, slow  int
	judged, last block.Instant
	gap          int64
	// next is when the next job may begin, restAt when the next rest does.
	next, restAt block.Instant
	// wake is when somebody who was told to wait should ask again; 0 if nobody was.
	wake block.Instant
}

// done notes a request of a client that has ended; alone: no job was running.
func (t *throttle) done(now block.Instant, took int64, alone bool) {
	t.last = now
	switch {
	case took <= 0:
	case alone:
		t.learn(took)
	case t.usual > 0:
		t.ended++
		if 4*took > slowQuarters*t.usual {
			t.slow++
		}
	}
}

// learn lets the estimate rise by a twentieth with each request that exceeds it, and
// fall with each other one by so much that both are in balance when one of a hundred
// does; so a moment of trouble moves it little. When what is usual has become far
// less, as after large requests, it follows at once.
func (t *throttle) learn(took int64) {
	switch {
	case t.usual == 0:
	case took > t.usual:
		t.usual = min(t.usual+t.usual/20, took)
	default:
		t.usual -= t.usual / (20 * 99)
	}
	switch {
	case took > t.longest:
		t.longest, t.second = took, t.longest
	case took > t.second:
		t.second = took
	}
	if t.seen++; t.seen < judgeRequests {
		return
	}
	if t.usual == 0 || t.second < t.usual/2 {
		t.usual = t.second
	}
	t.seen, t.longest, t.second = 0, 0, 0
}

// busy reports whether clients are at work.
func (t *throttle) busy(now block.Instant, requests bool) bool {
	return requests || t.usual > 0 && now < t.last+block.Instant(clientsQuiet)
}

// judge decides about the gap.
func (t *throttle) judge(now block.Instant, gapMax int64) {
	since := int64(now - t.judged)
	if since < judgeMin || t.ended < judgeRequests && since < judgeMax {
		return
	}
	if t.slow*100 > t.ended*slowPercent {
		t.gap = min(max(2*t.gap, gapFirst), gapMax)
	} else if t.gap -= t.gap / 8; t.gap < gapFirst {
		t.gap = 0
	}
	t.judged, t.ended, t.slow = now, 0, 0
}

// mayBegin reports whether another job may begin now while clients are at work, and
// else when to ask again.
func (t *throttle) mayBegin(now block.Instant, gapMax int64) bool {
	t.wake = 0
	if t.usual == 0 {
		return true
	}
	t.judge(now, gapMax)
	if now >= t.restAt {
		t.restAt = now + block.Instant(restEvery)
		t.next = max(t.next, now+block.Instant(restFor))
	}
	if now < t.next {
		t.wake = t.next
		return false
	}
	return true
}

// begun notes a job.
func (t *throttle) begun(now block.Instant) { t.next = max(t.next, now+block.Instant(t.gap)) }
