package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// machineCPU is the CPU time that everything on the machine has used.
func machineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU time of the machine: %w", err)
	}
	used, err := parseMachineCPU(string(text))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of the machine: %w", err)
	}
	return used, nil
}

// parseMachineCPU reads the first line of /proc/stat: user, nice, system, idle,
// iowait, irq, softirq, steal, and guests, which user and nice contain. What the
// hypervisor took for others counts as used.
func parseMachineCPU(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("unknown form %q", line)
	}
	var sum time.Duration
	for i, field := range fields[1:9] {
		const idle, iowait = 3, 4
		if i == idle || i == iowait {
			continue
		}
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * harness.Tick
	}
	return sum, nil
}
