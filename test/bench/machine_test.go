package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMachineCPU(t *testing.T) {
	const text = "cpu  100 20 30 9999 8888 4 5 6 50 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
	if got, err := parseMachineCPU(text); err != nil || got != 1650*time.Millisecond {
		t.Errorf("%v (%v), want all but idle, iowait and guests", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu a 2 3 4 5 6 7 8 9"} {
		if _, err := parseMachineCPU(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if used, err := machineCPU(); err != nil || used <= 0 {
		t.Errorf("of this machine: %v (%v)", used, err)
	}
}

func TestFileSystemOf(t *testing.T) {
	const table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n" +
		"30 22 0:26 / /tmp rw - tmpfs tmpfs rw\nshort\n"
	for device, want := range map[string]string{"254:0": "ext4", "0:26": "tmpfs", "1:1": unknown} {
		if got := fileSystemOf(table, device); got != want {
			t.Errorf("%s: %s, want %s", device, got, want)
		}
	}
}

// TestBlockDevice: the file system may lie on a partition; the disk is its parent.
func TestBlockDevice(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "devices", "nvme0n1")
	for path, text := range map[string]string{
		"size": "4194304\n", "device/model": "A disk \n", "nvme0n1p2/partition": "2\n", "nvme0n1p2/size": "1\n",
	} {
		path = filepath.Join(disk, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for number, target := range map[string]string{"259:0": disk, "259:2": filepath.Join(disk, "nvme0n1p2")} {
		if err := os.Symlink(target, filepath.Join(dir, number)); err != nil {
			t.Fatal(err)
		}
		if got := blockDevice(dir, number); got != "nvme0n1 A disk 2 GiB" {
			t.Errorf("%s: %s", number, got)
		}
	}
	if got := blockDevice(dir, "0:5"); got != unknown {
		t.Errorf("a file system without a disk: %s", got)
	}
}

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"-rounds", "9", "-runtime", "4s", "-size", "128", "-only", "flush,seqread", "-o", "json"}, workloads())
	if err != nil || o.Rounds != 9 || o.Runtime != 4*time.Second || o.SizeBytes != 128<<20 || len(o.Workloads) != 2 || o.Output != outputJSON {
		t.Errorf("%+v (%v)", o, err)
	}
	if o, err := parseFlags([]string{"-quick", "-dir", "/d"}, workloads()); err != nil || o.Rounds != quick.Rounds || o.Dir != "/d" || len(o.Workloads) != len(workloads()) {
		t.Errorf("%+v (%v)", o, err)
	}
	for flags, why := range map[string]string{
		"-rounds 0": "-rounds", "-runtime 1500ms": "whole seconds", "-runtime 0s": "whole seconds", "-size 1": "64 MiB",
		"-only nothing": "there are", "-o xml": "json", "more": "unexpected",
	} {
		if _, err := parseFlags(strings.Fields(flags), workloads()); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

func TestTimeLeft(t *testing.T) {
	if got := timeLeft(30*time.Second, 10, 40); got != 90*time.Second {
		t.Error(got)
	}
}
