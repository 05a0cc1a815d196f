package wire

import (
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// Local makes the link to a replica on the same node: requests reach it by
// direct call. It has no goroutine and no queue.
//
// Receive may be called on any goroutine, several at once, and also from within
// Send, on the very goroutine that sends: the engine must not hold a lock
// through Send that its Receive needs, and puts what it receives into a queue of
// its own. Lost is never called. A Receive that runs may end after Close.
func Local(acceptor Acceptor, recv Receiver) Link {
	l := &localLink{recv: recv}
	l.session = acceptor.Accept(l.receive)
	return l
}

type localLink struct {
	recv    Receiver
	session Session
	closed  atomic.Bool
}

// Send implements Link.
func (l *localLink) Send(req block.Request, t *turn.Turn) {
	if l.closed.Load() {
		req.Buf.Release()
		return
	}
	l.session.Handle(req, t)
}

// Close implements Link.
func (l *localLink) Close() error {
	if !l.closed.Swap(true) {
		l.session.Close()
	}
	return nil
}

func (l *localLink) receive(rep block.Reply, t *turn.Turn) {
	if l.closed.Load() {
		rep.Buf.Release()
		return
	}
	l.recv.Receive(rep, t)
}
