//go:build e2e

// These tests need the NBD client of a real kernel, and root. test/e2e builds
// them as one static binary and runs that in a guest.

package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/engine/frontend/frontendtest"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

func TestMain(m *testing.M) {
	frontendtest.Main(m, func(node string, log *slog.Logger) (frontend.Driver, error) {
		id, err := block.ParseID(node)
		return &Driver{Node: block.NodeID{ID: id}, Logger: log}, err
	}, nil)
}

// testEnv is one device and its backend.
type testEnv struct {
	*frontendtest.Env
	driver *Driver
}

func newEnv(t *testing.T) *testEnv {
	t.Helper()
	e := &testEnv{driver: &Driver{Node: block.NodeID{ID: frontendtest.NewID(t)}, Logger: frontendtest.Logger(t)}}
	e.Env = frontendtest.New(t, e.driver)
	return e
}

func TestDeviceReadsWritesAndTrims(t *testing.T) {
	e := newEnv(t)
	device := e.Attach()
	for name, want := range map[string]string{
		"backend": e.driver.identifier(e.Spec.Identity()), "queue/logical_block_size": "4096",
		"queue/io_timeout": "500", "queue/max_sectors_kb": "1024", "queue/fua": "1", "queue/rotational": "0",
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device.Path()), name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, want %s (%v)", name, got, want, err)
		}
	}
	if size := e.Command("blockdev", "--getsize64", device.Path()); size != fmt.Sprint(frontendtest.Size) {
		t.Errorf("device of %s bytes", size)
	}
	if _, err := e.driver.Attach(e.Ctx, e.Spec); !errors.Is(err, block.ErrExists) {
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
	if e.Disk.Flushes.Load() == 0 {
		t.Error("fsync did not become a flush")
	}
	got := make([]byte, len(buf.Data))
	if _, err := e.Disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, buf.Data) {
		t.Errorf("the backend has other bytes (%v)", err)
	}
	e.Command("blkdiscard", "--offset", fmt.Sprint(3<<20), "--length", fmt.Sprint(1<<20), device.Path())
	if _, err := e.Disk.Storage().ReadAt(got, 3<<20); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("the discarded range is not zeros (%v)", err)
	}
	if err := device.Detach(e.Ctx); err != nil {
		t.Fatal(err)
	}
	if err := device.Detach(e.Ctx); err != nil {
		t.Errorf("second Detach: %v", err)
	}
	if _, err := e.driver.Adopt(e.Ctx, e.Spec); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("Adopt after Detach: %v", err)
	}
}

func TestCloseLeavesTheDeviceForAdopt(t *testing.T) { newEnv(t).CloseLeavesTheDeviceForAdopt() }

func TestGrowsInUse(t *testing.T) { newEnv(t).GrowsInUse() }

func TestRemoveFailsTheIO(t *testing.T) { newEnv(t).RemoveFailsTheIO() }

func TestOtherNodesDeviceIsLeftAlone(t *testing.T) {
	e := newEnv(t)
	device := e.Attach()
	other := &Driver{Node: block.NodeID{ID: frontendtest.NewID(t)}}
	if list, err := other.List(e.Ctx); err != nil || len(list) != 0 {
		t.Errorf("another node lists %v (%v)", list, err)
	}
	if err := other.Remove(e.Ctx, e.Spec.Identity()); err != nil {
		t.Error(err)
	}
	if err := frontendtest.WriteSync(device.Path(), []byte("still there")); err != nil {
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
	backend := &moody{Disk: e.Disk}
	e.Spec.Backend = backend
	device := e.Attach()
	dir := e.Mount(device.Path())
	for n := range 3 {
		backend.refuse.Store(true)
		began := time.Now()
		if err := frontendtest.WriteSync(filepath.Join(dir, fmt.Sprint(n)), []byte("again")); err != nil {
			t.Fatal(err)
		}
		t.Logf("answered after %v", time.Since(began))
	}
	if n := backend.refused.Load(); n != 3 {
		t.Errorf("%d requests were refused", n)
	}
	e.Unmount(dir)
	if err := device.Detach(e.Ctx); err != nil {
		t.Fatal(err)
	}
}

func TestDaemonKilledUnderLoad(t *testing.T) {
	e := newEnv(t)
	e.KillDaemonUnderLoad(e.driver.Node.String())
}
