package harness

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Tick is the unit of time in /proc; Linux shows the same to every program,
// whatever it counts in.
const Tick = 10 * time.Millisecond

// CPU is the CPU time that the daemons which live have used.
func (c *Cluster) CPU() (time.Duration, error) {
	var pids []int
	for _, n := range c.Nodes {
		if pid := n.PID(); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return CPU(pids)
}

// CPU is the CPU time that processes have used, with all their threads, in user mode
// and in the kernel.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		used, err := parseCPU(text)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

// parseCPU reads /proc/<pid>/stat, see proc(5): utime and stime are the fields 14
// and 15. Field 2, the name, may hold anything, and ends with the last parenthesis.
func parseCPU(text []byte) (time.Duration, error) {
	const first, utime, stime = 3, 14, 15
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	if end < 0 || len(fields) <= stime-first {
		return 0, fmt.Errorf("unknown form %q", text)
	}
	var sum time.Duration
	for _, field := range []int{utime, stime} {
		ticks, err := strconv.ParseInt(fields[field-first], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * Tick
	}
	return sum, nil
}
