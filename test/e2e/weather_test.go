//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestWeather runs the round of bad weather of test/robustness, which needs netem
// and a clock of its own: three daemons behind links with delay, loss, reordering and
// duplicates, and a wall clock that jumps. A verified load must see no error and no
// wrong byte, replicas must be equal afterwards, and nobody may be removed or elected
// because the wall clock was turned.
func TestWeather(t *testing.T) {
	guest{
		files:    append(buildStatic(t, "./cmd/holdfastd"), buildStaticTest(t, "robust", "./test/robustness")),
		scratch:  []string{"4G"},
		memoryMB: 2048,
		limit:    8 * time.Minute,
	}.pass(t, "weather.sh")
}

// buildStaticTest builds the test binary of a package with a tag.
func buildStaticTest(t *testing.T, tag, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(name)+".test")
	command := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-tags", tag, "-o", binary, name)
	command.Dir = "../.."
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the test of %s: %v\n%s", name, err, output)
	}
	return binary
}
