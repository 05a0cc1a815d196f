package wire

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
)

// TestSenderGoesOnWhenThePeerReads fills a connection whose peer does not read. What did
// not fit is sent by run, in order, with what others put meanwhile.
func TestSenderGoesOnWhenThePeerReads(t *testing.T) {
	t.Parallel()
	const messages, size = 3000, 4096
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, err := range []error{near.(*net.TCPConn).SetWriteBuffer(64 << 10), far.(*net.TCPConn).SetReadBuffer(64 << 10)} {
		if err != nil {
			t.Fatal(err)
		}
	}

	ended := 0
	s := newSender(socket.New(near), messages, messages*size, func(b []byte, req *block.Request) ([]byte, error) {
		return binary.BigEndian.AppendUint64(b, req.Seq), nil
	}, func(batch []block.Request) { ended += len(batch) })
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.run(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	buf := block.NewBuffer(size)
	for seq := range uint64(messages) {
		if s.put(block.Request{Seq: seq, Buf: buf.Retain()}) != accepted {
			t.Fatalf("message %d is not accepted", seq)
		}
		if seq%10 == 9 {
			s.EndTurn(nil)
		}
	}
	s.mu.Lock()
	left := s.sending && len(s.pending) > 0
	s.mu.Unlock()
	if !left {
		t.Fatal("the socket has taken everything: this tests nothing")
	}
	got := make([]byte, 8+size)
	for want := range uint64(messages) {
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatal(err)
		}
		if seq := binary.BigEndian.Uint64(got); seq != want {
			t.Fatalf("message %d arrives instead of %d", seq, want)
		}
	}
	if rest := s.close(); len(rest) != 0 {
		t.Fatalf("%d messages are left", len(rest))
	}
	running.Wait()
	if ended != messages {
		t.Fatalf("%d messages have ended, want %d", ended, messages)
	}
	if !soleReference(buf) {
		t.Fatal("data of messages that were sent are kept")
	}
}
