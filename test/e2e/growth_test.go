//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestGrowth runs the tests of test/conformance that take snapshots and make volumes
// larger where volumes are the kernel's NBD devices, and where root may grow an ext4
// that is mounted.
func TestGrowth(t *testing.T) {
	guest{
		files: append(buildStatic(t, "./cmd/holdfastd", "./cmd/holdfast-csi", "./cmd/holdfast"),
			buildStaticTest(t, "e2e", "./test/conformance")),
		scratch:  []string{"4G"},
		memoryMB: 2048,
		limit:    8 * time.Minute,
	}.pass(t, "growth.sh")
}
