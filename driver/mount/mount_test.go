package mount

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

const mib = 1 << 20

// loopDevice makes a block device of 64 MiB whose bytes are in file.
func loopDevice(t *testing.T) (device, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64*mib); err != nil {
		t.Fatal(err)
	}
	return loopOver(t, file), file
}

// loopOver makes a block device of a file.
func loopOver(t *testing.T, file string) (device string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root, which make test has")
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v: %s", err, out)
		}
	})
	return device
}

// testDevices is a directory of device nodes of this test's own. It is in /dev,
// because the temporary directory may be mounted nodev.
func testDevices(t *testing.T) Devices {
	t.Helper()
	dir, err := os.MkdirTemp("/dev", "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Devices(dir)
}

func newName(t *testing.T) DeviceName {
	t.Helper()
	var n DeviceName
	var err error
	if n.Volume.ID, err = block.NewID(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if n.Attachment.ID, err = block.NewID(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return n
}

// linked is a loop device with a node of its own.
func linked(t *testing.T) (Devices, DeviceName, string) {
	t.Helper()
	device, _ := loopDevice(t)
	devices, name := testDevices(t), newName(t)
	if _, _, err := devices.Link(name, device); err != nil {
		t.Fatal(err)
	}
	return devices, name, devices.Path(name)
}

func mountPoint(t *testing.T, m *Mounter) string {
	t.Helper()
	dir := Resolve(t.TempDir())
	t.Cleanup(func() {
		if mounted, err := m.IsMounted(dir); err == nil && mounted {
			if err := m.Unmount(dir); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

func TestFormatMountAndRead(t *testing.T) {
	m := New()
	devices, name, node := linked(t)
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	staging, published := mountPoint(t, m), mountPoint(t, m)
	if err := m.FormatAndMount(t.Context(), Request{Device: node, Target: staging, FSType: "ext4", Options: []string{"noatime"}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(staging, "row"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Bind(staging, published, true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(published, "row"), []byte("lost"), 0o600); err == nil {
		t.Error("writing through a read-only bind mount succeeded")
	}
	points, err := m.Mounts(devices)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]Point{}
	for _, p := range points {
		found[p.Path] = p
	}
	if p := found[staging]; p.Device != name || p.FSType != "ext4" || p.ReadOnly {
		t.Errorf("staging mount reads %+v", p)
	}
	if p := found[published]; p.Device != name || !p.ReadOnly {
		t.Errorf("published mount reads %+v", p)
	}
	usage, err := m.FileSystemUsage(staging)
	if err != nil || usage.TotalBytes == 0 || usage.UsedInodes == 0 {
		t.Errorf("usage is %+v, %v", usage, err)
	}
	if busy, err := devices.Busy(name); err != nil || !busy {
		t.Errorf("a mounted device is busy = %v, %v", busy, err)
	}
	open, err := os.Open(filepath.Join(published, "row"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(published); !errors.Is(err, ErrBusy) {
		t.Errorf("unmount with an open file: %v", err)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{published, staging} {
		if err := m.Unmount(path); err != nil {
			t.Fatal(err)
		}
	}
	if busy, err := devices.Busy(name); err != nil || busy {
		t.Errorf("an unmounted device is busy = %v, %v", busy, err)
	}

	// Mounted again it is checked, not formatted.
	if err := m.FormatAndMount(t.Context(), Request{Device: node, Target: staging, FSType: "ext4"}); err != nil {
		t.Fatal(err)
	}
	if row, err := os.ReadFile(filepath.Join(staging, "row")); err != nil || string(row) != "kept" {
		t.Errorf("after the second mount the file reads %q, %v", row, err)
	}
}

// TestSmallVolumeHasLargeBlocks: below 512 MiB mke2fs would choose 1 KiB.
func TestSmallVolumeHasLargeBlocks(t *testing.T) {
	m := New()
	_, _, node := linked(t)
	staging := mountPoint(t, m)
	if err := m.FormatAndMount(t.Context(), Request{Device: node, Target: staging, FSType: "ext4"}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "stat", "-f", "-c", "%S", staging).Output()
	if err != nil || strings.TrimSpace(string(out)) != "4096" {
		t.Errorf("block size is %s, %v", out, err)
	}
}

func TestNeverFormatsData(t *testing.T) {
	m := New()
	for name, content := range map[string]struct {
		fill    func(file string) error
		options []string
		want    error
	}{
		"raw data": {
			fill: func(file string) error { return writeAt(file, 300_000, []byte("mine")) },
			want: ErrForeignData,
		},
		"another file system": {
			fill: func(file string) error { return exec.CommandContext(t.Context(), "mkswap", file).Run() },
			want: ErrForeignData,
		},
		"partitions": {
			fill: func(file string) error { return writeAt(file, 510, []byte{0x55, 0xaa}) },
			want: ErrForeignData,
		},
		"empty, read-only": {
			fill:    func(string) error { return nil },
			options: []string{"ro"},
			want:    ErrUnformatted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			device, file := loopDevice(t)
			if err := content.fill(file); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			err = m.FormatAndMount(t.Context(), Request{Device: device, Target: mountPoint(t, m), FSType: "ext4", Options: content.options})
			if !errors.Is(err, content.want) {
				t.Errorf("mounting answers %v, want %v", err, content.want)
			}
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the device was changed (%v)", err)
			}
		})
	}
}

func writeAt(file string, offset int64, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(data, offset)
	return err
}

func TestMountHonoursItsContext(t *testing.T) {
	m := New()
	device, _ := loopDevice(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.FormatAndMount(ctx, Request{Device: device, Target: mountPoint(t, m), FSType: "ext4"}); !errors.Is(err, context.Canceled) {
		t.Errorf("mounting under an ended context answers %v", err)
	}
}

func TestBindOfTheDeviceItself(t *testing.T) {
	m := New()
	devices, name, node := linked(t)
	file := filepath.Join(Resolve(t.TempDir()), "block")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Bind(node, file, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(file); err != nil {
			t.Error(err)
		}
	})
	if size, err := m.DeviceSize(file); err != nil || size != 64*mib {
		t.Errorf("size is %d, %v", size, err)
	}
	for _, removed := range []bool{false, true} {
		if removed {
			if err := devices.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		points, err := m.Mounts(devices)
		if err != nil {
			t.Fatal(err)
		}
		var found bool
		for _, p := range points {
			found = found || p.Path == file && p.Device == name && p.FSType == "" && p.Major == 7
		}
		if !found {
			t.Errorf("node removed = %v: the bind mount of the device is missing in %+v", removed, points)
		}
	}
}

func TestDeviceNodes(t *testing.T) {
	device, _ := loopDevice(t)
	other, _ := loopDevice(t)
	devices, name := testDevices(t), newName(t)
	major, minor, err := devices.Link(name, device)
	if err != nil {
		t.Fatal(err)
	}
	if _, again, err := devices.Link(name, device); err != nil || again != minor {
		t.Errorf("linking again answers %d, %v; want %d", again, err, minor)
	}
	if _, moved, err := devices.Link(name, other); err != nil || moved == minor {
		t.Errorf("linking another device answers %d:%d, %v", major, moved, err)
	}
	if names, err := devices.List(name.Volume); err != nil || len(names) != 1 || names[0] != name {
		t.Errorf("nodes of the volume are %v, %v", names, err)
	}
	if names, err := devices.List(newName(t).Volume); err != nil || len(names) != 0 {
		t.Errorf("nodes of another volume are %v, %v", names, err)
	}
	for range 2 {
		if err := devices.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if busy, err := devices.Busy(name); err != nil || busy {
		t.Errorf("a missing device is busy = %v, %v", busy, err)
	}
	if _, _, err := devices.Link(name, filepath.Join(t.TempDir())); !errors.Is(err, ErrNotBlockDevice) {
		t.Errorf("linking a directory answers %v", err)
	}
}

func FuzzParseDeviceName(f *testing.F) {
	f.Add("00112233445566778899aabbccddeeff-ffeeddccbbaa99887766554433221100")
	f.Add("-")
	f.Add("loop0")
	f.Fuzz(func(t *testing.T, s string) {
		name, ok := parseDeviceName(s)
		if ok && !strings.EqualFold(name.String(), s) {
			t.Errorf("%q is read as %s", s, name)
		}
	})
}
