package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of time in /proc; Linux shows the same to every program,
// whatever it counts in.
const tick = 10 * time.Millisecond

// processCPU is the CPU time that processes have used, with all their threads, in
// user mode and in the kernel.
func processCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		used, err := parseProcessCPU(text)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

// parseProcessCPU reads /proc/<pid>/stat, see proc(5): utime and stime are the
// fields 14 and 15. Field 2, the name, may hold anything, and ends with the last
// parenthesis.
func parseProcessCPU(text []byte) (time.Duration, error) {
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
		sum += time.Duration(ticks) * tick
	}
	return sum, nil
}

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
		sum += time.Duration(ticks) * tick
	}
	return sum, nil
}
