package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog is the kernel's log from the moment at which it was opened.
type kernelLog struct{ fd int }

func openKernelLog() (*kernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's log: %w", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		return nil, fmt.Errorf("open the kernel's log: %w", errors.Join(err, unix.Close(fd)))
	}
	return &kernelLog{fd: fd}, nil
}

func (k *kernelLog) close() error { return unix.Close(k.fd) }

// complaints are the new lines that name an error of one of these devices.
func (k *kernelLog) complaints(devices []string) ([]string, error) {
	var found []string
	record := make([]byte, 16<<10)
	for {
		n, err := unix.Read(k.fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return found, nil
		case errors.Is(err, unix.EPIPE):
			continue // the kernel has overwritten some; what follows is there
		case err != nil:
			return nil, fmt.Errorf("read the kernel's log: %w", err)
		}
		_, line, _ := strings.Cut(string(record[:n]), ";")
		line, _, _ = strings.Cut(line, "\n")
		if accuses(line, devices) {
			found = append(found, "the kernel says: "+line)
		}
	}
}

// accuses reports whether a line of the kernel tells of an error of a device.
func accuses(line string, devices []string) bool {
	if !strings.Contains(strings.ToLower(line), "error") && !strings.Contains(line, "warning") && !strings.Contains(line, "emounting filesystem read-only") {
		return false
	}
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" ,:()[]", r) }) {
		for _, device := range devices {
			if word == device {
				return true
			}
		}
	}
	return false
}

// deviceOf is the kernel's name of the device that is mounted at path.
func deviceOf(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("find device of %s: %w", path, err)
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev)))
	if err != nil {
		return "", fmt.Errorf("find device of %s: %w", path, err)
	}
	return filepath.Base(link), nil
}
