package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// patience bounds every wait of these tests.
const patience = 10 * time.Second

var (
	testCluster = block.ClusterID{ID: sampleID(0xc1)}
	testNode    = block.NodeID{ID: sampleID(0xa1)}
	otherNode   = block.NodeID{ID: sampleID(0xa2)}
)

// noExports is a node without exports.
type noExports struct{}

func (noExports) List(context.Context) []string { return nil }
func (noExports) Open(context.Context, string) (nbd.Export, error) {
	return nil, block.ErrNotFound
}

// acceptedConn is one connection of a scriptedAcceptor, and its Session.
type acceptedConn struct {
	reply    func(block.Reply)
	answer   func(c *acceptedConn, req block.Request)
	requests chan block.Request
	closed   chan struct{}
}

func (c *acceptedConn) Handle(req block.Request) { c.answer(c, req) }
func (c *acceptedConn) Close()                   { close(c.closed) }

// scriptedAcceptor gives every request to answer.
type scriptedAcceptor struct {
	answer func(c *acceptedConn, req block.Request)
	conns  chan *acceptedConn
}

func newAcceptor(answer func(c *acceptedConn, req block.Request)) *scriptedAcceptor {
	return &scriptedAcceptor{answer: answer, conns: make(chan *acceptedConn, 16)}
}

func (a *scriptedAcceptor) Accept(reply func(block.Reply)) Session {
	c := &acceptedConn{reply: reply, answer: a.answer, requests: make(chan block.Request, 4096), closed: make(chan struct{})}
	a.conns <- c
	return c
}

// echo answers at once, a read with zeros.
func echo(c *acceptedConn, req block.Request) {
	rep := block.Reply{Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Free: req.Offset}
	switch req.Op {
	case block.OpOpen:
		rep.Opened = &block.Opened{Size: req.Open.Size}
	case block.OpRead:
		rep.Buf = block.NewBuffer(int(req.Length))
		clear(rep.Buf.Data)
	}
	req.Buf.Release()
	c.reply(rep)
}

// keep holds requests for the test.
func keep(c *acceptedConn, req block.Request) { c.requests <- req }

// node is a running Server.
type node struct {
	addr     string
	acceptor *scriptedAcceptor
	stop     func()
}

func startNode(t testing.TB, acceptor *scriptedAcceptor, change func(*ServerConfig)) *node {
	t.Helper()
	config := ServerConfig{Cluster: testCluster, Node: testNode, Acceptor: acceptor, Exports: noExports{}}
	if change != nil {
		change(&config)
	}
	s, err := NewServer(config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	n := &node{addr: listener.Addr().String(), acceptor: acceptor, stop: sync.OnceFunc(func() {
		cancel()
		serving.Wait()
	})}
	t.Cleanup(n.stop)
	return n
}

func (n *node) config() DialConfig {
	return DialConfig{Addr: n.addr, Cluster: testCluster, Node: otherNode, Peer: testNode, Replica: sampleReplica}
}

// inbox is an engine's side of a link.
type inbox struct {
	replies chan block.Reply
	lost    chan error
}

func newInbox() *inbox {
	return &inbox{replies: make(chan block.Reply, 8192), lost: make(chan error, 4)}
}

func (i *inbox) Receive(rep block.Reply) { i.replies <- rep }
func (i *inbox) Lost(err error)          { i.lost <- err }

// dial makes a link that is closed, and joined, when the test ends.
func (n *node) dial(t testing.TB, config DialConfig) (Link, *inbox) {
	t.Helper()
	in := newInbox()
	link, err := Dial(context.Background(), config, in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = link.Close()
		await(t, link.(*remoteLink).Done())
	})
	return link, in
}

func await[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func nothing[T any](t testing.TB, from <-chan T) {
	t.Helper()
	select {
	case v := <-from:
		t.Fatalf("got %v", v)
	default:
	}
}

func TestRequestsAndReplies(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	link, in := n.dial(t, n.config())
	server := await(t, n.acceptor.conns)
	// A number is used once in a session.
	seq := uint64(0)
	for _, s := range requestSamples() {
		seq++
		s.req.Seq = seq
		link.Send(s.req)
		got := await(t, server.requests)
		want := requestSampleOf(s.name)
		want.req.Seq = seq
		sameRequest(t, got, want.req)
		server.reply(block.Reply{Op: block.OpPing, Epoch: 5, Session: 2, Seq: seq})
		await(t, in.replies)
	}
	for _, s := range replySamples() {
		seq++
		link.Send(block.Request{Op: block.OpPing, Epoch: 5, Session: 2, Seq: seq})
		await(t, server.requests)
		s.rep.Seq = seq
		want := s.rep
		if want.Buf != nil {
			want.Buf = sampleBuffer(len(want.Buf.Data))
		}
		server.reply(s.rep)
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
	link.Send(block.Request{Op: block.OpWrite, Length: 512, Buf: buf.Retain()})
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
	server.reply(block.Reply{Op: block.OpRead, Buf: buf.Retain()})
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
	recv := &closingReceiver{close: func(rep block.Reply) {
		<-ready
		_ = link.Close()
		got <- rep
	}}
	var err error
	if link, err = Dial(context.Background(), n.config(), recv); err != nil {
		t.Fatal(err)
	}
	close(ready)
	link.Send(block.Request{Op: block.OpPing})
	await(t, got)
	await(t, link.(*remoteLink).Done())
}

type closingReceiver struct{ close func(block.Reply) }

func (r *closingReceiver) Receive(rep block.Reply) { r.close(rep) }
func (r *closingReceiver) Lost(error)              { panic("lost after close") }

// TestOverflow: a peer that does not read costs the link, never the sender's
// time.
func TestOverflow(t *testing.T) {
	n := startNode(t, newAcceptor(keep), func(c *ServerConfig) { c.Limits = Limits{Requests: 1, Bytes: block.MaxTransfer} })
	config := n.config()
	config.Limits = Limits{Requests: 100, Bytes: 64 << 20}
	link, in := n.dial(t, config)
	buf := sampleBuffer(block.MaxTransfer)
	for i := range 1000 {
		link.Send(block.Request{Op: block.OpWrite, Length: block.MaxTransfer, Seq: uint64(i), Buf: buf.Retain()})
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
				link.Send(block.Request{Op: block.OpRead, Length: block.MaxTransfer, Seq: uint64(i)})
			}
			for range total {
				req := await(t, server.requests)
				if open := len(server.requests); open > 2 {
					t.Fatalf("%d requests taken besides", open)
				}
				server.reply(block.Reply{Op: block.OpPing, Seq: req.Seq})
				await(t, in.replies)
			}
		})
	}
}

// rawConn is a connection past its handshake, to break the protocol on.
func (n *node) rawConn(t *testing.T) net.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
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
	link.Send(block.Request{Op: block.OpWrite, Length: 1})
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
		l.Send(req)
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
	link.Send(block.Request{Op: block.OpRead, Length: 512, Seq: 9})
	if rep := await(t, in.replies); rep.Seq != 9 || len(rep.Buf.Data) != 512 {
		t.Fatalf("reply %+v", rep)
	}
	_ = link.Close()
	_ = link.Close()
	await(t, session.closed)
	buf := sampleBuffer(512)
	link.Send(block.Request{Op: block.OpWrite, Length: 512, Buf: buf.Retain()})
	session.reply(block.Reply{Op: block.OpRead, Buf: buf.Retain()})
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
		link.Send(block.Request{Op: block.OpPing, Seq: seq})
		<-in.replies
	}); allocs >= 1 {
		t.Fatalf("%v allocations for each request", allocs)
	}
}
