package store

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/vfs"
)

const (
	// After work that took the device's thread longer than slowWork, as it does when it
	// waits for the disk, jobs of the executor, which wait beside each other, have the
	// next slowJobs of its kind.
	slowWork = 100 * time.Microsecond
	slowJobs = 16
)

// aside is a kind of short work that the device's thread does for the store between two
// completions. It is the one that goes on with what waits for that, and what has ended
// together is worked on together; another thread would have to be woken, and wake this
// one in turn. The store's mutex guards it.
type aside struct {
	// slow is how many of the next jobs are not for the device's thread.
	slow int
}

// start has job run by the device's thread, or by the executor: then it reports false.
func (a *aside) start(s *Store, job func()) (helped bool) {
	if a.slow > 0 {
		a.slow--
	} else if vfs.Help(s.options.Device, job) {
		return true
	}
	s.options.Executor.Go(job)
	return false
}

// took notes how long the device's thread was kept from its own work.
func (a *aside) took(long time.Duration) {
	if long > slowWork {
		a.slow = slowJobs
	}
}
