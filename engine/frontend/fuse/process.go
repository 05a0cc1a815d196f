package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// process identifies one process for good: a pid is used again, but not with
// the same start time in the same boot.
type process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	Boot      string `json:"boot"`
}

// identify describes a running process; block.ErrNotFound when there is none, or
// only what is left of one.
func identify(pid int) (process, error) {
	start, err := startTime(pid)
	if err != nil {
		return process{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, fmt.Errorf("read boot ID: %w", err)
	}
	return process{PID: pid, StartTime: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// startTime reads field 22 of /proc/<pid>/stat, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, block.ErrNotFound)
	}
	// The name of the program, field 2, may hold spaces and parentheses.
	stat := string(raw)
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d: unexpected stat: %w", pid, block.ErrInvalid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d has ended: %w", pid, block.ErrNotFound)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// alive reports whether this very process runs.
func (p process) alive() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

// handle is a reference to one process that cannot come to mean another.
type handle struct {
	fd  int
	pid int
}

// open returns a handle, or block.ErrNotFound when the process has ended.
func (p process) open() (handle, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return handle{}, fmt.Errorf("process %d: %w", p.PID, block.ErrNotFound)
	}
	if err != nil {
		return handle{}, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	h := handle{fd: fd, pid: p.PID}
	// Checked after opening: the handle is of whoever had the pid then.
	if !p.alive() {
		return handle{}, errors.Join(fmt.Errorf("process %d: %w", p.PID, block.ErrNotFound), h.close())
	}
	return h, nil
}

// release closes a handle that has served.
func (h handle) release() { _ = h.close() }

func (h handle) close() error { return unix.Close(h.fd) }

func (h handle) signal(s unix.Signal) error {
	if err := unix.PidfdSendSignal(h.fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", h.pid, err)
	}
	return nil
}

// pollStep bounds how late the end of a context is noticed.
const pollStep = 50 * time.Millisecond

// wait waits for the end of the process, and collects it if it is a child of
// this one.
func (h handle) wait(ctx context.Context) error {
	for {
		poll := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(pollStep.Milliseconds()))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", h.pid, err)
		case n > 0:
			// ECHILD: an earlier daemon started it.
			_, _ = unix.Wait4(h.pid, nil, unix.WNOHANG, nil)
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait for process %d: %w", h.pid, context.Cause(ctx))
		}
	}
}
