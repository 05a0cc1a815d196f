package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/socket"
)

// TestLooseSocket: a writer that waits for the peer goes on while the socket leaves the
// poller and comes back, and a loose one is read by its descriptor.
func TestLooseSocket(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			near, far := pair(t, network)
			s := socket.New(near)
			defer s.Close()
			w := socket.NewWriter(s)
			want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
			w.Add(want)
			if all, err := w.Try(); all || err != nil {
				t.Fatalf("16 MiB fit into a socket: %v, %v", all, err)
			}
			flushed := make(chan error, 1)
			go func() { flushed <- w.Flush() }()
			got := make([]byte, len(want))
			read := func(from, to int) {
				t.Helper()
				if _, err := io.ReadFull(far, got[from:to]); err != nil {
					t.Fatal(err)
				}
			}
			read(0, 1<<20)
			err := s.Loosen(func(fd int) {
				read(1<<20, 4<<20)
				if _, err := far.Write([]byte("ping")); err != nil {
					t.Error(err)
				}
				b := make([]byte, 4)
				for n := 0; n < 4; {
					m, err := unix.Read(fd, b[n:])
					switch {
					case errors.Is(err, unix.EAGAIN):
						_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
					case err != nil:
						t.Error(err)
						return
					default:
						n += m
					}
				}
				if string(b) != "ping" {
					t.Errorf("read %q", b)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			read(4<<20, len(want))
			if err := <-flushed; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatal("other bytes arrived")
			}
			if _, err := far.Write([]byte("pong")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(s, b); err != nil || string(b) != "pong" {
				t.Fatalf("read %q, %v in the poller again", b, err)
			}
		})
	}
}

// TestCloseLooseSocket: the peer is told at once, and so is who waits to write.
func TestCloseLooseSocket(t *testing.T) {
	t.Parallel()
	near, far := pair(t, "unix")
	s := socket.New(near)
	w := socket.NewWriter(s)
	w.Add(make([]byte, 16<<20))
	flushed := make(chan error, 1)
	err := s.Loosen(func(int) {
		if all, err := w.Try(); all || err != nil {
			t.Errorf("16 MiB fit into a socket: %v, %v", all, err)
		}
		go func() { flushed <- w.Flush() }()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, far); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a socket that was closed is back: %v", err)
	}
	if err := <-flushed; err == nil {
		t.Fatal("16 MiB were written to a closed socket")
	}
	if err := s.Loosen(func(int) {}); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a closed socket is loose: %v", err)
	}
}

func TestWriteDeadlineOfLooseSocket(t *testing.T) {
	t.Parallel()
	near, _ := pair(t, "unix")
	s := socket.New(near)
	defer s.Close()
	w := socket.NewWriter(s)
	w.Add(make([]byte, 16<<20))
	err := s.Loosen(func(int) {
		if err := s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		if err := w.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("flush to a peer that does not read: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
