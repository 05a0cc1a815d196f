//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestFrontendNBD runs the tests of the kernel NBD frontend: attach, adopt,
// remove, and the daemon killed under load.
func TestFrontendNBD(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "frontend-nbd.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "e2e", "-o", binary,
		"github.com/holdfast-io/holdfast/engine/frontend/nbd")
	// Static, as the guest has another C library.
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	guest{files: []string{binary}, limit: 5 * time.Minute}.pass(t, "frontend-nbd.sh")
}
