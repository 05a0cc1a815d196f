// Package clock is the seam through which code outside the pure core reads
// time.
package clock

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Clock reads CLOCK_BOOTTIME and makes timers.
type Clock interface {
	// Now is the current instant.
	Now() block.Instant
	// AfterFunc calls f on a goroutine of its own after d. Stop reports whether
	// the call was prevented.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// System is the machine's clock.
type System struct{}

// Now implements Clock.
func (System) Now() block.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: CLOCK_BOOTTIME cannot be read: " + err.Error())
	}
	return block.Instant(ts.Nano())
}

// AfterFunc implements Clock.
func (System) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
