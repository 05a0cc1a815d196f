//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestDiskFailure gives devices to a daemon, and lets one of two err and hang: the
// other one must not notice, and what failed is taken back.
func TestDiskFailure(t *testing.T) {
	guest{
		files:    buildStatic(t, "./cmd/holdfastd", "./cmd/holdfast"),
		scratch:  []string{"1G", "1G", "400M"},
		memoryMB: 1024,
		limit:    6 * time.Minute,
	}.pass(t, "disk-failure.sh")
}

// TestMirrorOfHangingDisk lets the disk under the client of a mirrored volume hang: the
// volume must go on with its other replicas.
func TestMirrorOfHangingDisk(t *testing.T) {
	guest{
		files:    buildStatic(t, "./cmd/holdfastd", "./cmd/holdfast"),
		scratch:  []string{"1G", "1G", "1G"},
		memoryMB: 1024,
		limit:    5 * time.Minute,
	}.pass(t, "mirror-hang.sh")
}
