package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// guestMemory is that of the guest, in MB, guestDisk the size of each of its disks.
	guestMemory = "1536"
	guestDisk   = "2G"
	// guestStart is the time for everything but the samples, guestSample for each.
	guestStart  = 3 * time.Minute
	guestSample = 30 * time.Second
)

// engineRestarts kills the daemon with the engine below the kernel's NBD device, in a
// guest with a kernel of its own, and starts it at once.
func engineRestarts(ctx context.Context, r *runner) ([]row, error) {
	module, err := modulePath(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(r.dir, "guest")
	if err := os.Mkdir(dir, 0o750); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir+"/", "./cmd/holdfastd", "./test/e2e/restart")
	build.Dir = module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build for the guest: %w: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "samples"), []byte(strconv.Itoa(r.samples())), 0o600); err != nil {
		return nil, err
	}
	if err := runGuest(ctx, module, dir, guestStart+time.Duration(r.samples())*guestSample); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "out", "pauses.json"))
	if err != nil {
		return nil, err
	}
	var pauses []time.Duration
	if err := json.Unmarshal(text, &pauses); err != nil {
		return nil, err
	}
	result := row{
		Name: "engine-restart", What: "pause when the engine's daemon is restarted, kernel NBD", Limit: 3000, Unit: "ms",
		Notes: []string{"no I/O error reached a writer or the kernel's log, and everything acknowledged was read back; in a guest with one CPU"},
	}
	for _, p := range pauses {
		result.Samples = append(result.Samples, float64(p.Microseconds())/1000)
	}
	return []row{result}, nil
}

// modulePath is where this module lies.
func modulePath(ctx context.Context) (string, error) {
	file, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(file))), nil
}

// runGuest runs the script in a guest with three empty disks.
func runGuest(ctx context.Context, module, dir string, limit time.Duration) error {
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o750); err != nil {
		return err
	}
	args := []string{"-t", strconv.Itoa(int(limit.Seconds())), "-m", guestMemory, "-o", filepath.Join(dir, "out")}
	for _, file := range []string{"holdfastd", "restart", "samples"} {
		args = append(args, "-f", filepath.Join(dir, file))
	}
	for range replicas {
		args = append(args, "-s", guestDisk)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(module, "test/e2e/vm/run"),
		append(args, filepath.Join(module, "test/e2e/scripts/engine-pauses.sh"))...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// It ends its guest when it is terminated; killed, it could not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("run in a guest: %w", err), ctx.Err())
	}
	return nil
}
