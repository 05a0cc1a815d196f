// Package iopath marks a process as part of the machine's I/O path (rule 32):
// reclaim must not wait for a process that waits for reclaim, and the process must be
// neither swapped out nor killed for memory, nor wait for a CPU behind what only
// computes.
//
// What the machine does not permit is logged, with what it takes: the process works
// without it as long as memory and CPUs are not short.
//
// # Priority
//
// A heartbeat that waits for its turn on a busy CPU looks like a node that died: at
// ordinary priority, and with twenty processes for each CPU, Raft elected a new leader
// every few minutes. So the process is put before those of ordinary priority.
//
// # Locked memory
//
// All memory is locked as it is touched (MCL_ONFAULT). Go reserves far more address
// space than it uses: of 1.2 GiB of a small program, 3 MiB are resident after the
// lock, and locking at once would make all of it resident. The lock counts reserved
// space, though, and under RLIMIT_MEMLOCK every later reservation would fail once the
// limit is reached, which ends a Go program. So nothing is locked unless the limit is
// none, or does not hold for the process (CAP_IPC_LOCK).
//
// # Bounded memory
//
// The runtime collects garbage more eagerly as the process comes near to the limit of
// its control group, or to half of the machine's memory where there is none, unless
// GOMEMLIMIT says otherwise. That is no limit on what the program may need: caches,
// queues and buffers have their own.
package iopath

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// oomScoreMin keeps the kernel from killing the process for memory.
const oomScoreMin = "-1000"

// niceness is the priority of every thread.
const niceness = -10

// Mark marks, locks and bounds this process. It is called once, before the process
// does anything of size.
//
// Rule 32 (bounded memory): reclaim must not wait for a process that waits for
// reclaim, so it is marked, neither swapped out nor killed for memory, and what it
// holds is bounded: by the slots of each core (core.Limits), the window of each
// session (server.Limits) and the caches of each store.
func Mark(log *slog.Logger) {
	// The mark is one of each thread, and threads made later inherit it.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0); errno != 0 {
		log.Warn("process is not marked as I/O flusher", "err", errno, "needs", "CAP_SYS_RESOURCE")
	}
	if err := comeFirst(); err != nil {
		log.Warn("process has the priority of any other", "err", err, "needs", "CAP_SYS_NICE")
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScoreMin), 0); err != nil {
		log.Warn("process may be killed for memory", "err", err, "needs", "CAP_SYS_RESOURCE")
	}
	if err := lockMemory(); err != nil {
		log.Warn("memory is not locked", "err", err, "needs", "CAP_IPC_LOCK or an infinite RLIMIT_MEMLOCK")
	}
	if limit := memoryLimit(); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
		log.Info("memory bounded", "bytes", limit)
	}
}

// comeFirst gives every thread the priority of the I/O path. Threads made later have
// that of the one that made them, so it looks again until it finds none without.
func comeFirst() error {
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		raised := false
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				return fmt.Errorf("list threads: %w", err)
			}
			now, err := nicenessOf(id)
			if err == nil && now > niceness {
				raised = true
				err = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // a thread may have ended
				return fmt.Errorf("set priority: %w", err)
			}
		}
		if !raised {
			return nil
		}
	}
}

// nicenessOf is that of a thread. The system call answers 20 less it.
func nicenessOf(thread int) (int, error) {
	answer, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	return 20 - answer, err
}

// errLimited: locking would make later allocations fail.
var errLimited = errors.New("locked memory is limited")

func lockMemory() error {
	free, err := lockIsFree()
	if err != nil {
		return err
	}
	if !free {
		return errLimited
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// lockIsFree reports whether as much memory as there is may be locked.
func lockIsFree() (bool, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return false, fmt.Errorf("read RLIMIT_MEMLOCK: %w", err)
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return true, nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return false, fmt.Errorf("read capabilities: %w", err)
	}
	if caps[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0 {
		return true, nil
	}
	limit = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil, nil
}

// memoryLimit is what the process should stay below, in bytes; 0 if that cannot be
// told.
func memoryLimit() int64 {
	if n := cgroupLimit(); n > 0 {
		return n - n/5
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) / 2
}

// cgroupLimit is the limit of the control group of the process, or of one above it
// that it can see; 0 if there is none. In a container the root that is seen is the
// container's.
func cgroupLimit() int64 {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	least := int64(0)
	lower := func(path string) {
		if n := readLimit(path); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		path, unified := strings.CutPrefix(lines.Text(), "0::")
		for unified && path != "" {
			lower("/sys/fs/cgroup" + path + "/memory.max")
			path = path[:max(strings.LastIndexByte(path, '/'), 0)]
		}
	}
	lower("/sys/fs/cgroup/memory.max")
	lower("/sys/fs/cgroup/memory/memory.limit_in_bytes")
	return least
}

// readLimit reads a limit of a control group; 0 if there is no such file, or no
// limit in it.
func readLimit(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	// The first version of control groups writes "no limit" as a huge number.
	if err != nil || n >= 1<<60 {
		return 0
	}
	return n
}
