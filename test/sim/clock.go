package sim

import "github.com/holdfast-io/holdfast/internal/block"

// How wrong a machine's boot clock may be: it runs too fast or too slow by up to
// driftMax parts of a million, and is held up together with its machine for up to
// stopMax, at most once in stopInterval. With DefaultTiming's margin a lease
// stands that: (400 ms + stopMax) / 0.995 is less than (400 ms + 50 ms) / 1.005.
const (
	driftMax     = 5000
	stopMax      = 30 * millisecond
	stopInterval = second
)

// clock is the boot clock of one boot of a machine (CLOCK_BOOTTIME).
type clock struct {
	// since is when it was at start, by the loop's time.
	since, start block.Instant
	// drift is in parts of a million.
	drift int64
	// lost is what it did not count, the last time at stoppedAt.
	lost      int64
	stoppedAt block.Instant
}

func newClock(l *loop) clock {
	return clock{since: l.now, start: block.Instant(l.between(0, 1000*second)), drift: l.between(-driftMax, driftMax+1)}
}

// read is the clock's time at the loop's.
func (c *clock) read(now block.Instant) block.Instant {
	passed := int64(now - c.since)
	return c.start + block.Instant(passed+passed/1e6*c.drift-c.lost)
}

// stop makes the clock lose a duration that begins now.
func (c *clock) stop(now block.Instant, length int64) {
	c.lost += length
	c.stoppedAt = now
}
