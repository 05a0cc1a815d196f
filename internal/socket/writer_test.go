package socket_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/internal/socket"
)

// pair connects two sockets of a kind; "pipe" cannot take several pieces at once.
func pair(t *testing.T, network string) (near, far net.Conn) {
	t.Helper()
	if network == "pipe" {
		near, far = net.Pipe()
		return near, far
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if near, err = net.Dial(network, listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestAllArrivesInOrder sends more pieces than the kernel takes at once, and more bytes
// than a socket holds, with a peer that begins to read only when no more fit.
func TestAllArrivesInOrder(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix", "pipe"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			near, far := pair(t, network)
			w := socket.NewWriter(socket.New(near))
			var want bytes.Buffer
			waited := false
			for round := range 40 {
				for i := range 1500 {
					piece := []byte(fmt.Sprintf("piece %d of round %d.", i, round))
					if i%100 == 0 {
						piece = bytes.Repeat(piece, 700)
					}
					want.Write(piece)
					w.Add(piece)
				}
				w.Add(nil)
				all, err := w.Try()
				if err != nil {
					t.Fatal(err)
				}
				if !all {
					waited = true
					break
				}
			}
			if !waited {
				t.Fatal("the socket took everything: this tests nothing")
			}
			flushed := make(chan error, 1)
			go func() { flushed <- w.Flush() }()
			got := make([]byte, want.Len())
			if _, err := io.ReadFull(far, got); err != nil {
				t.Fatal(err)
			}
			if err := <-flushed; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Fatal("other bytes arrived")
			}
		})
	}
}

func TestErrorOfABrokenConnection(t *testing.T) {
	t.Parallel()
	near, _ := pair(t, "tcp")
	near.Close()
	w := socket.NewWriter(socket.New(near))
	w.Add([]byte("lost"))
	if all, err := w.Try(); !all || err == nil {
		t.Fatalf("try to send on a closed connection: %v, %v", all, err)
	}
	w.Add([]byte("lost"))
	if err := w.Flush(); err == nil {
		t.Fatal("flush to a closed connection succeeded")
	}
}

func TestTryAllocatesNothing(t *testing.T) {
	near, far := pair(t, "unix")
	w := socket.NewWriter(socket.New(near))
	head, body, got := make([]byte, 16), make([]byte, 4096), make([]byte, 4112)
	n := testing.AllocsPerRun(100, func() {
		w.Add(head)
		w.Add(body)
		if all, err := w.Try(); !all || err != nil {
			t.Fatal(all, err)
		}
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
