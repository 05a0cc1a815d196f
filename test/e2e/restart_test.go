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

// TestDaemonRestart kills daemons under load: with the kernel's NBD device in front,
// nobody above it may notice more than a pause.
func TestDaemonRestart(t *testing.T) {
	guest{
		files:    buildStatic(t, "./cmd/holdfastd", "./test/e2e/restart"),
		scratch:  []string{"2G", "2G", "2G"},
		memoryMB: 1536,
		limit:    10 * time.Minute,
	}.pass(t, "daemon-restart.sh")
}
