// Package frontendtest is what the tests of the frontends that make block devices have
// in common: a device to try, a daemon to kill, and what every device must stand.
package frontendtest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

const (
	// Size of the devices, in bytes.
	Size = 64 << 20
	// sizeMax is what devices may grow to.
	sizeMax = 3 * Size
	// Timeout bounds a test.
	Timeout = 90 * time.Second
)

// Env is one device and the memory behind it.
type Env struct {
	*testing.T
	Ctx    context.Context //nolint:containedctx // It bounds the one test that an Env is for.
	Driver frontend.Driver
	Spec   frontend.Spec
	Disk   *nbdtest.Disk
	// mounts is a directory for mount points, outside of what a driver keeps.
	mounts string
}

// New makes an Env whose device is removed after the test.
func New(t *testing.T, driver frontend.Driver) *Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("tests of block devices need root: they make and mount them")
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	e := &Env{T: t, Ctx: ctx, Driver: driver, Disk: nbdtest.NewMemory(nbdtest.Info("", sizeMax, block.BlockSize)), mounts: t.TempDir()}
	e.Spec = frontend.Spec{
		Volume: block.VolumeID{ID: NewID(t)}, Attachment: block.AttachmentID{ID: NewID(t)}, Size: Size, Backend: e.Disk,
	}
	t.Cleanup(func() {
		defer cancel()
		if err := driver.Remove(ctx, e.Spec.Identity()); err != nil {
			t.Error(err)
		}
		if list, err := driver.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("left: %v (%v)", list, err)
		}
	})
	return e
}

// Logger is one that writes to a test's output.
func Logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// NewID draws an ID.
func NewID(t *testing.T) block.ID {
	t.Helper()
	id, err := block.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Attach makes the device; it is served until the test ends or somebody closes it.
func (e *Env) Attach() frontend.Device {
	e.Helper()
	device, err := e.Driver.Attach(e.Ctx, e.Spec)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = device.Close(e.Ctx) })
	return device
}

