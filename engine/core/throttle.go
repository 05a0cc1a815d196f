package core

import "github.com/holdfast-io/holdfast/internal/block"

const (
	// slowQuarters is how long a request may take, in quarters of what is usual, before
	// it is slow, and slowPercent how many more may be slow beside jobs than without.
	// Twice as long is what is promised, and the pace swings about what is aimed at.
	slowQuarters = 6
	slowPercent  = 1
	// A decision about the pace takes a number of requests, and ends after judgeMax with
	// fewer. A disk stalls for some dozens of them now and then, jobs or not: too few
	// would see nothing else.
	judgeRequests = 1000
	judgeMax      = second
	// usualRequests is how many requests the first estimate of what is usual takes.
	usualRequests = 100
	// remembered is how many requests beside jobs, and as many without, are weighed
	// against each other; older ones count half, and half again. So who was slowed down
	// too much for a while gets that back.
	remembered = 4 * judgeRequests
	// clientsQuiet is how long after the last request of a client jobs run at full
	// speed.
	clientsQuiet = 20 * millisecond
	// While clients are at work, no job begins for a moment now and then, to learn what
	// a request takes without: restEvery, until restRequests have ended of those that
	// arrived after it began, but restMax at most.
	restEvery    = 3 * second
	restRequests = 200
	restMax      = 500 * millisecond
	// settled is how long after the last job requests are as they are without. It is
	// longer than any gap: between jobs mostly short requests find room, which say
	// nothing about the long ones.
	settled = 60 * millisecond
)

// The paces of jobs beside clients. At the slowest, a chunk that is compared and copied
// extent by extent has pauses of Timing.JobGap in all, so that a resync never stops; each
// of the next ones has half of that, unhurried has none, and from there on each takes
// twice as many extents in a step.
const (
	slowest   pace = -5
	unhurried pace = 0
	fastest   pace = 4 // steps of 16 extents: a chunk
)

type pace int

// throttle keeps jobs in the background from slowing clients down to less than half.
// From requests far from any job it knows what all but one of a hundred take at most, and
// how many take much longer all the same. When there are more of these beside jobs, the
// pace becomes slower; when not, faster. Time comes with the requests only.
type throttle struct {
	// gapMax is Timing.JobGap.
	gapMax int64
	// usual is that estimate in nanoseconds; 0 before the first requests. It begins
	// with the second longest of a hundred, of which there are seen so far, and does so
	// again when it is outdated.
	usual           int64
	outdated        bool
	seen            int
	longest, second int64
	// beside are the requests beside jobs, apart those without; since judged, there were
	// so many beside.
	beside, apart share
	since         int
	judged        block.Instant
	pace          pace
	// last is when the last request ended.
	last block.Instant
	// working: a job is at work, and worked is when one was last.
	working bool
	worked  block.Instant
	// next is when the next job may begin, restAt when the next rest does. resting is
	// when the present one ends at the latest, and rested counts what it has taught.
	next, restAt, resting block.Instant
	rested                int
	// wake is when somebody who was told to wait should ask again; 0 if nobody was.
	wake block.Instant
}

// share counts requests, and the slow ones among them.
type share struct{ all, slow int }

func (s *share) add(slow bool) {
	if s.all++; slow {
		s.slow++
	}
	if s.all > remembered {
		s.all, s.slow = s.all/2, s.slow/2
	}
}

// atWork notes whether jobs are at work from now on.
func (t *throttle) atWork(now block.Instant, working bool) {
	if t.working || working {
		t.worked = now
	}
	t.working = working
}

// done notes a request of a client that has ended.
func (t *throttle) done(now, arrived block.Instant) {
	t.last = now
	took := int64(now - arrived)
	if took <= 0 {
		return
	}
	slow := t.usual > 0 && 4*took > slowQuarters*t.usual
	beside := t.working || t.worked >= arrived
	if beside || now < t.worked+block.Instant(settled) {
		// Between two jobs mostly short requests have room: no harm was done.
		t.since++
		t.beside.add(beside && slow)
		return
	}
	t.rested++
	t.apart.add(slow)
	t.learn(took)
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
	if t.seen++; t.seen < usualRequests {
		return
	}
	if t.usual == 0 || t.outdated || t.second < t.usual/2 {
		t.usual = t.second
	}
	t.outdated = false
	t.seen, t.longest, t.second = 0, 0, 0
}

// relearn has what is usual measured anew, in a rest that begins now: requests have
// something else to do than before, such as to write to one more replica.
func (t *throttle) relearn() {
	t.outdated, t.restAt = true, 0
	t.seen, t.longest, t.second = 0, 0, 0
	t.apart, t.beside = share{}, share{}
}

// busy reports whether clients are at work.
func (t *throttle) busy(now block.Instant, requests bool) bool {
	return requests || t.usual > 0 && now < t.last+block.Instant(clientsQuiet)
}

// judge decides about the pace.
func (t *throttle) judge(now block.Instant) {
	if t.since < judgeRequests && int64(now-t.judged) < judgeMax {
		return
	}
	// In hundredths of all beside and all apart.
	if more := 100 * (t.beside.slow*t.apart.all - t.apart.slow*t.beside.all); more > slowPercent*t.beside.all*t.apart.all {
		t.pace = max(t.pace-1, slowest)
	} else {
		t.pace = min(t.pace+1, fastest)
	}
	t.judged, t.since = now, 0
}

// mayBegin reports whether another job may begin now while clients are at work, and
// else when to ask again.
func (t *throttle) mayBegin(now block.Instant) bool {
	t.wake = 0
	if t.usual == 0 {
		return true
	}
	t.judge(now)
	if now >= t.restAt {
		t.restAt, t.resting, t.rested = now+block.Instant(restEvery), now+block.Instant(restMax), 0
	}
	if now < t.resting && t.rested < restRequests {
		t.next = max(t.next, min(t.resting, now+block.Instant(settled)))
	}
	if now < t.next {
		t.wake = t.next
		return false
	}
	return true
}

// gap is how long the pauses of a chunk are that is compared and copied extent by extent,
// and what lies between the beginnings of other jobs.
func (t *throttle) gap() int64 {
	if t.pace >= unhurried {
		return 0
	}
	return t.gapMax >> uint(t.pace-slowest)
}

// extents is the length of a step of a copy.
func (t *throttle) extents() int { return 1 << uint(max(t.pace, unhurried)) }

// jobs is how many may run at a time: for copies of scattered extents, whose steps do
// not get longer.
func (t *throttle) jobs() int { return max(1, t.extents()/2) }

// step is the share of the gap that a step of a small copy has.
func (t *throttle) step() block.Instant {
	return block.Instant(t.gap() / (2 * block.ExtentsPerChunk))
}

// begun notes a job, which has the whole gap.
func (t *throttle) begun(now block.Instant) {
	t.next = max(t.next, now+block.Instant(t.gap()))
}

// stepped notes the last step of a small copy, which has paused after each one before.
func (t *throttle) stepped(now block.Instant) { t.next = now + t.step() }
