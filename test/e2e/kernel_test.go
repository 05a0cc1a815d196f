//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestKernelNBDClient proves the ground the other tests stand on: the guest's
// kernel, its NBD client, ext4 and fio, with nbdkit as the server.
func TestKernelNBDClient(t *testing.T) {
	guest{limit: 2 * time.Minute}.pass(t, "kernel-nbd.sh")
}

// TestGuestReportsFailure shows that a script that fails, and a guest that dies,
// are seen as such: a harness that calls everything good proves nothing.
func TestGuestReportsFailure(t *testing.T) {
	for _, test := range []struct {
		script string
		code   int
	}{
		{"fail.sh", 7},
		{"panic.sh", 125},
		{"hang.sh", 124},
	} {
		t.Run(test.script, func(t *testing.T) {
			if code := (guest{limit: 5 * time.Second}).run(t, test.script); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
		})
	}
}
