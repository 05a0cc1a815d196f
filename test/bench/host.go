package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hostFacts say where and of what the figures are.
type hostFacts struct {
	Taken       time.Time `json:"taken"`
	Commit      string    `json:"commit"`
	Go          string    `json:"go"`
	CPU         string    `json:"cpu"`
	CPUs        int       `json:"cpus"`
	MemoryBytes int64     `json:"memoryBytes"`
	Kernel      string    `json:"kernel"`
	FileSystem  string    `json:"fileSystem"`
	Disk        string    `json:"disk"`
	Fio         string    `json:"fio"`
	Qemu        string    `json:"qemu"`
	Nbdkit      string    `json:"nbdkit,omitempty"`
}

// unknown stands for what the machine does not tell.
const unknown = "unknown"

// describeHost describes the machine, and the disk that holds dir.
func describeHost(ctx context.Context, dir string) (hostFacts, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return hostFacts{}, fmt.Errorf("describe the machine: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return hostFacts{}, fmt.Errorf("describe the machine: %w", err)
	}
	fileSystem, disk, err := describeDisk(dir)
	if err != nil {
		return hostFacts{}, fmt.Errorf("describe the disk of %s: %w", dir, err)
	}
	return hostFacts{
		Taken:       time.Now().UTC().Truncate(time.Second),
		Commit:      firstLine(ctx, "git", "describe", "--always", "--dirty", "--abbrev=10"),
		Go:          runtime.Version(),
		CPU:         cpuModel(),
		CPUs:        runtime.NumCPU(),
		MemoryBytes: int64(info.Totalram) * int64(info.Unit),
		Kernel:      unix.ByteSliceToString(name.Release[:]),
		FileSystem:  fileSystem,
		Disk:        disk,
		Fio:         firstLine(ctx, "fio", "--version"),
		Qemu:        firstLine(ctx, "qemu-nbd", "--version"),
		Nbdkit:      firstLine(ctx, "nbdkit", "--version"),
	}, nil
}

// firstLine is the first line that a command says.
func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil || line == "" {
		return unknown
	}
	return line
}

// cpuModel is what the CPU calls itself, where it does.
func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// describeDisk names the file system that holds dir and the device below it.
func describeDisk(dir string) (fileSystem, disk string, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return "", "", err
	}
	device := fmt.Sprintf("%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev))
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	return fileSystemOf(string(table), device), blockDevice("/sys/dev/block", device), nil
}

// fileSystemOf finds the type of a device's file system in a mount table, see
// proc(5): the third field is the device, and the type follows a lone hyphen.
func fileSystemOf(table, device string) string {
	for line := range strings.Lines(table) {
		left, right, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if ok && len(fields) > 2 && len(kind) > 0 && fields[2] == device {
			return kind[0]
		}
	}
	return unknown
}

// blockDevice is name, model and size of a device in sysfs.
func blockDevice(sysfs, device string) string {
	path, err := filepath.EvalSymlinks(filepath.Join(sysfs, device))
	if err != nil {
		return unknown
	}
	if _, err := os.Stat(filepath.Join(path, "partition")); err == nil {
		path = filepath.Dir(path)
	}
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(path, name))
		return strings.TrimSpace(string(text))
	}
	text := filepath.Base(path)
	if model := read("device/model"); model != "" {
		text += " " + model
	}
	if sectors, err := strconv.ParseInt(read("size"), 10, 64); err == nil {
		text += fmt.Sprintf(" %d GiB", sectors>>21)
	}
	return text
}
