package wire

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/turn"
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
	reply    Reply
	answer   func(c *acceptedConn, req block.Request)
	requests chan block.Request
	closed   chan struct{}
}

func (c *acceptedConn) Handle(req block.Request, _ *turn.Turn) { c.answer(c, req) }
func (c *acceptedConn) Close()                                 { close(c.closed) }

// scriptedAcceptor gives every request to answer.
type scriptedAcceptor struct {
	answer func(c *acceptedConn, req block.Request)
	conns  chan *acceptedConn
}

func newAcceptor(answer func(c *acceptedConn, req block.Request)) *scriptedAcceptor {
	return &scriptedAcceptor{answer: answer, conns: make(chan *acceptedConn, 16)}
}

func (a *scriptedAcceptor) Accept(reply Reply) Session {
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
	c.reply(rep, nil)
}

// keep holds requests for the test.
func keep(c *acceptedConn, req block.Request) { c.requests <- req }

// listen listens on loopback.
func listen(t testing.TB) net.Listener {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// connect makes a connection that is closed when the test ends.
func connect(t testing.TB, addr string) net.Conn {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

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
	listener := listen(t)
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

func (i *inbox) Receive(rep block.Reply, _ *turn.Turn) { i.replies <- rep }
func (i *inbox) Lost(err error)                        { i.lost <- err }

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
