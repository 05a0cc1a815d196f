package mount

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// xfsDevice makes an empty block device of the least size that an XFS can have, with
// a node named after a volume.
func xfsDevice(t *testing.T) (name DeviceName, device, file string) {
	t.Helper()
	device, file = loopDevice(t)
	resize(t, device, file, 300*mib)
	return newName(t), device, file
}

// resize gives a loop device another size.
func resize(t *testing.T, device, file string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	command(t, "losetup", "--set-capacity", device)
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func mountXFS(t *testing.T, m *Mounter, name DeviceName, device string, options ...string) (target string) {
	t.Helper()
	target = mountPoint(t, m)
	r := Request{Device: device, Target: target, FSType: xfs, UUID: name.UUID(), Options: options}
	if err := m.FormatAndMount(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return target
}

func expectUUID(t *testing.T, m *Mounter, device, want string) {
	t.Helper()
	if have, err := m.uuid(t.Context(), device); err != nil || have != want {
		t.Errorf("the UUID of %s is %s, %v; want %s", device, have, err, want)
	}
}

func expectRow(t *testing.T, target string) {
	t.Helper()
	if row, err := os.ReadFile(filepath.Join(target, "row")); err != nil || string(row) != "kept" {
		t.Errorf("the file reads %q, %v", row, err)
	}
}

// writeRow writes a file that is on the device when this returns, by way of the log.
func writeRow(t *testing.T, target string) {
	t.Helper()
	path := filepath.Join(target, "row")
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "sync", path, target)
}

// snapshotOf copies a device as it is, as a snapshot of a mounted volume does.
func snapshotOf(t *testing.T, file string) (device, copied string) {
	t.Helper()
	copied = filepath.Join(t.TempDir(), "copy")
	command(t, "cp", "--sparse=always", file, copied)
	return loopOver(t, copied), copied
}

func TestXFSIsCalledAfterItsVolume(t *testing.T) {
	m := New()
	name, device, _ := xfsDevice(t)
	target := mountXFS(t, m, name, device)
	expectUUID(t, m, device, name.UUID())
	writeRow(t, target)
	if err := m.Unmount(target); err != nil {
		t.Fatal(err)
	}
	expectRow(t, mountXFS(t, m, name, device))
	other := Request{Device: device, Target: mountPoint(t, m), FSType: ext4}
	if err := m.FormatAndMount(t.Context(), other); err == nil || !strings.Contains(err.Error(), "found xfs") {
		t.Errorf("an XFS where an ext4 is wanted answers %v", err)
	}
}

// TestXFSBesideItsSource: a snapshot of a mounted file system, whose log is dirty, is
// mounted beside it.
func TestXFSBesideItsSource(t *testing.T) {
	m := New()
	source, device, file := xfsDevice(t)
	writeRow(t, mountXFS(t, m, source, device))
	clone := newName(t)
	copied, _ := snapshotOf(t, file)

	r := Request{Device: copied, FSType: xfs, UUID: clone.UUID()}
	if said, err := m.rename(t.Context(), r); err != nil || !strings.Contains(said, "log") {
		t.Fatalf("renaming a file system with a dirty log answers %q, %v", said, err)
	}
	for range 2 {
		target := mountXFS(t, m, clone, copied)
		expectUUID(t, m, copied, clone.UUID())
		expectRow(t, target)
		if err := m.Unmount(target); err != nil {
			t.Fatal(err)
		}
	}
	expectUUID(t, m, device, source.UUID())
}

// TestXFSRenamingInterrupted: xfs_admin was killed when the log had the new UUID and
// the superblock the old one.
func TestXFSRenamingInterrupted(t *testing.T) {
	m := New()
	source, device, file := xfsDevice(t)
	target := mountXFS(t, m, source, device)
	writeRow(t, target)
	if err := m.Unmount(target); err != nil {
		t.Fatal(err)
	}
	clone := newName(t)
	copied, _ := snapshotOf(t, file)
	if said, err := m.rename(t.Context(), Request{Device: copied, UUID: clone.UUID()}); err != nil || said != "" {
		t.Fatalf("renaming answers %q, %v", said, err)
	}
	command(t, "dd", "if="+device, "of="+copied, "bs=512", "count=1", "conv=notrunc,fsync", "status=none")
	expectUUID(t, m, copied, source.UUID())
	if err := m.mounter.Mount(copied, mountPoint(t, m), xfs, []string{noUUID}); err == nil {
		t.Fatal("the kernel mounts it: the test does not show what it should")
	}
	expectRow(t, mountXFS(t, m, clone, copied))
	expectUUID(t, m, copied, clone.UUID())
}

// TestReadOnlyXFSIsLeftAsItIs, and is mounted beside its source all the same.
func TestReadOnlyXFSIsLeftAsItIs(t *testing.T) {
	m := New()
	source, device, file := xfsDevice(t)
	writeRow(t, mountXFS(t, m, source, device))
	copied, _ := snapshotOf(t, file)
	expectRow(t, mountXFS(t, m, newName(t), copied, "ro"))
	expectUUID(t, m, copied, source.UUID())
}

func TestXFSGrows(t *testing.T) {
	m := New()
	name, device, file := xfsDevice(t)
	target := mountXFS(t, m, name, device)
	writeRow(t, target)
	expectGrowth(t, m, device, file, target, xfs)
	expectRow(t, target)
}

// expectGrowth makes a device 100 MiB larger, and wants the file system to follow,
// once.
func expectGrowth(t *testing.T, m *Mounter, device, file, target, fsType string) {
	t.Helper()
	before, err := m.FileSystemUsage(target)
	if err != nil {
		t.Fatal(err)
	}
	size, err := m.DeviceSize(device)
	if err != nil {
		t.Fatal(err)
	}
	for _, larger := range []int64{0, 100 * mib, 100 * mib} {
		resize(t, device, file, size+larger)
		if err := m.Grow(t.Context(), device, target, fsType); err != nil {
			t.Fatal(err)
		}
		after, err := m.FileSystemUsage(target)
		grown := after.TotalBytes - before.TotalBytes
		if err != nil || grown > larger || grown < larger*9/10 {
			t.Errorf("on a device that is %d bytes larger, the file system grew by %d, %v", larger, grown, err)
		}
	}
}

func TestGrowthOfWhatIsGone(t *testing.T) {
	m := New()
	for _, fsType := range []string{ext4, xfs, "vfat"} {
		if err := m.Grow(t.Context(), "/dev/null", t.TempDir(), fsType); err == nil {
			t.Errorf("growing what is no %s succeeds", fsType)
		}
	}
}
