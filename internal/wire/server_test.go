package wire

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestServerHoldsBack: a replica's end takes no more than its limits, and goes
// on when it has answered.
func TestServerHoldsBack(t *testing.T) {
	for name, limits := range map[string]Limits{
		"requests": {Requests: 3, Bytes: 64 << 20},
		"bytes":    {Requests: 1000, Bytes: 3 * block.MaxTransfer},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, newAcceptor(keep), func(c *ServerConfig) { c.Limits = limits })
			link, in := n.dial(t, n.config())
			server := await(t, n.acceptor.conns)
			const total = 20
			for i := range total {
				link.Send(block.Request{Op: block.OpRead, Length: block.MaxTransfer, Seq: uint64(i)}, nil)
			}
			for range total {
				req := await(t, server.requests)
				if open := len(server.requests); open > 2 {
					t.Fatalf("%d requests taken besides", open)
				}
				server.reply(block.Reply{Op: block.OpPing, Seq: req.Seq}, nil)
				await(t, in.replies)
			}
		})
	}
}

// rawConn is a connection past its handshake, to break the protocol on.
func (n *node) rawConn(t *testing.T) net.Conn {
	t.Helper()
	raw := connect(t, n.addr)
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	config := n.config()
	conn, err := config.handshake(context.Background(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestBrokenFramesEndConnection: what is damaged, cut short, for another replica
// or with a number in use is not handed over, and nothing after it is.
func TestBrokenFramesEndConnection(t *testing.T) {
	good := func() []byte { return requestFrame(t, &requestSamples()[2].req) }
	flipped := func(i int) []byte { b := good(); b[i] ^= 4; return b }
	other := func() []byte {
		b := good()
		b[16] ^= 0xff
		resum(b)
		return b
	}
	for name, frames := range map[string][][]byte{
		"header":    {flipped(40)},
		"payload":   {flipped(headerSize + 77)},
		"magic":     {flipped(0)},
		"replica":   {other()},
		"duplicate": {good(), good()},
		"cut short": {good()[:headerSize+100]},
		"not ours":  {make([]byte, 4096)},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, newAcceptor(keep), nil)
			conn := n.rawConn(t)
			server := await(t, n.acceptor.conns)
			for _, f := range frames {
				if _, err := conn.Write(f); err != nil {
					t.Fatal(err)
				}
			}
			if name == "cut short" {
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			} else {
				// Something whole behind it; the write may fail, that is the point.
				_, _ = conn.Write(good())
			}
			await(t, server.closed)
			if got := len(server.requests); got != len(frames)-1 {
				t.Fatalf("%d requests were handed over", got)
			}
			// The connection has ended: by a reset, where bytes were left unread.
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Fatalf("%d bytes came back", n)
			}
		})
	}
}
