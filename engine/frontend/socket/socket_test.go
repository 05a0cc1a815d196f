package socket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

const (
	testSize    = 1 << 20
	testTimeout = 30 * time.Second
)

// testEnv is a place for a device, checked to be clean after the test.
type testEnv struct {
	t      *testing.T
	driver *Driver
	spec   frontend.Spec
	disk   *nbdtest.Disk
}

func newEnv(t *testing.T) *testEnv {
	t.Helper()
	// Short, because of the limit on paths of sockets.
	runDir, err := os.MkdirTemp("/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	e := &testEnv{
		t: t, disk: nbdtest.NewMemory(nbdtest.Info("", testSize, 4096)),
		driver: &Driver{
			RunDir: filepath.Join(runDir, "sockets"),
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	}
	e.spec = frontend.Spec{
		Volume: block.VolumeID{ID: newID(t)}, Attachment: block.AttachmentID{ID: newID(t)},
		Size: testSize, Backend: e.disk,
	}
	t.Cleanup(func() {
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

// attach makes the device. Whatever the test does with it, it is closed in the end.
func (e *testEnv) attach() frontend.Device {
	e.t.Helper()
	return e.opened(e.driver.Attach(e.t.Context(), e.spec))
}

func (e *testEnv) adopt() frontend.Device {
	e.t.Helper()
	return e.opened(e.driver.Adopt(e.t.Context(), e.spec))
}

func (e *testEnv) opened(device frontend.Device, err error) frontend.Device {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		// The test may have closed it in a way that leaves requests behind.
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		_ = device.Close(ctx)
	})
	return device
}

func (e *testEnv) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", e.driver.socketPath(e.spec.Attachment))
}

// connect is a client of the export.
func (e *testEnv) connect(export string) (*nbd.Client, error) {
	e.t.Helper()
	conn, err := e.dial(e.t.Context())
	if err != nil {
		return nil, err
	}
	client, err := nbd.Connect(e.t.Context(), conn, nbd.ClientConfig{Export: export})
	if err == nil {
		e.t.Cleanup(func() { _ = client.Close() })
	}
	return client, err
}

func (e *testEnv) mustConnect() *nbd.Client {
	e.t.Helper()
	client, err := e.connect("")
	if err != nil {
		e.t.Fatal(err)
	}
	return client
}

// wantFiles fails if other files than these are in the run directory.
func (e *testEnv) wantFiles(endings ...string) {
	e.t.Helper()
	var got []string
	entries, err := os.ReadDir(e.driver.RunDir)
	if err != nil {
		e.t.Error(err)
	}
	for _, entry := range entries {
		ending, ours := strings.CutPrefix(entry.Name(), e.spec.Attachment.String())
		info, err := entry.Info()
		if !ours || err != nil || info.Mode().Perm() != 0o600 {
			e.t.Errorf("file %s of mode %v (%v)", entry.Name(), info.Mode(), err)
		}
		got = append(got, ending)
	}
	if strings.Join(got, " ") != strings.Join(endings, " ") {
		e.t.Errorf("files %v, want %v", got, endings)
	}
}

func TestServesTheVolume(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	e.wantFiles(identityEnding, socketEnding)
	if info, err := os.Stat(e.driver.RunDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("run directory of mode %v (%v)", info.Mode(), err)
	}
	want := bytes.Repeat([]byte("holdfast"), 4096/8)
	for _, export := range []string{"", e.spec.Attachment.String()} {
		client, err := e.connect(export)
		if err != nil {
			t.Fatal(err)
		}
		if info := client.Info(); info.Size != testSize || info.MinBlock != 4096 || info.ReadOnly || !info.Flush || !info.FUA || !info.Trim || !info.Zeroes {
			t.Errorf("export %q: %+v", export, info)
		}
		got := make([]byte, 4096)
		_, writeErr := client.WriteAt(want, 8192)
		flushErr := client.Flush()
		_, readErr := client.ReadAt(got, 8192)
		if err := errors.Join(writeErr, flushErr, readErr, client.Close()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("export %q: %v", export, err)
		}
	}
	if e.disk.Flushes.Load() != 2 {
		t.Errorf("%d flushes", e.disk.Flushes.Load())
	}
	var refused *nbd.OptionError
	if _, err := e.connect("another"); !errors.As(err, &refused) || refused.Reply != nbd.RepErrUnknown {
		t.Errorf("an export that is not there: %v", err)
	}
	if _, err := e.driver.Attach(e.t.Context(), e.spec); !errors.Is(err, block.ErrExists) {
		t.Errorf("a second device for the attachment: %v", err)
	}
	if list, err := e.driver.List(e.t.Context()); err != nil || len(list) != 1 || list[0] != e.spec.Identity() {
		t.Errorf("list %v (%v)", list, err)
	}
	for range 2 {
		if err := device.Detach(e.t.Context()); err != nil {
			t.Error(err)
		}
	}
	e.wantFiles()
	if list, err := e.driver.List(e.t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list %v after the end (%v)", list, err)
	}
}

// TestGrows: the next client gets the new size.
func TestGrows(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	first := e.mustConnect()
	for range 2 {
		if err := device.Resize(e.t.Context(), 2*testSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := device.Resize(e.t.Context(), testSize); err != nil {
		t.Fatal(err)
	}
	if first.Info().Size != testSize {
		t.Errorf("the first client has %d bytes", first.Info().Size)
	}
	if err := errors.Join(first.Flush(), first.Close()); err != nil {
		t.Error(err)
	}
	second := e.mustConnect()
	if second.Info().Size != 2*testSize {
		t.Errorf("the second client has %d bytes", second.Info().Size)
	}
	if err := errors.Join(second.Close(), device.Detach(e.t.Context())); err != nil {
		t.Error(err)
	}
}

// TestPathIsAnURI: what a client unescapes is the path of the socket.
func TestPathIsAnURI(t *testing.T) {
	for _, path := range []string{"/run/holdfast/sockets/x.nbd", "/odd dir/a+b&c=d%/é.nbd"} {
		uri, err := url.Parse(URI(path))
		if err != nil || uri.Scheme != "nbd+unix" || uri.Path != "/" || uri.Query().Get("socket") != path {
			t.Errorf("%s becomes %s (%v)", path, uri, err)
		}
		// The clients' libraries do not take a plus for a space.
		if strings.Contains(uri.RawQuery, "+") {
			t.Errorf("%s has a plus", uri)
		}
	}
	if got := URI("/run/x.nbd"); got != "nbd+unix:///?socket=/run/x.nbd" {
		t.Error(got)
	}
}

// TestNextClientWaitsForTheRequestsOfTheOld is rule 29 for clients that reconnect:
// what they sent on the old connection is over before the new one is served.
func TestNextClientWaitsForTheRequestsOfTheOld(t *testing.T) {
	e := newEnv(t)
	gate := nbdtest.NewGate(e.disk)
	e.spec.Backend = gate
	e.attach()
	first := e.mustConnect()
	var pending sync.WaitGroup
	pending.Go(func() { _, _ = first.WriteAt(make([]byte, 4096), 0) })
	held := gate.Held(1)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	pending.Wait()
	connected := make(chan error, 1)
	pending.Go(func() {
		_, err := e.connect("")
		connected <- err
	})
	select {
	case err := <-connected:
		t.Fatalf("connected while a request of the old connection runs (%v)", err)
	case <-time.After(100 * time.Millisecond):
	}
	held[0].Complete(nil, nil)
	if err := <-connected; err != nil {
		t.Errorf("connected after it: %v", err)
	}
	pending.Wait()
}

// resilient runs a client that reconnects; the test ends it.
func (e *testEnv) resilient() *nbd.Resilient {
	e.t.Helper()
	client, err := nbd.NewResilient(nbd.ResilientConfig{Dial: e.dial, Size: testSize})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(e.t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { _ = client.Run(ctx) })
	e.t.Cleanup(func() {
		cancel()
		loop.Wait()
	})
	return client
}

// TestDaemonRestart: a device that was closed is adopted; a client that reconnects
// sees a pause and no error, also for what the old engine would not do any more.
func TestDaemonRestart(t *testing.T) {
	e := newEnv(t)
	gate := nbdtest.NewGate(e.disk)
	e.spec.Backend = gate
	device := e.attach()
	client := e.resilient()
	result := make(chan error, 1)
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		_, err := client.WriteAt(bytes.Repeat([]byte{7}, 4096), 4096)
		result <- err
	})
	// The engine ends: its request fails in a way that speaks of the engine only.
	gate.Held(1)[0].Complete(block.ErrClosed, nil)
	if err := device.Close(e.t.Context()); err != nil {
		t.Fatal(err)
	}
	e.wantFiles(identityEnding)

	e.spec.Backend = e.disk
	device = e.adopt()
	e.wantFiles(identityEnding, socketEnding)
	if err := <-result; err != nil {
		t.Errorf("the write that was not answered: %v", err)
	}
	got := make([]byte, 4096)
	if _, err := client.ReadAt(got, 4096); err != nil || got[0] != 7 {
		t.Errorf("read %d (%v)", got[0], err)
	}
	if err := device.Close(e.t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCloseThatCannotWait: requests that the backend keeps are left unanswered, and
// the error says so.
func TestCloseThatCannotWait(t *testing.T) {
	e := newEnv(t)
	gate := nbdtest.NewGate(e.disk)
	e.spec.Backend = gate
	device := e.attach()
	client := e.mustConnect()
	result := make(chan error, 1)
	var flushing sync.WaitGroup
	flushing.Go(func() { result <- client.Flush() })
	held := gate.Held(1)
	ctx, cancel := context.WithCancel(e.t.Context())
	cancel()
	if err := device.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("closed: %v", err)
	}
	if err := <-result; !errors.Is(err, block.ErrClosed) {
		t.Errorf("the flush: %v", err)
	}
	held[0].Complete(nil, nil)
	flushing.Wait()
	if err := device.Close(e.t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// TestAdoptAfterKill: the socket file of a daemon that was killed is in nobody's
// way.
func TestAdoptAfterKill(t *testing.T) {
	e := newEnv(t)
	if err := e.attach().Close(e.t.Context()); err != nil {
		t.Fatal(err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: e.driver.socketPath(e.spec.Attachment), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	device := e.adopt()
	if err := errors.Join(e.mustConnect().Close(), device.Detach(e.t.Context())); err != nil {
		t.Error(err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	e := newEnv(t)
	if _, err := e.driver.Adopt(e.t.Context(), e.spec); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("what was never attached: %v", err)
	}
	if err := e.attach().Close(e.t.Context()); err != nil {
		t.Fatal(err)
	}
	other := e.spec
	other.Volume = block.VolumeID{ID: newID(t)}
	if _, err := e.driver.Adopt(e.t.Context(), other); !errors.Is(err, block.ErrConflict) {
		t.Errorf("another volume's: %v", err)
	}
	if err := os.WriteFile(e.driver.identityPath(e.spec.Attachment), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.driver.Adopt(e.t.Context(), e.spec); !errors.Is(err, block.ErrCorrupt) {
		t.Errorf("a damaged identity: %v", err)
	}
	if _, err := e.driver.List(e.t.Context()); !errors.Is(err, block.ErrCorrupt) {
		t.Errorf("a damaged identity in the list: %v", err)
	}
	for range 2 {
		if err := e.driver.Remove(e.t.Context(), e.spec.Identity()); err != nil {
			t.Error(err)
		}
	}
	e.wantFiles()
}

// TestDirectoryThatWillNotDo: sockets have short paths, and the daemon's working
// directory is nobody's promise.
func TestDirectoryThatWillNotDo(t *testing.T) {
	e := newEnv(t)
	for _, dir := range []string{"run", "/tmp/" + strings.Repeat("x", 80)} {
		d := &Driver{RunDir: dir}
		if _, err := d.Attach(e.t.Context(), e.spec); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%s: %v", dir, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s was made", dir)
		}
	}
}
