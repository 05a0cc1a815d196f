//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestIOPath runs the tests of internal/iopath where root may do everything: every
// mark must be there, on every thread.
func TestIOPath(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "iopath.test")
	command := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "./internal/iopath")
	command.Dir = "../.."
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, output)
	}
	guest{files: []string{binary}, memoryMB: 1536, limit: time.Minute}.pass(t, "iopath.sh")
}
