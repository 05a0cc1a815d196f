//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestPostgres runs PostgreSQL on a volume behind the kernel's NBD client while
// daemons and disks fail: the same program as `make postgres`, in smaller.
func TestPostgres(t *testing.T) {
	guest{
		files:    buildStatic(t, "./cmd/holdfastd", "./cmd/holdfast-csi", "./test/postgres"),
		scratch:  []string{"3G", "3G", "3G"},
		memoryMB: 2048,
		limit:    25 * time.Minute,
	}.pass(t, "postgres.sh")
}