// Command runs a program that must succeed, and returns what it says.
func (e *Env) Command(name string, args ...string) string {
	e.Helper()
	out, err := exec.CommandContext(e.Ctx, name, args...).CombinedOutput()
	if err != nil {
		e.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Mount makes an ext4 file system on a device and mounts it.
func (e *Env) Mount(device string) (dir string) {
	e.Helper()
	e.Command("mkfs.ext4", "-q", "-F", device)
	return e.mount(device, 0)
}

func (e *Env) mount(device string, flags uintptr) (dir string) {
	e.Helper()
	dir, err := os.MkdirTemp(e.mounts, "")
	if err != nil {
		e.Fatal(err)
	}
	if err := unix.Mount(device, dir, "ext4", flags, ""); err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Unmount unmounts what Mount mounted.
func (e *Env) Unmount(dir string) {
	e.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		e.Fatal(err)
	}
}

// WriteSync writes a file and waits until it is durable.
func WriteSync(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// CloseLeavesTheDeviceForAdopt: between two daemons I/O waits, and the device remains
// what it was.
func (e *Env) CloseLeavesTheDeviceForAdopt() {
	device := e.Attach()
	dir := e.Mount(device.Path())
	if err := device.Close(e.Ctx); err != nil {
		e.Fatal(err)
	}
	if list, err := e.Driver.List(e.Ctx); err != nil || len(list) != 1 || list[0] != e.Spec.Identity() {
		e.Fatal(list, err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := WriteSync(filepath.Join(dir, "file"), []byte("patience")); err != nil {
			e.Error(err)
		}
	})
	smaller := e.Spec
	smaller.Size /= 2
	if _, err := e.Driver.Adopt(e.Ctx, smaller); !errors.Is(err, block.ErrConflict) {
		e.Errorf("Adopt with a smaller size: %v", err)
	}
	adopted, err := e.Driver.Adopt(e.Ctx, e.Spec)
	if err != nil {
		e.Fatal(err)
	}
	defer func() { _ = adopted.Close(e.Ctx) }() // once more after Detach, which a failure may skip
	waiting.Wait()
	if adopted.Path() != device.Path() {
		e.Errorf("path %s became %s", device.Path(), adopted.Path())
	}
	e.Unmount(dir)
	if err := adopted.Detach(e.Ctx); err != nil {
		e.Fatal(err)
	}
	if _, err := e.Driver.Adopt(e.Ctx, e.Spec); !errors.Is(err, block.ErrNotFound) {
		e.Errorf("Adopt after Detach: %v", err)
	}
}

// GrowsInUse: a device grows under a mounted file system, whose users notice nothing;
// and one whose daemon ended between the volume's growth and its own grows when it is
// adopted.
func (e *Env) GrowsInUse() {
	device := e.Attach()
	dir := e.Mount(device.Path())
	ctx, stop := context.WithCancel(e.Ctx)
	var writing sync.WaitGroup
	writing.Go(func() {
		for ctx.Err() == nil {
			if err := WriteSync(filepath.Join(dir, "busy"), make([]byte, 1<<20)); err != nil {
				e.Error(err)
			}
		}
	})
	for range 2 {
		if err := device.Resize(e.Ctx, 2*Size); err != nil {
			e.Fatal(err)
		}
		e.wantSize(device, 2*Size)
	}
	if err := device.Resize(e.Ctx, Size); err != nil {
		e.Error(err)
	}
	e.wantSize(device, 2*Size)
	stop()
	writing.Wait()
	if err := device.Close(e.Ctx); err != nil {
		e.Fatal(err)
	}
	e.Spec.Size = sizeMax
	adopted, err := e.Driver.Adopt(e.Ctx, e.Spec)
	if err != nil {
		e.Fatal(err)
	}
	defer func() { _ = adopted.Close(e.Ctx) }() // once more after Detach, which a failure may skip
	e.wantSize(adopted, sizeMax)
	e.Unmount(dir)
	e.Command("e2fsck", "-f", "-p", device.Path())
	e.Command("resize2fs", device.Path())
	e.Command("e2fsck", "-f", "-n", device.Path())
	if err := writeAtEnd(device.Path(), sizeMax); err != nil {
		e.Error(err)
	}
	if err := adopted.Detach(e.Ctx); err != nil {
		e.Fatal(err)
	}
}

// wantSize fails unless users of a device see so many bytes.
func (e *Env) wantSize(device frontend.Device, size int64) {
	e.Helper()
	if got := e.Command("blockdev", "--getsize64", device.Path()); got != strconv.FormatInt(size, 10) {
		e.Errorf("device of %s bytes, want %d", got, size)
	}
}

// writeAtEnd writes the last block of a device and reads it again.
func writeAtEnd(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	copy(buf.Data, "the end")
	_, writeErr := file.WriteAt(buf.Data, size-block.BlockSize)
	clear(buf.Data)
	_, readErr := file.ReadAt(buf.Data, size-block.BlockSize)
	if string(buf.Data[:7]) != "the end" {
		readErr = errors.Join(readErr, errors.New("other bytes were read"))
	}
	return errors.Join(writeErr, readErr, file.Close())
}

// RemoveFailsTheIO: what waits for a device that is removed is told so.
func (e *Env) RemoveFailsTheIO() {
	device := e.Attach()
	dir := e.Mount(device.Path())
	if err := device.Close(e.Ctx); err != nil {
		e.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := WriteSync(filepath.Join(dir, "file"), []byte("lost")); err == nil {
			e.Error("I/O of a removed device succeeded")
		}
	})
	if err := e.Driver.Remove(e.Ctx, e.Spec.Identity()); err != nil {
		e.Fatal(err)
	}
	waiting.Wait()
	// Still mounted, so that the kernel still shows it.
	if _, err := e.Driver.Adopt(e.Ctx, e.Spec); !errors.Is(err, block.ErrNotFound) {
		e.Errorf("Adopt of a removed device: %v", err)
	}
}
