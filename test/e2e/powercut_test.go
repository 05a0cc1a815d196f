//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPowerCut replays what a store and its file system wrote, up to each flush that
// the store reported and to moments between, and opens the store there.
func TestPowerCut(t *testing.T) {
	binaries := buildStatic(t, "./test/e2e/powercut")
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "filesystem")
			if err := os.WriteFile(name, []byte(kind), 0o600); err != nil {
				t.Fatal(err)
			}
			guest{
				files:   append([]string{name}, binaries...),
				scratch: []string{"400M", "2G", "400M", "400M"},
				limit:   2 * time.Minute,
			}.pass(t, "power-cut.sh")
		})
	}
}

// TestFlakeyDisk: a disk that loses or fails writes takes only its own store along.
func TestFlakeyDisk(t *testing.T) {
	guest{files: buildStatic(t, "./test/e2e/powercut"), scratch: []string{"400M", "400M"}, limit: time.Minute}.pass(t, "flakey-disk.sh")
}
