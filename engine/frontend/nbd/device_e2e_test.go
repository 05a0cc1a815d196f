//go:build e2e

// These tests need the NBD client of a real kernel, and root. test/e2e builds
// them as one static binary and runs that in a guest.

package nbd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

const (
	roleVariable = "HOLDFAST_TEST_ROLE"
	roleDaemon   = "daemon"

	testSize    = 64 << 20
	testTimeout = 90 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != roleDaemon {
		os.Exit(m.Run())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := daemonMain(log); err != nil {
		log.Error("test daemon failed", "err", err)
		os.Exit(1)
	}
}

// daemonMain serves a device from a file until its input ends; arguments are
// file, node, volume, attachment. It adopts the device if there is one.
func daemonMain(log *slog.Logger) error {
	var ids [3]block.ID
	for i := range ids {
		var err error
		if ids[i], err = block.ParseID(os.Args[2+i]); err != nil {
			return err
		}
	}
	disk, err := nbdtest.OpenFile(nbdtest.Info("", testSize, 4096), os.Args[1])
	if err != nil {
		return err
	}
	spec := frontend.Spec{
		Volume: block.VolumeID{ID: ids[1]}, Attachment: block.AttachmentID{ID: ids[2]},
		Size: testSize, Backend: disk,
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	driver := &Driver{Node: block.NodeID{ID: ids[0]}, Logger: log}
	device, err := driver.Adopt(ctx, spec)
	if errors.Is(err, block.ErrNotFound) {
		device, err = driver.Attach(ctx, spec)
	}
	if err != nil {
		return err
	}
	fmt.Println(device.Path())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return device.Close(ctx)
}

// testEnv is one device and its backend.
type testEnv struct {
	t      *testing.T
	ctx    context.Context
	driver *Driver
	spec   frontend.Spec
	disk   *nbdtest.Disk
}

func newEnv(t *testing.T) *testEnv {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	e := &testEnv{t: t, ctx: ctx, driver: &Driver{
		Node: block.NodeID{ID: newID(t)}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	e.disk = nbdtest.NewMemory(nbdtest.Info("", testSize, 4096))
	e.spec = frontend.Spec{
		Volume: block.VolumeID{ID: newID(t)}, Attachment: block.AttachmentID{ID: newID(t)},
		Size: testSize, Backend: e.disk,
	}
	t.Cleanup(func() {
		defer cancel()
		if err := e.driver.Remove(ctx, e.spec.Identity()); err != nil {
			t.Error(err)
		}
		if list, err := e.driver.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("left: %v (%v)", list, err)
		}
	})
	return e
}

func newID(t *testing.T) block.ID {
	t.Helper()
	id, err := block.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (e *testEnv) attach() frontend.Device {
	e.t.Helper()
	device, err := e.driver.Attach(e.ctx, e.spec)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = device.Close(e.ctx) })
	return device
}

func (e *testEnv) command(name string, args ...string) string {
	e.t.Helper()
	out, err := exec.CommandContext(e.ctx, name, args...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (e *testEnv) mount(device string) string {
	e.t.Helper()
	dir := e.t.TempDir()
	e.command("mkfs.ext4", "-q", "-F", device)
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func (e *testEnv) unmount(dir string) {
	e.t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		e.t.Fatal(err)
	}
}

// writeSync writes a file and waits until it is durable.
func writeSync(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

func TestDeviceReadsWritesAndTrims(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	for name, want := range map[string]string{
		"backend": e.driver.identifier(e.spec.Identity()), "queue/logical_block_size": "4096",
		"queue/io_timeout": "500", "queue/max_sectors_kb": "1024", "queue/fua": "1", "queue/rotational": "0",
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device.Path()), name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, want %s (%v)", name, got, want, err)
		}
	}
	if size := e.command("blockdev", "--getsize64", device.Path()); size != fmt.Sprint(testSize) {
		t.Errorf("device of %s bytes", size)
	}
	if _, err := e.driver.Attach(e.ctx, e.spec); !errors.Is(err, block.ErrExists) {
		t.Errorf("second Attach: %v", err)
	}
	file, err := os.OpenFile(device.Path(), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf := block.NewBuffer(1 << 20)
	defer buf.Release()
	copy(buf.Data, bytes.Repeat([]byte("holdfast"), len(buf.Data)/8))
	if _, err := file.WriteAt(buf.Data, 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
	if e.disk.Flushes.Load() == 0 {
		t.Error("fsync did not become a flush")
	}
	got := make([]byte, len(buf.Data))
	if _, err := e.disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, buf.Data) {
		t.Errorf("the backend has other bytes (%v)", err)
	}
	e.command("blkdiscard", "--offset", fmt.Sprint(3<<20), "--length", fmt.Sprint(1<<20), device.Path())
	if _, err := e.disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("the discarded range is not zeros (%v)", err)
	}
	if err := device.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
	if err := device.Detach(e.ctx); err != nil {
		t.Errorf("second Detach: %v", err)
	}
	if _, err := e.driver.Adopt(e.ctx, e.spec); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("Adopt after Detach: %v", err)
	}
}

func TestCloseLeavesTheDeviceForAdopt(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	dir := e.mount(device.Path())
	if err := device.Close(e.ctx); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := writeSync(filepath.Join(dir, "file"), []byte("patience")); err != nil {
			t.Error(err)
		}
	})
	grown := e.spec
	grown.Size *= 2
	if _, err := e.driver.Adopt(e.ctx, grown); !errors.Is(err, block.ErrConflict) {
		t.Errorf("Adopt with another size: %v", err)
	}
	adopted, err := e.driver.Adopt(e.ctx, e.spec)
	if err != nil {
		t.Fatal(err)
	}
	defer adopted.Close(e.ctx)
	waiting.Wait()
	e.unmount(dir)
	if err := adopted.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveFailsTheIO(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	dir := e.mount(device.Path())
	if err := device.Close(e.ctx); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := writeSync(filepath.Join(dir, "file"), []byte("lost")); err == nil {
			t.Error("I/O of a removed device succeeded")
		}
	})
	if err := e.driver.Remove(e.ctx, e.spec.Identity()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	// Still mounted, so that the kernel still shows it.
	if _, err := e.driver.Adopt(e.ctx, e.spec); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("Adopt of a removed device: %v", err)
	}
}

