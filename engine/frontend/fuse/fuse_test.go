package fuse

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
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// Roles in which the tests start their own binary.
const (
	roleVariable = "HOLDFAST_TEST_ROLE"
	roleHelper   = "helper"
	roleDaemon   = "daemon"
)

const (
	testSize    = 64 << 20
	testTimeout = 60 * time.Second
)

func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	switch os.Getenv(roleVariable) {
	case roleHelper:
		err = helperMain(log)
	case roleDaemon:
		err = daemonMain(log)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		log.Error("test process failed", "err", err)
		os.Exit(1)
	}
}

func helperMain(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := LoadConfig(os.Args[1])
	if err != nil {
		return err
	}
	return Main(ctx, config, log)
}

// daemonMain serves a device from a file until its input ends; arguments are
// run directory, file, volume, attachment. It adopts the device if there is one.
func daemonMain(log *slog.Logger) error {
	volume, err := block.ParseID(os.Args[3])
	if err != nil {
		return err
	}
	attachment, err := block.ParseID(os.Args[4])
	if err != nil {
		return err
	}
	spec := frontend.Spec{Volume: block.VolumeID{ID: volume}, Attachment: block.AttachmentID{ID: attachment}, Size: testSize}
	disk, err := nbdtest.OpenFile(nbdtest.Info("", testSize, 4096), os.Args[2])
	if err != nil {
		return err
	}
	spec.Backend = disk
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	driver, err := testDriver(os.Args[1], log)
	if err != nil {
		return err
	}
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

func testDriver(runDir string, log *slog.Logger) (*Driver, error) {
	self, err := os.Executable()
	return &Driver{
		RunDir: runDir,
		Helper: []string{"/usr/bin/env", roleVariable + "=" + roleHelper, self},
		Logger: log,
	}, err
}

// testEnv is a place for a device, checked to be clean after the test.
type testEnv struct {
	t      *testing.T
	ctx    context.Context
	runDir string
	driver *Driver
	spec   frontend.Spec
	disk   *nbdtest.Disk
}

func newEnv(t *testing.T) *testEnv {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests need root: they mount, and set up loop devices")
	}
	// Short, because of the limit on paths of sockets.
	runDir, err := os.MkdirTemp("/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	e := &testEnv{t: t, ctx: ctx, runDir: runDir}
	if e.driver, err = testDriver(runDir, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
		t.Fatal(err)
	}
	e.disk = nbdtest.NewMemory(nbdtest.Info("", testSize, 4096))
	e.spec = frontend.Spec{
		Volume: block.VolumeID{ID: newID(t)}, Attachment: block.AttachmentID{ID: newID(t)},
		Size: testSize, Backend: e.disk,
	}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(e.driver.dir(e.spec.Attachment), logName))
			t.Logf("helper's log:\n%s", log)
		}
		if err := e.driver.Remove(ctx, e.spec.Identity()); err != nil {
			t.Error(err)
		}
		e.wantNothingLeft()
		if err := os.RemoveAll(runDir); err != nil {
			t.Error(err)
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

// wantNothingLeft fails if a process, a mount, a loop device or a directory of
// the device is left.
func (e *testEnv) wantNothingLeft() {
	e.t.Helper()
	if loop, err := findLoop(e.spec.Attachment); err != nil || loop != "" {
		e.t.Errorf("loop device %q is left (%v)", loop, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(e.runDir)) {
		e.t.Errorf("a mount is left (%v)", err)
	}
	if entries, err := os.ReadDir(e.runDir); err == nil {
		for _, entry := range entries {
			if entry.Name() == e.spec.Attachment.String() {
				e.t.Errorf("the device's directory is left")
			}
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		e.t.Error(err)
	}
	for _, path := range commands {
		line, _ := os.ReadFile(path)
		if bytes.Contains(line, []byte(e.runDir)) {
			e.t.Errorf("a process is left: %q", line)
		}
	}
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
	return string(out)
}

// mount makes a file system on first use.
func (e *testEnv) mount(device string) string {
	e.t.Helper()
	dir := e.runDir + "-mnt"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		e.t.Fatal(err)
	}
	e.command("mkfs.ext4", "-q", "-F", device)
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = os.Remove(dir)
	})
	return dir
}

func (e *testEnv) unmount(dir string) {
	e.t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		e.t.Fatal(err)
	}
}

