package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// remoteLink is an engine's end of a connection to a replica of another node.
type remoteLink struct {
	socket  *socket.Socket
	replica block.ReplicaID
	recv    Receiver
	sender  *sender[block.Request]
	reader  *turn.Reader
	ended   chan struct{}

	mu sync.Mutex
	// cause is why the link ended first; nil while it lives.
	cause error
	// closed: the engine closed the link, Lost is not called.
	closed bool
}

var _ Link = (*remoteLink)(nil)

// newRemoteLink starts a link over a connection past its handshake.
func newRemoteLink(conn net.Conn, replica block.ReplicaID, limits Limits, recv Receiver) *remoteLink {
	l := &remoteLink{
		socket:  socket.New(conn),
		replica: replica,
		recv:    recv,
		ended:   make(chan struct{}),
	}
	l.reader = turn.NewReader(l.socket)
	l.sender = newSender(l.socket, limits.Requests, limits.Bytes, func(b []byte, req *block.Request) ([]byte, error) {
		return appendRequest(b, replica, req)
	}, nil)
	var both sync.WaitGroup
	both.Go(l.write)
	go func() { // ends with the connection; joined through Done
		defer close(l.ended)
		frames := newFrameReader(l.reader)
		err := l.reader.Run(func() error { return l.read(frames) })
		l.fail(err)
		both.Wait()
		l.report()
	}()
	return l
}

// Send implements Link.
func (l *remoteLink) Send(req block.Request, t *turn.Turn) {
	switch l.sender.put(req) {
	case accepted:
		l.reader.Suggest(t)
		t.Defer(l.sender)
		return
	case overflowed:
		l.fail(fmt.Errorf("replica %s takes requests too slowly, the queue to it is full: %w", l.replica, block.ErrUnavailable))
	}
	req.Buf.Release()
}

// Close implements Link. It does not wait: a Receive that runs may still end
// after it. Close may be called from anywhere, also from Receive and Lost.
func (l *remoteLink) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.fail(block.ErrClosed)
	return nil
}

// Done is closed when the link's goroutines have ended.
func (l *remoteLink) Done() <-chan struct{} { return l.ended }

// fail ends the connection; the first cause is kept.
func (l *remoteLink) fail(cause error) {
	l.mu.Lock()
	if l.cause != nil {
		l.mu.Unlock()
		return
	}
	l.cause = cause
	l.mu.Unlock()
	releaseAll(l.sender.close())
	// What closing could report, the reader and the writer find out themselves.
	_ = l.socket.HangUp()
	l.reader.Stop()
}

// report calls Lost, as the last thing the link does.
func (l *remoteLink) report() {
	l.mu.Lock()
	closed, cause := l.closed, l.cause
	l.mu.Unlock()
	if !closed {
		l.recv.Lost(cause)
	}
}

func (l *remoteLink) write() {
	if err := l.sender.run(); err != nil {
		l.fail(l.lost("write", err))
	}
}

// read takes replies off the connection until it ends; it says why.
func (l *remoteLink) read(frames *frameReader) error {
	var h header
	for {
		meta, buf, err := frames.next(&h, kindReply)
		if errors.Is(err, turn.ErrMoved) {
			return err
		}
		if err != nil {
			return l.lost("read", err)
		}
		if h.replica != l.replica {
			buf.Release()
			return l.lost("read", fmt.Errorf("reply of replica %s: %w", h.replica, block.ErrProtocol))
		}
		rep, err := decodeReply(&h, meta, buf)
		if err != nil {
			return l.lost("read", err)
		}
		l.recv.Receive(rep, l.reader.Turn())
	}
}

// lost words the end of the connection. Trouble of the network is
// block.ErrUnavailable.
func (l *remoteLink) lost(doing string, err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the peer closed the connection")
	}
	if errors.Is(err, block.ErrProtocol) || errors.Is(err, block.ErrInvalid) {
		return fmt.Errorf("%s, link to replica %s: %w", doing, l.replica, err)
	}
	return fmt.Errorf("%s, link to replica %s: %w: %w", doing, l.replica, err, block.ErrUnavailable)
}