func TestOtherNodesDeviceIsLeftAlone(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	other := &Driver{Node: block.NodeID{ID: newID(t)}}
	if list, err := other.List(e.ctx); err != nil || len(list) != 0 {
		t.Errorf("another node lists %v (%v)", list, err)
	}
	if err := other.Remove(e.ctx, e.spec.Identity()); err != nil {
		t.Error(err)
	}
	if err := writeSync(device.Path(), []byte("still there")); err != nil {
		t.Error(err)
	}
}

// moody refuses one request in the way of an engine that is about to stop.
type moody struct {
	*nbdtest.Disk
	refuse  atomic.Bool
	refused atomic.Int64
}

func (m *moody) Submit(r *nbd.Request) {
	if m.refuse.CompareAndSwap(true, false) {
		m.refused.Add(1)
		r.Complete(fmt.Errorf("engine: %w", block.ErrStaleEpoch), nil)
		return
	}
	m.Disk.Submit(r)
}

func TestUnansweredRequestIsAskedAgain(t *testing.T) {
	e := newEnv(t)
	backend := &moody{Disk: e.disk}
	e.spec.Backend = backend
	device := e.attach()
	dir := e.mount(device.Path())
	for n := range 3 {
		backend.refuse.Store(true)
		began := time.Now()
		if err := writeSync(filepath.Join(dir, fmt.Sprint(n)), []byte("again")); err != nil {
			t.Fatal(err)
		}
		t.Logf("answered after %v", time.Since(began))
	}
	if n := backend.refused.Load(); n != 3 {
		t.Errorf("%d requests were refused", n)
	}
	e.unmount(dir)
	if err := device.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
}

// daemon is the server side in a process of its own.
type daemon struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	path    string
}

func (e *testEnv) startDaemon(backing string) *daemon {
	e.t.Helper()
	d := &daemon{command: exec.Command("/proc/self/exe", backing, e.driver.Node.String(), e.spec.Volume.String(), e.spec.Attachment.String())}
	d.command.Env = append(os.Environ(), roleVariable+"="+roleDaemon)
	d.command.Stderr = e.t.Output()
	var err error
	if d.stdin, err = d.command.StdinPipe(); err != nil {
		e.t.Fatal(err)
	}
	out, err := d.command.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := d.command.Start(); err != nil {
		e.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = d.command.Process.Kill()
		e.t.Fatal("daemon did not come up:", err, d.command.Wait())
	}
	d.path = strings.TrimSpace(line)
	return d
}

func (d *daemon) kill() {
	_ = d.command.Process.Kill()
	_ = d.command.Wait()
	_ = d.stdin.Close()
}

// TestDaemonKilledUnderLoad kills the server side with SIGKILL while files are
// written, and finds neither an error nor a lost byte.
func TestDaemonKilledUnderLoad(t *testing.T) {
	e := newEnv(t)
	backing := filepath.Join(t.TempDir(), "backing")
	d := e.startDaemon(backing)
	defer func() { d.kill() }()
	dir := e.mount(d.path)

	const writers, kills = 4, 4
	content := func(w, n int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%04d/%04d", w, n)), 2000) }
	var stop atomic.Bool
	var written [writers]int
	var total, slowest atomic.Int64
	var load sync.WaitGroup
	for w := range writers {
		load.Go(func() {
			for n := 0; !stop.Load(); n++ {
				began := time.Now()
				if err := writeSync(filepath.Join(dir, fmt.Sprintf("%d-%d", w, n%50)), content(w, n)); err != nil {
					t.Errorf("writer %d, file %d: %v", w, n, err)
					return
				}
				written[w] = n + 1
				total.Add(1)
				if took := time.Since(began).Milliseconds(); took > slowest.Load() {
					slowest.Store(took)
				}
			}
		})
	}
	for range kills {
		before := total.Load()
		for total.Load() < before+20 && !t.Failed() && e.ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		d.kill()
		d = e.startDaemon(backing)
	}
	stop.Store(true)
	load.Wait()
	if t.Failed() || e.ctx.Err() != nil {
		t.Fatal("load failed", e.ctx.Err())
	}
	e.unmount(dir)
	e.command("fsck.ext4", "-f", "-n", d.path)
	if err := unix.Mount(d.path, dir, "ext4", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for w, count := range written {
		for n := max(0, count-50); n < count; n++ {
			got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d-%d", w, n%50)))
			if err != nil || !bytes.Equal(got, content(w, n)) {
				t.Errorf("writer %d, file %d differs (%v)", w, n, err)
			}
		}
	}
	e.unmount(dir)
	t.Logf("%d files written and synced through %d kills, the slowest in %d ms", total.Load(), kills, slowest.Load())
	if err := errors.Join(d.stdin.Close(), d.command.Wait()); err != nil {
		t.Fatal(err)
	}
	device, err := e.driver.Adopt(e.ctx, e.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
}
