package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host says where the figures were taken, and how busy it was with other things.
type host struct {
	Commit string `json:"commit"`
	CPUs   int    `json:"cpus"`
	Memory int64  `json:"memoryBytes"`
	Kernel string `json:"kernel"`
	// BusyBefore is how much of the machine others used before anything was started,
	// in percent.
	BusyBefore float64 `json:"busyBeforePercent"`
}

func describeHost() (host, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return host{}, fmt.Errorf("describe the machine: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return host{}, fmt.Errorf("describe the machine: %w", err)
	}
	before, err := readCPU()
	if err != nil {
		return host{}, err
	}
	time.Sleep(2 * time.Second) // it is the measurement: nothing of ours runs yet
	after, err := readCPU()
	if err != nil {
		return host{}, err
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=10").Output() //nolint:noctx // it ends by itself
	if err != nil {
		commit = []byte("unknown")
	}
	return host{
		Commit: string(bytes.TrimSpace(commit)), CPUs: runtime.NumCPU(),
		Memory: int64(info.Totalram) * int64(info.Unit), Kernel: unix.ByteSliceToString(name.Release[:]),
		BusyBefore: 100 - after.idleSince(before),
	}, nil
}

func (h host) facts(taken time.Time) []string {
	return []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%d CPUs, %d GiB, Linux %s; before the run others used %.0f%% of the CPUs", h.CPUs, h.Memory>>30, h.Kernel, h.BusyBefore),
	}
}

// cpuTimes are the kernel's counters of all CPUs, in ticks.
type cpuTimes struct{ idle, all uint64 }

// readCPU reads the first line of /proc/stat, see proc(5): the fourth figure is idle
// time, the fifth that of waiting for disks, which is idle, too. Those after the
// eighth are in the first two already.
func readCPU() (cpuTimes, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var t cpuTimes
	const label, idleAt, waitAt, figures = 1, 3, 4, 8
	for i, field := range strings.Fields(line)[label:] {
		if i == figures {
			break
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("read /proc/stat: %w", err)
		}
		t.all += n
		if i == idleAt || i == waitAt {
			t.idle += n
		}
	}
	return t, nil
}

// idleSince is the share of the time that was idle, in percent.
func (t cpuTimes) idleSince(before cpuTimes) float64 {
	if t.all == before.all {
		return 0
	}
	return 100 * float64(t.idle-before.idle) / float64(t.all-before.all)
}
