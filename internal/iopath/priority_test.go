package iopath

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPriority: every thread of the process comes before what has the priority that
// everybody has.
func TestPriority(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a higher priority needs root, which make test has")
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == syscall.ENOTSUP {
		t.Skip("with cgo, which the race detector needs, nothing is done to all threads")
	}
	Mark(slog.New(slog.DiscardHandler))
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, thread := range threads {
		var id int
		if _, err := fmt.Sscan(filepath.Base(thread), &id); err != nil {
			t.Fatal(err)
		}
		// The system call answers 20 less the niceness.
		answer, err := unix.Getpriority(unix.PRIO_PROCESS, id)
		if err != nil {
			continue // it has ended
		}
		if got := 20 - answer; got != niceness {
			t.Errorf("thread %d has niceness %d", id, got)
		}
	}
}
