package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// restarting is a server that a test stops and starts.
type restarting struct {
	t       *testing.T
	path    string
	exports nbdtest.Exports
	cancel  context.CancelFunc
	loop    sync.WaitGroup
}

func (s *restarting) start() {
	s.t.Helper()
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: s.exports, HoldErrors: true})
	if err != nil {
		s.t.Fatal(err)
	}
	listener, err := net.Listen("unix", s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.loop.Go(func() { _ = server.Serve(ctx, listener) })
}

func (s *restarting) stop() {
	s.cancel()
	s.loop.Wait()
}

func startResilient(t *testing.T, s *restarting) (*nbd.Resilient, func() error) {
	t.Helper()
	client, err := nbd.NewResilient(nbd.ResilientConfig{
		ClientConfig: nbd.ClientConfig{Export: "v"},
		Size:         testSize,
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", s.path)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	var loop sync.WaitGroup
	var runErr error
	loop.Go(func() { runErr = client.Run(ctx) })
	stop := func() error {
		cancel()
		loop.Wait()
		return runErr
	}
	t.Cleanup(func() { _ = stop() })
	return client, stop
}

func TestResilientOutlivesItsServer(t *testing.T) {
	disk := nbdtest.NewMemory(nbdtest.Info("v", testSize, 4096))
	s := &restarting{t: t, path: t.TempDir() + "/s", exports: nbdtest.Exports{"v": disk}}
	s.start()
	client, _ := startResilient(t, s)

	const writers, writes = 8, 300
	var load sync.WaitGroup
	for w := range writers {
		load.Go(func() {
			page := make([]byte, 4096)
			for n := range writes {
				copy(page, fmt.Sprintf("%d/%d", w, n))
				offset := int64((n%200)*writers+w) * 4096
				if _, err := client.WriteAt(page, offset); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				got := make([]byte, 4096)
				if _, err := client.ReadAt(got, offset); err != nil || string(got) != string(page) {
					t.Errorf("read back %d/%d: %v", w, n, err)
					return
				}
			}
		})
	}
	var restarts sync.WaitGroup
	done := make(chan struct{})
	restarts.Go(func() {
		look := time.NewTicker(time.Millisecond)
		defer look.Stop()
		for {
			before := client.Connections()
			s.stop()
			s.start()
			for client.Connections() == before {
				select {
				case <-done:
					return
				case <-look.C:
				}
			}
		}
	})
	load.Wait()
	close(done)
	restarts.Wait()
	s.stop()
	if n := client.Connections(); n < 3 {
		t.Fatalf("only %d connections: nothing was tested", n)
	}
}

func TestResilientRepeatsUnansweredCallsInOrder(t *testing.T) {
	gate := nbdtest.NewGate(nbdtest.NewMemory(nbdtest.Info("v", testSize, 4096)))
	s := &restarting{t: t, path: t.TempDir() + "/s", exports: nbdtest.Exports{"v": gate}}
	s.start()
	client, _ := startResilient(t, s)
	var answered sync.WaitGroup
	for i := range int64(5) {
		answered.Add(1)
		err := client.Submit(&nbd.Call{
			Kind: nbd.KindRead, Offset: i * 4096, Length: 4096, Data: make([]byte, 4096),
			Done: func(c *nbd.Call) {
				if c.Err != nil {
					t.Error(c.Err)
				}
				answered.Done()
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	held := gate.Held(5)
	// What a closing engine says must not reach the client.
	for _, r := range held {
		r.Complete(fmt.Errorf("engine: %w", block.ErrClosed), nil)
	}
	for i, r := range gate.Held(5) {
		if r.Offset != int64(i)*4096 {
			t.Errorf("call %d came as number %d", r.Offset/4096, i)
		}
		r.Complete(nil, block.NewBuffer(4096))
	}
	answered.Wait()
	s.stop()
}

func TestResilientGivesUpWhenTheExportIsGone(t *testing.T) {
	disk := nbdtest.NewMemory(nbdtest.Info("v", testSize, 4096))
	s := &restarting{t: t, path: t.TempDir() + "/s", exports: nbdtest.Exports{"v": disk}}
	s.start()
	client, stop := startResilient(t, s)
	if err := client.Flush(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.exports = nbdtest.Exports{}
	s.start()
	defer s.stop()
	if err := client.Flush(); !errors.Is(err, block.ErrDetached) {
		t.Fatalf("flush: %v", err)
	}
	if err := stop(); !errors.Is(err, block.ErrDetached) {
		t.Fatalf("Run returned %v", err)
	}
}

func TestResilientEndsWithItsContext(t *testing.T) {
	s := &restarting{t: t, path: t.TempDir() + "/s"}
	client, stop := startResilient(t, s)
	var pending sync.WaitGroup
	pending.Go(func() {
		if err := client.Flush(); !errors.Is(err, block.ErrClosed) {
			t.Errorf("flush: %v", err)
		}
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	pending.Wait()
}

// TestResilientKnowsNoMoreThanItsServer: a server whose export is larger is used, one
// whose export is smaller is not.
func TestResilientKnowsNoMoreThanItsServer(t *testing.T) {
	disk := nbdtest.NewMemory(nbdtest.Info("v", 2*testSize, 4096))
	s := &restarting{t: t, path: t.TempDir() + "/s", exports: nbdtest.Exports{"v": disk}}
	s.start()
	client, _ := startResilient(t, s)
	page := make([]byte, 4096)
	if _, err := client.WriteAt(page, testSize); err != nil {
		t.Fatal(err)
	}
	client.Grow(2 * testSize)
	client.Grow(testSize)
	before := client.Connections()
	s.stop()
	s.exports = nbdtest.Exports{"v": nbdtest.NewMemory(nbdtest.Info("v", testSize, 4096))}
	s.start()
	result := make(chan error, 1)
	var writing sync.WaitGroup
	writing.Go(func() {
		_, err := client.WriteAt(page, testSize)
		result <- err
	})
	select {
	case err := <-result:
		t.Fatalf("a smaller export was used: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if client.Connections() != before {
		t.Fatal("a connection to a smaller export was kept")
	}
	s.stop()
	s.exports = nbdtest.Exports{"v": disk}
	s.start()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	writing.Wait()
	s.stop()
}
