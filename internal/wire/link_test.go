package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

func TestRequestsAndReplies(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	link, in := n.dial(t, n.config())
	server := await(t, n.acceptor.conns)
	// A number is used once in a session.
	seq := uint64(0)
	for _, s := range requestSamples() {
		seq++
		s.req.Seq = seq
		link.Send(s.req, nil)
		got := await(t, server.requests)
		want := requestSampleOf(s.name)
		want.req.Seq = seq
		sameRequest(t, got, want.req)
		server.reply(block.Reply{Op: block.OpPing, Epoch: 5, Session: 2, Seq: seq}, nil)
		await(t, in.replies)
	}
	for _, s := range replySamples() {
		seq++
		link.Send(block.Request{Op: block.OpPing, Epoch: 5, Session: 2, Seq: seq}, nil)
		await(t, server.requests)
		s.rep.Seq = seq
		want := s.rep
		if want.Buf != nil {
			want.Buf = sampleBuffer(len(want.Buf.Data))
		}
		server.reply(s.rep, nil)
		sameReply(t, await(t, in.replies), want)
	}
	nothing(t, in.lost)
}

func requestSampleOf(name string) requestSample {
	for _, s := range requestSamples() {
		if s.name == name {
			return s
		}
	}
	panic("no sample " + name)
}

// TestLostOnce: the end of the other side is told once, and after it Send drops
// what it is given.
func TestLostOnce(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	link, in := n.dial(t, n.config())
	server := await(t, n.acceptor.conns)
	n.stop()
	if err := await(t, in.lost); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("lost: %v", err)
	}
	await(t, server.closed)
	buf := sampleBuffer(512)
	link.Send(block.Request{Op: block.OpWrite, Length: 512, Buf: buf.Retain()}, nil)
	await(t, link.(*remoteLink).Done())
	if err := link.Close(); err != nil {
		t.Fatal(err)
	}
	nothing(t, in.lost)
	if !soleReference(buf) {
		t.Fatal("a dropped request kept its data")
	}
}

// soleReference reports whether nobody else holds the buffer: a reference too
// many given back panics, so it is tried out.
func soleReference(buf *block.Buffer) (sole bool) {
	defer func() { sole = recover() != nil }()
	buf.Release()
	buf.Release()
	return false
}

func TestCloseIsNotLost(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	link, in := n.dial(t, n.config())
	server := await(t, n.acceptor.conns)
	_ = link.Close()
	_ = link.Close()
	await(t, server.closed)
	await(t, link.(*remoteLink).Done())
	nothing(t, in.lost)
	// A late reply finds nobody, and its data are given back.
	buf := sampleBuffer(512)
	server.reply(block.Reply{Op: block.OpRead, Buf: buf.Retain()}, nil)
	if !soleReference(buf) {
		t.Fatal("a late reply kept its data")
	}
}

// TestCloseFromWithin: Close is safe on the link's own goroutine.
func TestCloseFromWithin(t *testing.T) {
	n := startNode(t, newAcceptor(echo), nil)
	var link Link
	ready := make(chan struct{})
	got := make(chan block.Reply, 1)
	recv := &closingReceiver{close: func(rep block.Reply, _ *turn.Turn) {
		<-ready
		_ = link.Close()
		got <- rep
	}}
	var err error
	if link, err = Dial(context.Background(), n.config(), recv); err != nil {
		t.Fatal(err)
	}
	close(ready)
	link.Send(block.Request{Op: block.OpPing}, nil)
	await(t, got)
	await(t, link.(*remoteLink).Done())
}

type closingReceiver struct{ close Reply }

func (r *closingReceiver) Receive(rep block.Reply, _ *turn.Turn) { r.close(rep, nil) }
func (r *closingReceiver) Lost(error)                            { panic("lost after close") }

// TestOverflow: a peer that does not read costs the link, never the sender's
// time.
func TestOverflow(t *testing.T) {
	n := startNode(t, newAcceptor(keep), func(c *ServerConfig) { c.Limits = Limits{Requests: 1, Bytes: block.MaxTransfer} })
	config := n.config()
	config.Limits = Limits{Requests: 100, Bytes: 64 << 20}
	link, in := n.dial(t, config)
	buf := sampleBuffer(block.MaxTransfer)
	for i := range 1000 {
		link.Send(block.Request{Op: block.OpWrite, Length: block.MaxTransfer, Seq: uint64(i), Buf: buf.Retain()}, nil)
	}
	if err := await(t, in.lost); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("lost: %v", err)
	}
	await(t, link.(*remoteLink).Done())
	nothing(t, in.lost)
	if !soleReference(buf) {
		t.Fatal("requests that were not sent kept their data")
	}
}

