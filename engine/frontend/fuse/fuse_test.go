package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/engine/frontend/frontendtest"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

const roleHelper = "helper"

func TestMain(m *testing.M) {
	frontendtest.Main(m, func(runDir string, log *slog.Logger) (frontend.Driver, error) {
		return testDriver(runDir, log)
	}, map[string]func(*slog.Logger) error{roleHelper: helperMain})
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

func testDriver(runDir string, log *slog.Logger) (*Driver, error) {
	self, err := os.Executable()
	return &Driver{
		RunDir: runDir,
		Helper: []string{"/usr/bin/env", frontendtest.RoleVariable + "=" + roleHelper, self},
		Logger: log,
	}, err
}

// testEnv is a place for a device, checked to be clean after the test.
type testEnv struct {
	*frontendtest.Env
	runDir string
	driver *Driver
}

func newEnv(t *testing.T) *testEnv {
	t.Helper()
	// Short, because of the limit on paths of sockets.
	runDir, err := os.MkdirTemp("/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	e := &testEnv{runDir: runDir}
	if e.driver, err = testDriver(runDir, frontendtest.Logger(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.wantNothingLeft()
		if err := os.RemoveAll(runDir); err != nil {
			t.Error(err)
		}
	})
	e.Env = frontendtest.New(t, e.driver)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(e.driver.dir(e.Spec.Attachment), logName))
			t.Logf("helper's log:\n%s", log)
		}
	})
	return e
}

// wantNothingLeft fails if a process, a mount, a loop device or a directory of
// the device is left.
func (e *testEnv) wantNothingLeft() {
	e.Helper()
	if loop, err := findLoop(e.Spec.Attachment); err != nil || loop != "" {
		e.Errorf("loop device %q is left (%v)", loop, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(e.runDir)) {
		e.Errorf("a mount is left (%v)", err)
	}
	if entries, err := os.ReadDir(e.runDir); err == nil {
		for _, entry := range entries {
			if entry.Name() == e.Spec.Attachment.String() {
				e.Errorf("the device's directory is left")
			}
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		e.Error(err)
	}
	for _, path := range commands {
		line, _ := os.ReadFile(path)
		if bytes.Contains(line, []byte(e.runDir)) {
			e.Errorf("a process is left: %q", line)
		}
	}
}

func TestDeviceReadsWritesAndTrims(t *testing.T) {
	e := newEnv(t)
	device := e.Attach()
	for name, want := range map[string]string{
		"loop/dio": "1", "queue/logical_block_size": "4096", "queue/discard_granularity": "4096", "loop/autoclear": "0",
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device.Path()), name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, want %s (%v)", name, got, want, err)
		}
	}
	if size := strings.TrimSpace(e.Command("blockdev", "--getsize64", device.Path())); size != fmt.Sprint(frontendtest.Size) {
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
	if e.Disk.Flushes.Load() == 0 {
		t.Error("fsync did not become a flush")
	}
	got := make([]byte, len(buf.Data))
	if _, err := e.Disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, buf.Data) {
		t.Errorf("the backend has other bytes (%v)", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	e.Command("blkdiscard", "--offset", fmt.Sprint(3<<20), "--length", fmt.Sprint(512<<10), device.Path())
	e.Command("blkdiscard", "--zeroout", "--offset", fmt.Sprint(3<<20+512<<10), "--length", fmt.Sprint(512<<10), device.Path())
	if _, err := e.Disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("the discarded range is not zeros (%v)", err)
	}
	if err := device.Detach(e.Ctx); err != nil {
		t.Fatal(err)
	}
	e.wantNothingLeft()
	if err := device.Detach(e.Ctx); err != nil {
		t.Errorf("second Detach: %v", err)
	}
}

func TestDeviceInUseIsNotDetached(t *testing.T) {
	e := newEnv(t)
	device := e.Attach()
	if _, err := e.driver.Attach(e.Ctx, e.Spec); !errors.Is(err, block.ErrExists) {
		t.Fatalf("second Attach: %v", err)
	}
	dir := e.Mount(device.Path())
	if err := device.Detach(e.Ctx); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("Detach of a mounted device: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "still"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Unmount(dir)
	if err := device.Detach(e.Ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCloseLeavesTheDeviceForAdopt(t *testing.T) { newEnv(t).CloseLeavesTheDeviceForAdopt() }

func TestGrowsInUse(t *testing.T) { newEnv(t).GrowsInUse() }

func TestRemoveFailsTheIO(t *testing.T) { newEnv(t).RemoveFailsTheIO() }

func TestDeadHelperIsNotAdopted(t *testing.T) {
	e := newEnv(t)
	device := e.Attach()
	if err := device.Close(e.Ctx); err != nil {
		t.Fatal(err)
	}
	state, err := readState(e.driver.dir(e.Spec.Attachment))
	if err != nil {
		t.Fatal(err)
	}
	h, err := state.open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if err := errors.Join(h.signal(unix.SIGKILL), h.wait(e.Ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.driver.Adopt(e.Ctx, e.Spec); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("Adopt: %v", err)
	}
	e.wantNothingLeft()
}

func TestHelperThatFailsIsReported(t *testing.T) {
	e := newEnv(t)
	e.driver.Helper = []string{"/bin/false"}
	if _, err := e.driver.Attach(e.Ctx, e.Spec); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("Attach: %v", err)
	}
	e.wantNothingLeft()
}

func TestDaemonKilledUnderLoad(t *testing.T) {
	e := newEnv(t)
	e.KillDaemonUnderLoad(e.runDir)
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
