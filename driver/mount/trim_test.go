package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTrim: what was deleted leaves the device, what was not stays.
func TestTrim(t *testing.T) {
	m := New()
	device, file := loopDevice(t)
	target := mountPoint(t, m)
	if err := m.FormatAndMount(t.Context(), Request{Device: device, Target: target, FSType: ext4}); err != nil {
		t.Fatal(err)
	}
	writeRow(t, target)
	large := filepath.Join(target, "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("gone", 8*mib)), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "sync", "--file-system", target)
	if err := os.Remove(large); err != nil {
		t.Fatal(err)
	}
	command(t, "sync", "--file-system", target)
	if used := allocated(t, file); used < 32*mib {
		t.Fatalf("before it is trimmed the device has %d bytes", used)
	}
	said, err := m.Trim(t.Context(), target)
	if err != nil || !strings.Contains(said, "trimmed") {
		t.Fatalf("trimming answers %q, %v", said, err)
	}
	if used := allocated(t, file); used > 16*mib {
		t.Errorf("after it was trimmed the device has %d bytes", used)
	}
	expectRow(t, target)
	if _, err := m.Trim(t.Context(), "/proc/self/status"); err == nil {
		t.Error("trimming what is no file system succeeds")
	}
}

// allocated is how many bytes of a file are on its disk.
func allocated(t *testing.T, file string) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(file, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}