// TestBrokenReplies: an engine's end is as careful.
func TestBrokenReplies(t *testing.T) {
	good := func() []byte { return replyFrame(t, &replySamples()[1].rep) }
	for name, change := range map[string]func([]byte) []byte{
		"header":    func(b []byte) []byte { b[33] ^= 1; return b },
		"payload":   func(b []byte) []byte { b[headerSize] ^= 1; return b },
		"replica":   func(b []byte) []byte { b[20] ^= 1; resum(b); return b },
		"a request": func(b []byte) []byte { b[5] = kindRequest; resum(b); return b },
		"cut short": func(b []byte) []byte { return b[:len(b)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			in := newInbox()
			l := newRemoteLink(near, sampleReplica, LinkLimits(), in)
			defer func() { await(t, l.Done()) }()
			go func() {
				_, _ = far.Write(change(good()))
				_ = far.Close()
			}()
			if err := await(t, in.lost); !errors.Is(err, block.ErrProtocol) {
				t.Fatalf("lost: %v", err)
			}
			nothing(t, in.replies)
		})
	}
}

// TestUnsendableRequest: a request that no replica would take ends the link
// with what is wrong with it.
func TestUnsendableRequest(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	link, in := n.dial(t, n.config())
	link.Send(block.Request{Op: block.OpWrite, Length: 1}, nil)
	if err := await(t, in.lost); !errors.Is(err, block.ErrProtocol) {
		t.Fatalf("lost: %v", err)
	}
}

// TestFlatWriter: a connection without writev carries the same bytes.
func TestFlatWriter(t *testing.T) {
	near, far := net.Pipe()
	in := newInbox()
	l := newRemoteLink(near, sampleReplica, LinkLimits(), in)
	defer func() { await(t, l.Done()) }()
	defer l.Close()
	for _, size := range []int{512, block.MaxTransfer} {
		req := block.Request{Op: block.OpWrite, Length: int64(size), Buf: sampleBuffer(size)}
		l.Send(req, nil)
		got, err := readRequest(far)
		if err != nil {
			t.Fatal(err)
		}
		want := sampleBuffer(size)
		sameBuffer(t, got.Buf, want)
	}
	_ = far.Close()
	if err := await(t, in.lost); !errors.Is(err, block.ErrUnavailable) || errors.Is(err, io.EOF) {
		t.Fatalf("lost: %v", err)
	}
}

// TestLocal: the local link is the acceptor itself.
func TestLocal(t *testing.T) {
	acceptor := newAcceptor(echo)
	in := newInbox()
	link := Local(acceptor, in)
	session := await(t, acceptor.conns)
	link.Send(block.Request{Op: block.OpRead, Length: 512, Seq: 9}, nil)
	if rep := await(t, in.replies); rep.Seq != 9 || len(rep.Buf.Data) != 512 {
		t.Fatalf("reply %+v", rep)
	}
	_ = link.Close()
	_ = link.Close()
	await(t, session.closed)
	buf := sampleBuffer(512)
	link.Send(block.Request{Op: block.OpWrite, Length: 512, Buf: buf.Retain()}, nil)
	session.reply(block.Reply{Op: block.OpRead, Buf: buf.Retain()}, nil)
	nothing(t, in.replies)
	nothing(t, in.lost)
	if !soleReference(buf) {
		t.Fatal("a closed link kept data")
	}
}

// TestSteadyStateAllocatesNothing holds what the benchmarks show. A ping shows
// it also under the race detector, which empties pools at random.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	n := startNode(t, newAcceptor(echo), nil)
	link, in := n.dial(t, n.config())
	seq := uint64(0)
	if allocs := testing.AllocsPerRun(2000, func() {
		seq++
		link.Send(block.Request{Op: block.OpPing, Seq: seq}, nil)
		<-in.replies
	}); allocs >= 1 {
		t.Fatalf("%v allocations for each request", allocs)
	}
}
