//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestPlantedIOError shows that the checks of TestDaemonRestart see an I/O error, in
// fio and in the kernel's log, and are content without one.
func TestPlantedIOError(t *testing.T) {
	g := guest{files: buildStatic(t, "./test/e2e/restart"), limit: time.Minute}
	g.pass(t, "planted-io-error.sh")
}
