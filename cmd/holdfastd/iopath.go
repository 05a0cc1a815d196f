package main

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// markIOPath tells the kernel that this process is part of the I/O path
// (rule 32): reclaim must not wait for a daemon that waits for reclaim, and the
// daemon must be neither swapped out nor killed for memory. What the machine
// does not permit is logged; the daemon works without it as long as memory is
// not short.
func markIOPath(log *slog.Logger) {
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		log.Warn("process is not marked as I/O flusher", "err", err, "needs", "CAP_SYS_RESOURCE")
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		log.Warn("process is not protected from the OOM killer", "err", err, "needs", "CAP_SYS_RESOURCE")
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory is not locked", "err", err, "needs", "CAP_IPC_LOCK or RLIMIT_MEMLOCK")
	}
}
