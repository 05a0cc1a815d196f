package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// ringOnly opens a device whose thread can serve sockets.
func ringOnly(t *testing.T) *UringDevice {
	t.Helper()
	d, err := OpenDevice(filepath.Join(t.TempDir(), "data"), OSDeviceOptions{Engine: EngineUring, Create: true, Buffered: true})
	if errors.Is(err, block.ErrUnavailable) {
		t.Skip("this kernel allows no io_uring:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.(*UringDevice)
}

func socketPair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialled, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled.(*net.UnixConn), accepted.(*net.UnixConn)
}

// echo answers each message of 4 bytes, and counts on which side of a move it was.
type echo struct {
	conn   *socket.Socket
	reader *turn.Reader
	loop   turn.Turn

	mu     sync.Mutex
	inLoop map[bool]int
}

func newEcho(conn *net.UnixConn, loop turn.Loop) *echo {
	s := socket.New(conn)
	return &echo{conn: s, reader: turn.NewReader(s), loop: turn.Of(loop), inLoop: make(map[bool]int)}
}

func (e *echo) parse() error {
	var message [4]byte
	for {
		if err := e.reader.Boundary(); err != nil {
			return err
		}
		if _, err := io.ReadFull(e.reader, message[:]); err != nil {
			return err
		}
		e.mu.Lock()
		e.inLoop[e.reader.Turn().Loop() != nil]++
		e.mu.Unlock()
		out := socket.NewWriter(e.conn)
		out.Add(message[:])
		if err := out.Flush(); err != nil {
			return err
		}
		e.reader.Suggest(&e.loop)
	}
}

func (e *echo) counts() (goroutine, loop int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inLoop[false], e.inLoop[true]
}

// ask sends messages and wants them back.
func ask(t *testing.T, far io.ReadWriter, n int) {
	t.Helper()
	for i := range n {
		message := []byte(fmt.Sprintf("%04d", i))
		// In two pieces, so that a message is often half read.
		for _, piece := range [][]byte{message[:1], message[1:]} {
			if _, err := far.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, message) {
			t.Fatalf("%q came back for %q", got, message)
		}
	}
}

// TestSocketsMoveToTheRing: what is read on a goroutine goes on on the ring's thread,
// and goes back when the device is closed, with nothing lost.
func TestSocketsMoveToTheRing(t *testing.T) {
	t.Parallel()
	d := ringOnly(t)
	const sockets = 300
	var group sync.WaitGroup
	var all []*echo
	var fars []*net.UnixConn
	for range sockets {
		near, far := socketPair(t)
		e := newEcho(near, d)
		all, fars = append(all, e), append(fars, far)
		group.Go(func() {
			if err := e.reader.Run(e.parse); !errors.Is(err, io.EOF) {
				t.Errorf("echo ended with %v", err)
			}
		})
	}
	for range 3 {
		for _, far := range fars {
			ask(t, far, 5)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for i, far := range fars {
		before, _ := all[i].counts()
		ask(t, far, 5)
		after, loop := all[i].counts()
		if before != 1 || loop != 14 || after != 6 {
			t.Fatalf("%d messages on the goroutine, %d in the loop, then %d on the goroutine", before, loop, after-before)
		}
		far.Close()
	}
	group.Wait()
}

// TestStopEndsAStream: also one that is stopped before it is there.
func TestStopEndsAStream(t *testing.T) {
	t.Parallel()
	d := ringOnly(t)
	defer d.Close()
	for _, early := range []bool{false, true} {
		near, far := socketPair(t)
		e := newEcho(near, d)
		ended := make(chan error, 1)
		e.reader.Suggest(&e.loop)
		if early {
			e.reader.Stop()
		}
		go func() { ended <- e.reader.Run(e.parse) }()
		if !early {
			ask(t, far, 3)
			e.reader.Stop()
		}
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a stopped stream ended with %v", err)
		}
	}
}

// TestRoomInALoop: who waits for room does not hold up the thread.
func TestRoomInALoop(t *testing.T) {
	t.Parallel()
	d := ringOnly(t)
	defer d.Close()
	near, far := socketPair(t)
	other, otherFar := socketPair(t)
	waiting, echoing := newEcho(near, d), newEcho(other, d)
	var mu sync.Mutex
	var room turn.Room
	room.Init(&mu, waiting.reader)
	open, waits := false, make(chan struct{})
	waiting.reader.Suggest(&waiting.loop)
	echoing.reader.Suggest(&echoing.loop)
	ended := make(chan error, 2)
	go func() {
		ended <- waiting.reader.Run(func() error {
			if err := waiting.reader.Boundary(); err != nil {
				return err
			}
			close(waits)
			mu.Lock()
			for !open {
				room.Wait()
			}
			mu.Unlock()
			return waiting.parse()
		})
	}()
	go func() { ended <- echoing.reader.Run(echoing.parse) }()
	<-waits
	ask(t, otherFar, 10)
	mu.Lock()
	open = true
	room.Signal()
	mu.Unlock()
	ask(t, far, 10)
	far.Close()
	otherFar.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}