func TestDeviceReadsWritesAndTrims(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	for name, want := range map[string]string{
		"loop/dio": "1", "queue/logical_block_size": "4096", "queue/discard_granularity": "4096", "loop/autoclear": "0",
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device.Path()), name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, want %s (%v)", name, got, want, err)
		}
	}
	if size := strings.TrimSpace(e.command("blockdev", "--getsize64", device.Path())); size != fmt.Sprint(testSize) {
		t.Errorf("device of %s bytes", size)
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
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if e.disk.Flushes.Load() == 0 {
		t.Error("fsync did not become a flush")
	}
	got := make([]byte, len(buf.Data))
	if _, err := e.disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, buf.Data) {
		t.Errorf("the backend has other bytes (%v)", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	e.command("blkdiscard", "--offset", fmt.Sprint(3<<20), "--length", fmt.Sprint(512<<10), device.Path())
	e.command("blkdiscard", "--zeroout", "--offset", fmt.Sprint(3<<20+512<<10), "--length", fmt.Sprint(512<<10), device.Path())
	if _, err := e.disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("the discarded range is not zeros (%v)", err)
	}
	if err := device.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
	e.wantNothingLeft()
	if err := device.Detach(e.ctx); err != nil {
		t.Errorf("second Detach: %v", err)
	}
}

func TestDeviceInUseIsNotDetached(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	if _, err := e.driver.Attach(e.ctx, e.spec); !errors.Is(err, block.ErrExists) {
		t.Fatalf("second Attach: %v", err)
	}
	dir := e.mount(device.Path())
	if err := device.Detach(e.ctx); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("Detach of a mounted device: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "still"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.unmount(dir)
	if err := device.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCloseLeavesTheDeviceForAdopt(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	dir := e.mount(device.Path())
	if err := device.Close(e.ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := e.driver.List(e.ctx); err != nil || len(list) != 1 || list[0] != e.spec.Identity() {
		t.Fatal(list, err)
	}
	// I/O waits for the next daemon.
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
	if adopted.Path() != device.Path() {
		t.Errorf("path %s became %s", device.Path(), adopted.Path())
	}
	e.unmount(dir)
	if err := adopted.Detach(e.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := e.driver.Adopt(e.ctx, e.spec); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("Adopt after Detach: %v", err)
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
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

func TestDeadHelperIsNotAdopted(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	if err := device.Close(e.ctx); err != nil {
		t.Fatal(err)
	}
	state, err := readState(e.driver.dir(e.spec.Attachment))
	if err != nil {
		t.Fatal(err)
	}
	h, err := state.open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if err := errors.Join(h.signal(unix.SIGKILL), h.wait(e.ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.driver.Adopt(e.ctx, e.spec); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("Adopt: %v", err)
	}
	e.wantNothingLeft()
}

func TestHelperThatFailsIsReported(t *testing.T) {
	e := newEnv(t)
	e.driver.Helper = []string{"/bin/false"}
	if _, err := e.driver.Attach(e.ctx, e.spec); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("Attach: %v", err)
	}
	e.wantNothingLeft()
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

// daemon is the server side in a process of its own.
type daemon struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	path    string
}

func (e *testEnv) startDaemon(backing string) *daemon {
	e.t.Helper()
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	d := &daemon{command: exec.Command(self, e.runDir, backing, e.spec.Volume.String(), e.spec.Attachment.String())}
	d.command.Env = append(os.Environ(), roleVariable+"="+roleDaemon)
	d.command.Stderr = e.t.Output()
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
	backing := filepath.Join(e.runDir, "backing")
	d := e.startDaemon(backing)
	defer func() { d.kill() }()
	dir := e.mount(d.path)

	const writers, kills = 4, 5
	var stop atomic.Bool
	var written [writers]int
	var total atomic.Int64
	var load sync.WaitGroup
	for w := range writers {
		load.Go(func() {
			for n := 0; !stop.Load(); n++ {
				data := bytes.Repeat([]byte(fmt.Sprintf("%04d/%04d", w, n)), 2000)
				if err := writeSync(filepath.Join(dir, fmt.Sprintf("%d-%d", w, n%100)), data); err != nil {
					t.Errorf("writer %d, file %d: %v", w, n, err)
					return
				}
				written[w] = n + 1
				total.Add(1)
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
		for n := max(0, count-100); n < count; n++ {
			want := bytes.Repeat([]byte(fmt.Sprintf("%04d/%04d", w, n)), 2000)
			got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d-%d", w, n%100)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("writer %d, file %d differs (%v)", w, n, err)
			}
		}
	}
	e.unmount(dir)
	t.Logf("%d files written and synced through %d kills", total.Load(), kills)
	// The orderly end of the daemon leaves the device, this process takes it.
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
	e.wantNothingLeft()
}

func TestStatusTable(t *testing.T) {
	for _, sentinel := range block.Sentinels() {
		if got := status(fmt.Errorf("write: %w", sentinel)); got.Ok() {
			t.Errorf("%v becomes success", sentinel)
		}
	}
	if status(nbd.ESHUTDOWN) != status(block.ErrIO) || status(nbd.ENOSPC).String() == status(block.ErrIO).String() {
		t.Error("NBD's errors are not told apart")
	}
}
