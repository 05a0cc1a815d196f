package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
func CPU(pids []int) (time.Duration, error) { return sumCPU(pids, ownTime) }

// FamilyCPU is the CPU time of a process, of the children it has, and of all those that
// it had and that have ended.
func FamilyCPU(pid int) (time.Duration, error) {
	children, err := Children(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, child := range children {
		used, err := CPU([]int{child})
		// One that has ended by now is among those that the process had.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return 0, err
		}
		sum += used
	}
	own, err := sumCPU([]int{pid}, timeWithChildren)
	return own + sum, err
}

func sumCPU(pids []int, fields []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		used, err := parseCPU(text, fields)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

// Fields of /proc/<pid>/stat, see proc(5): utime and stime, and with those of the
// children that were waited for, cutime and cstime.
var (
	ownTime          = []int{14, 15}
	timeWithChildren = []int{14, 15, 16, 17}
)

// parseCPU sums fields of /proc/<pid>/stat. Field 2, the name, may hold anything, and
// ends with the last parenthesis.
func parseCPU(text []byte, fields []int) (time.Duration, error) {
	const first = 3
	end := bytes.LastIndexByte(text, ')')
	all := strings.Fields(string(text[end+1:]))
	if end < 0 || len(all) <= slices.Max(fields)-first {
		return 0, fmt.Errorf("unknown form %q", text)
	}
	var sum time.Duration
	for _, field := range fields {
		ticks, err := strconv.ParseInt(all[field-first], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * Tick
	}
	return sum, nil
}
