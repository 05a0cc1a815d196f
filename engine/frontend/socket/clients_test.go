package socket

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// TestFlushCoversEveryConnection is what NBD_FLAG_CAN_MULTI_CONN promises: what one client
// was told is written, another reads, and the flush of one that has written nothing is
// asked of the volume, like any other.
func TestFlushCoversEveryConnection(t *testing.T) {
	e := newEnv(t)
	e.attach()
	writer, flusher := e.mustConnect(), e.mustConnect()
	if !writer.Info().MultiConn || !flusher.Info().MultiConn {
		t.Error("clients are not told that they may have several connections")
	}
	want, got := bytes.Repeat([]byte{7}, 4096), make([]byte, 4096)
	for round := range int64(3) {
		_, writeErr := writer.WriteAt(want, round*4096)
		if err := errors.Join(writeErr, flusher.Flush()); err != nil {
			t.Fatal(err)
		}
		if flushes := e.disk.Flushes.Load(); flushes != round+1 {
			t.Errorf("the volume was flushed %d times, want %d", flushes, round+1)
		}
		if _, err := flusher.ReadAt(got, round*4096); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d (%v)", got[0], err)
		}
	}
}

// TestClientsAreBounded: one more than the limit is refused while all are there, and served
// when one has left, which the others do not notice; the device is not detached before the
// last has left.
func TestClientsAreBounded(t *testing.T) {
	e := newEnv(t)
	device := e.attach()
	var clients []*nbd.Client
	for range maxClients {
		clients = append(clients, e.mustConnect())
	}
	var refused *nbd.OptionError
	if _, err := e.connect(""); !errors.As(err, &refused) || refused.Reply != nbd.RepErrPolicy {
		t.Errorf("client %d: %v", maxClients+1, err)
	}
	if err := errors.Join(clients[0].Flush(), clients[0].Close()); err != nil {
		t.Error(err)
	}
	clients[0] = e.mustConnect()
	last := len(clients) - 1
	for _, c := range clients[:last] {
		if err := errors.Join(c.Flush(), c.Close()); err != nil {
			t.Error(err)
		}
	}
	if err := device.Detach(e.t.Context()); !errors.Is(err, block.ErrInUse) {
		t.Errorf("detached with a client: %v", err)
	}
	e.wantFiles(identityEnding, socketEnding)
	// What Detach had taken it has given back.
	if err := e.mustConnect().Close(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(clients[last].Flush(), clients[last].Close(), device.Detach(e.t.Context())); err != nil {
		t.Error(err)
	}
	e.wantFiles()
}

// TestLostClientHoldsUpItsSuccessorOnly: a client that has hung up with requests under way
// disturbs none that is there; who comes may be the same, and waits (rule 29).
func TestLostClientHoldsUpItsSuccessorOnly(t *testing.T) {
	e := newEnv(t)
	gate := nbdtest.NewGate(e.disk)
	e.spec.Backend = gate
	e.attach()
	other, lost := e.mustConnect(), e.mustConnect()
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = lost.WriteAt(make([]byte, 4096), 0) })
	held := gate.Held(1)
	if err := lost.Close(); err != nil {
		t.Error(err)
	}
	calls.Wait()
	gate.Open()
	if err := other.Flush(); err != nil {
		t.Errorf("the other client: %v", err)
	}
	connected := make(chan error, 1)
	calls.Go(func() {
		_, err := e.connect("")
		connected <- err
	})
	select {
	case err := <-connected:
		t.Fatalf("connected while a request of the old connection runs (%v)", err)
	case <-time.After(100 * time.Millisecond):
	}
	e.disk.Submit(held[0])
	if err := <-connected; err != nil {
		t.Errorf("connected after it: %v", err)
	}
	calls.Wait()
}

// TestCloseEndsEveryClient: the daemon leaves when the requests of all are answered.
func TestCloseEndsEveryClient(t *testing.T) {
	e := newEnv(t)
	gate := nbdtest.NewGate(e.disk)
	e.spec.Backend = gate
	device := e.attach()
	const n = 3
	results := make(chan error, n)
	var calls sync.WaitGroup
	var clients []*nbd.Client
	for range n {
		client := e.mustConnect()
		clients = append(clients, client)
		calls.Go(func() { results <- client.Flush() })
	}
	held := gate.Held(n)
	closed := make(chan error, 1)
	calls.Go(func() { closed <- device.Close(e.t.Context()) })
	for _, r := range held {
		select {
		case err := <-closed:
			t.Fatalf("closed with requests under way (%v)", err)
		default:
		}
		e.disk.Submit(r)
	}
	for range n {
		if err := <-results; err != nil {
			t.Errorf("a flush that was under way: %v", err)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for _, client := range clients {
		if err := client.Flush(); !errors.Is(err, block.ErrClosed) {
			t.Errorf("a client after the end: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := e.dial(ctx); err == nil {
		t.Error("the socket is there")
	}
	calls.Wait()
}
