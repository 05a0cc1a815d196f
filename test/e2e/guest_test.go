//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// guest describes one run of a script in a guest.
type guest struct {
	// files lie beside the script, in /host.
	files []string
	// scratch are the sizes of empty disks, /dev/ubdb and on: "512M".
	scratch []string
	// memoryMB is the guest's memory; 0 means the default of test/e2e/vm/run.
	memoryMB int
	// limit bounds the run, with some seconds on top for starting and stopping.
	limit time.Duration
}

// run runs scripts/name in the guest, its output going to the test's, and returns
// its exit code, as test/e2e/vm/run defines it.
func (g guest) run(t *testing.T, name string) int {
	t.Helper()
	arguments := []string{"-t", fmt.Sprint(int(g.limit.Seconds()))}
	if g.memoryMB > 0 {
		arguments = append(arguments, "-m", fmt.Sprint(g.memoryMB))
	}
	for _, file := range g.files {
		arguments = append(arguments, "-f", file)
	}
	for _, size := range g.scratch {
		arguments = append(arguments, "-s", size)
	}
	ctx, cancel := context.WithTimeout(t.Context(), g.limit+30*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "vm/run", append(arguments, filepath.Join("scripts", name))...)
	command.Stdout = os.Stdout
	command.Stderr = os.Stderr
	// run ends its guest when it is terminated; killed, it could not.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second

	began := time.Now()
	err := command.Run()
	t.Logf("%s took %.1f s in the guest", name, time.Since(began).Seconds())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s in a guest: %v", name, err)
	}
	return command.ProcessState.ExitCode()
}

// pass runs scripts/name in the guest and fails the test unless it exits with 0.
func (g guest) pass(t *testing.T, name string) {
	t.Helper()
	if code := g.run(t, name); code != 0 {
		t.Fatalf("%s exited with %d", name, code)
	}
}

// buildStatic builds commands of this module without cgo, so that they run on the
// guest's own C library or none, and returns the paths of the binaries.
func buildStatic(t *testing.T, packages ...string) []string {
	t.Helper()
	dir := t.TempDir()
	arguments := append([]string{"build", "-trimpath", "-o", dir + "/"}, packages...)
	command := exec.CommandContext(t.Context(), "go", arguments...)
	command.Dir = "../.."
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, output)
	}
	var binaries []string
	for _, name := range packages {
		binaries = append(binaries, filepath.Join(dir, filepath.Base(name)))
	}
	return binaries
}
