//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestFileSystems runs the tests of driver/mount where root may grow an ext4 that is
// mounted: formatting, mounting, new UUIDs, growth and trim of ext4 and XFS.
func TestFileSystems(t *testing.T) {
	guest{
		files:    []string{buildStaticTest(t, "e2e", "./driver/mount")},
		memoryMB: 2048,
		limit:    5 * time.Minute,
	}.pass(t, "file-systems.sh")
}
