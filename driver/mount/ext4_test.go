//go:build e2e

package mount

import "testing"

// TestExt4Grows needs CAP_SYS_RESOURCE, which the guest has and not every machine: the
// kernel asks for it before it grows an ext4 that is mounted.
func TestExt4Grows(t *testing.T) {
	m := New()
	device, file := loopDevice(t)
	target := mountPoint(t, m)
	if err := m.FormatAndMount(t.Context(), Request{Device: device, Target: target, FSType: ext4}); err != nil {
		t.Fatal(err)
	}
	writeRow(t, target)
	expectGrowth(t, m, device, file, target, ext4)
	expectRow(t, target)
}
