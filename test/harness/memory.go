package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Memory is what processes hold, in bytes: all that is resident, and that with what they
// share with others counted in parts.
type Memory struct {
	Resident, Proportional int64
}

// MemoryOf adds up the memory of processes.
func MemoryOf(pids []int) (Memory, error) {
	var sum Memory
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return Memory{}, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		m, err := parseMemory(string(text))
		if err != nil {
			return Memory{}, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		sum.Resident += m.Resident
		sum.Proportional += m.Proportional
	}
	return sum, nil
}

// parseMemory reads /proc/<pid>/smaps_rollup, see proc(5): lines of a name, a number and
// kB, which are KiB.
func parseMemory(text string) (Memory, error) {
	find := func(name string) (int64, error) {
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			if len(fields) == 3 && fields[0] == name && fields[2] == "kB" {
				n, err := strconv.ParseInt(fields[1], 10, 64)
				return n << 10, err
			}
		}
		return 0, fmt.Errorf("no line %s in it: %w", name, block.ErrNotFound)
	}
	resident, err := find("Rss:")
	if err != nil {
		return Memory{}, err
	}
	proportional, err := find("Pss:")
	return Memory{Resident: resident, Proportional: proportional}, err
}
