package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// progressSectors is how much must reach the device to call it progress: 1 MiB.
const progressSectors = 2048

// load is fio on the mounted volume, round after round: each writes a file at random
// and then reads it back and verifies it.
type load struct {
	device string
	stop   context.CancelFunc // after the round that runs
	done   chan struct{}
	err    error // valid once done is closed
}

// startLoad starts the rounds: at least one. They end with the first error, or after
// stop.
func startLoad(ctx context.Context, device string) *load {
	stopping, stop := context.WithCancel(ctx)
	l := &load{device: device, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for round := 1; l.err == nil && (round == 1 || stopping.Err() == nil); round++ {
			l.err = command(ctx, "fio", "--name=load", "--filename="+filepath.Join(mountPoint, "load"),
				"--size=16M", "--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--direct=1", "--iodepth=8",
				"--fsync=64", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
				"--randseed="+strconv.Itoa(round))
			if l.err == nil {
				step("fio has written and verified round %d", round)
			}
		}
	}()
	return l
}

// wait lets the round that runs end, and returns what went wrong in any.
func (l *load) wait() error {
	l.stop()
	<-l.done
	return l.err
}

// progress waits until the device has completed more writes, by the kernel's count.
func (l *load) progress(ctx context.Context) error {
	before, err := l.sectorsWritten()
	if err != nil {
		return err
	}
	return await(ctx, "writes to the device", func() error {
		select {
		case <-l.done:
			return fmt.Errorf("fio has ended: %w", l.err)
		default:
		}
		now, err := l.sectorsWritten()
		if err != nil {
			return err
		}
		if now < before+progressSectors {
			return fmt.Errorf("%d sectors written", now-before)
		}
		return nil
	})
}

// sectorsWritten is the seventh field of the device's statistics; see the kernel's
// Documentation/block/stat.rst.
func (l *load) sectorsWritten() (uint64, error) {
	name := filepath.Join("/sys/block", filepath.Base(l.device), "stat")
	content, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(content))
	if len(fields) < 7 {
		return 0, fmt.Errorf("%s has %d fields", name, len(fields))
	}
	return strconv.ParseUint(fields[6], 10, 64)
}

// kernelErrors are what the kernel writes when an I/O error has reached someone.
var kernelErrors = []string{"I/O error", "EXT4-fs error", "EXT4-fs warning", "critical target error"}

// checkKernelLog fails if the kernel has seen an I/O error since it booted.
func checkKernelLog() error {
	const readAll, sizeMax = unix.SYSLOG_ACTION_READ_ALL, 1 << 20
	text := make([]byte, sizeMax)
	n, err := unix.Klogctl(readAll, text)
	if err != nil {
		return fmt.Errorf("read the kernel's log: %w", err)
	}
	for line := range strings.Lines(string(text[:n])) {
		for _, bad := range kernelErrors {
			if strings.Contains(line, bad) {
				return fmt.Errorf("the kernel says: %s", strings.TrimSpace(line))
			}
		}
	}
	return nil
}
