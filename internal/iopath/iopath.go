// Package iopath marks a process as part of the machine's I/O path.
package iopath

import (
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// oomScoreMin keeps the kernel from killing the process for memory.
const oomScoreMin = "-1000"

// niceness puts the process before those that compute: a heartbeat that waits for
// its turn on a busy CPU looks like a node that died.
const niceness = -10

// Mark tells the kernel that this process is part of the I/O path. What the machine
// does not permit is logged: the process works without it as long as memory and CPUs
// are not short.
//
// Rule 32 (bounded memory): reclaim must not wait for a process that waits for
// reclaim, so it is marked, neither swapped out nor killed for memory, and what it
// holds is bounded: by the slots of each core (core.Limits), the window of each
// session (server.Limits) and the caches of each store. Nor does it wait for a CPU
// behind what only computes.
func Mark(log *slog.Logger) {
	// The mark is one of each thread, like the priority, and threads made later
	// inherit both.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0); errno != 0 {
		log.Warn("process is not marked as I/O flusher", "err", errno, "needs", "CAP_SYS_RESOURCE")
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, priority()); errno != 0 {
		log.Warn("process has the priority of any other", "err", errno, "needs", "CAP_SYS_NICE")
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScoreMin), 0); err != nil {
		log.Warn("process may be killed for memory", "err", err, "needs", "CAP_SYS_RESOURCE")
	}
	// On fault: Go reserves far more address space than it ever uses.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory is not locked", "err", err, "needs", "CAP_IPC_LOCK or RLIMIT_MEMLOCK")
	}
}

// priority is the niceness as the system call takes it.
func priority() uintptr {
	n := niceness
	return uintptr(n)
}
