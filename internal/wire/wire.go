package wire

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// Link is an engine's end of a connection to one replica. The local replica, a
// TCP connection and the simulator's network all look like this.
type Link interface {
	// Send hands one request over, in order, without waiting for the network.
	// It takes over one reference of req.Buf. After the link is lost it drops
	// the request. It may go only at the end of the turn.
	Send(req block.Request, t *turn.Turn)
	// Close ends the link; Lost is not called for it.
	Close() error
}

// Receiver is what a Link tells its engine, from a goroutine of the link.
type Receiver interface {
	// Receive takes one reply over, with one reference of rep.Buf.
	Receive(rep block.Reply, t *turn.Turn)
	// Lost is called once when the link ends by itself.
	Lost(err error)
}

// Reply takes one reply over, with one reference of rep.Buf.
type Reply func(rep block.Reply, t *turn.Turn)

// Acceptor is a node's side: it makes the replica's end of each connection.
type Acceptor interface {
	// Accept begins a connection. The first request must be OpOpen. Replies go
	// to reply, from any goroutine, in any order; reply must not block for long.
	Accept(reply Reply) Session
}

// Session is a replica's end of one connection.
type Session interface {
	// Handle takes one request over, with one reference of req.Buf. Requests of
	// a connection are handed over in order, by one goroutine at a time.
	Handle(req block.Request, t *turn.Turn)
	// Close ends the session: what is in flight ends by itself, its replies are
	// dropped.
	Close()
}
