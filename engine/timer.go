package engine

import (
	"math"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
)

// timer makes sure that the core is stepped at its deadline. A timer that fires
// early costs one idle step, so it is moved only to the front.
type timer struct {
	clock clock.Clock
	fire  func()
	// calls are the timers that are set, and those whose function runs.
	calls sync.WaitGroup

	mu      sync.Mutex
	at      block.Instant
	off     func() bool
	stopped bool
}

func (t *timer) init(c clock.Clock, fire func()) {
	t.clock, t.fire, t.at = c, fire, math.MaxInt64
}

// arm sees to it that fire is called at the instant at, or before.
func (t *timer) arm(at block.Instant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at >= t.at || t.stopped {
		return
	}
	t.disarm()
	t.at = at
	t.calls.Add(1)
	wait := time.Duration(max(0, int64(at-t.clock.Now())))
	t.off = t.clock.AfterFunc(wait, func() {
		defer t.calls.Done()
		t.mu.Lock()
		if t.at == at {
			t.at = math.MaxInt64
		}
		t.mu.Unlock()
		t.fire()
	})
}

// disarm takes back a call that has not begun; the lock is held.
func (t *timer) disarm() {
	if t.off != nil && t.off() {
		t.calls.Done()
	}
	t.off = nil
}

// stop ends the timer for good and joins a call that runs.
func (t *timer) stop() {
	t.mu.Lock()
	t.stopped = true
	t.disarm()
	t.mu.Unlock()
	t.calls.Wait()
}
