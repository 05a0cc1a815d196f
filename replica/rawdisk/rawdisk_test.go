package rawdisk

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// loop is a loop device over a sparse file, with partitions if the file has some.
func loop(t *testing.T, file string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", "--partscan", file).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	path := strings.TrimSpace(string(output))
	t.Cleanup(func() { detach(t, path) })
	return path
}

// detach ends a loop device; one that has ended is none.
func detach(t *testing.T, path string) {
	t.Helper()
	output, err := exec.Command("losetup", "--detach", path).CombinedOutput()
	if err != nil && !bytes.Contains(output, []byte("No such device")) {
		t.Errorf("losetup --detach: %v: %s", err, output)
	}
}

func image(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 320<<20); err != nil {
		t.Fatal(err)
	}
	return name
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if output, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, output)
	}
}

// TestLife formats a device, mounts it, finds it again under another name, and takes it
// away.
func TestLife(t *testing.T) {
	file := image(t)
	path := loop(t, file)
	if _, err := Identify(path); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("an empty device is a disk: %v", err)
	}
	uuid, err := Format(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Identify(path); err != nil || again != uuid {
		t.Fatalf("identified as %s, %v; made as %s", again, err, uuid)
	}
	dir := filepath.Join(t.TempDir(), "a dir", uuid)
	for range 2 {
		found, err := Mount(t.Context(), uuid, dir)
		if err != nil || found != path {
			t.Fatalf("mounted %s, want %s: %v", found, path, err)
		}
	}
	checkMounted(t, dir)
	if _, err := Format(t.Context(), path, true); !errors.Is(err, block.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("a mounted device was taken: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(dir); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(dir); err != nil {
		t.Fatalf("unmounting twice: %v", err)
	}
	if _, err := Format(t.Context(), path, false); !errors.Is(err, block.ErrExists) || !strings.Contains(err.Error(), Label) {
		t.Fatalf("a disk of ours was formatted again: %v", err)
	}

	// Another name: the device is the same, what the kernel calls it is not.
	detach(t, path)
	if _, err := Mount(t.Context(), uuid, dir); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("mounted a device that is gone: %v", err)
	}
	other := loop(t, image(t)) // takes the name that has become free
	if other != path {
		t.Logf("the name %s went to nobody, %s was given", path, other)
	}
	moved := loop(t, file)
	if found, err := Mount(t.Context(), uuid, dir); err != nil || found != moved {
		t.Fatalf("found at %s, want %s: %v", found, moved, err)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, "data")); err != nil || string(kept) != "kept" {
		t.Fatalf("read %q: %v", kept, err)
	}
	if err := Unmount(dir); err != nil {
		t.Fatal(err)
	}
}

// checkMounted looks at the options of the mount and of the file system.
func checkMounted(t *testing.T, dir string) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	const want = unix.ST_NOATIME | unix.ST_NODEV | unix.ST_NOSUID | unix.ST_NOEXEC
	if st.Type != unix.XFS_SUPER_MAGIC || st.Flags&want != want {
		t.Fatalf("type %#x, flags %#x", st.Type, st.Flags)
	}
	output, err := exec.CommandContext(t.Context(), "xfs_info", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"reflink=0", "rmapbt=0", "crc=1", "sunit=0"} {
		if !bytes.Contains(output, []byte(want)) {
			t.Errorf("no %s in:\n%s", want, output)
		}
	}
}

// TestCopy: of two devices with one UUID neither is mounted.
func TestCopy(t *testing.T) {
	file := image(t)
	uuid, err := Format(t.Context(), loop(t, file), false)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	tool(t, "cp", "--sparse=always", file, copied)
	loop(t, copied)
	if _, err := Mount(t.Context(), uuid, filepath.Join(t.TempDir(), "m")); !errors.Is(err, block.ErrExists) {
		t.Fatalf("one of two copies was mounted: %v", err)
	}
}

// TestData: what holds data is refused, in words that name it, and taken by force.
func TestData(t *testing.T) {
	for _, c := range []struct {
		name, want string
		put        func(t *testing.T, path string)
	}{
		{"ext4", "the file system ext4 labelled \"home\"", func(t *testing.T, path string) { tool(t, "mkfs.ext4", "-q", "-L", "home", path) }},
		{"xfs", "the file system xfs", func(t *testing.T, path string) { tool(t, "mkfs.xfs", "-q", path) }},
		{"swap", "swap", func(t *testing.T, path string) { tool(t, "mkswap", path) }},
		{"LVM", "LVM2_member", func(t *testing.T, path string) {
			// The label of a physical volume, in its second sector.
			patch(t, path, 512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\xb5\x59\x4b\x4c\x20\x00\x00\x00LVM2 001")
		}},
		{"LUKS", "an encrypted volume", func(t *testing.T, path string) { patch(t, path, 0, "LUKS\xba\xbe\x00\x01") }},
		{"partitions", "a partition table (dos)", func(t *testing.T, path string) {
			// A table of the old kind with one partition of 10 MiB, 1 MiB from the start.
			patch(t, path, 446, "\x00\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x50\x00\x00")
			patch(t, path, 510, "\x55\xaa")
		}},
		{"unknown bytes", "bytes that no tool recognises", func(t *testing.T, path string) { patch(t, path, 70000, "database") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := loop(t, image(t))
			c.put(t, path)
			_, err := Format(t.Context(), path, false)
			if !errors.Is(err, block.ErrExists) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want one that names %s", err, c.want)
			}
			uuid, err := Format(t.Context(), path, true)
			if err != nil {
				t.Fatalf("by force: %v", err)
			}
			if found, err := Find(t.Context(), uuid); err != nil || found != path {
				t.Fatalf("found %s: %v", found, err)
			}
		})
	}
}

func patch(t *testing.T, path string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), at)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestInUse: what somebody holds is refused, by force too.
func TestInUse(t *testing.T) {
	path := loop(t, image(t))
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Format(t.Context(), path, true); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("taken from who holds it: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(small, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Format(t.Context(), loop(t, small), true); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("a small device: %v", err)
	}
	if _, err := Format(t.Context(), small, true); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("a file: %v", err)
	}
}

func TestStripe(t *testing.T) {
	for _, c := range []struct {
		name  string
		hints ioHints
		want  string
	}{
		{"says nothing", ioHints{physical: 512, minimum: 512}, noStripe},
		{"NVMe", ioHints{physical: 4096, minimum: 4096, optimal: 131072}, "su=131072,sw=1"},
		{"array", ioHints{physical: 4096, minimum: 65536, optimal: 4 * 65536}, "su=65536,sw=4"},
		{"nonsense of USB", ioHints{physical: 512, minimum: 512, optimal: 33553920}, noStripe},
		{"not whole blocks", ioHints{physical: 512, minimum: 512, optimal: 6144}, noStripe},
		{"uneven array", ioHints{physical: 512, minimum: 65536, optimal: 98304}, "su=98304,sw=1"},
	} {
		if got := stripeOf(c.hints); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	if got := unescape(`/a\040dir\134x\0`); got != `/a dir\x\0` {
		t.Fatal(got)
	}
}
