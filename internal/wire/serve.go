package wire

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// replicaConn is a replica's end of one connection past its handshake.
type replicaConn struct {
	conn    net.Conn
	replica block.ReplicaID
	window  *window
	sender  *sender[block.Reply]
}

// serveReplica moves requests of a connection to the acceptor and replies back,
// until the connection ends; it says why, nil when the peer hung up between two
// frames. It uses the calling goroutine and one more, which it joins.
func serveReplica(conn net.Conn, replica block.ReplicaID, limits Limits, acceptor Acceptor) error {
	c := &replicaConn{
		conn:    conn,
		replica: replica,
		window:  newWindow(limits),
	}
	// The window bounds what can be put here.
	c.sender = newSender(conn, math.MaxInt, math.MaxInt64, func(b []byte, rep *block.Reply) ([]byte, error) {
		return appendReply(b, replica, rep)
	}, c.window.leave)
	session := acceptor.Accept(c.reply)
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		writeErr = c.write()
		// Without a writer nobody is served: let the reader end too.
		c.window.close()
		hangUp(conn)
	})
	err := c.read(session)
	session.Close()
	c.window.close()
	releaseAll(c.sender.close())
	hangUp(conn)
	writing.Wait()
	if writeErr != nil && !errors.Is(err, block.ErrProtocol) {
		err = writeErr
	}
	return err
}

// reply takes one reply over; it never waits.
func (c *replicaConn) reply(rep block.Reply, t *turn.Turn) {
	if c.sender.put(rep) != accepted {
		rep.Buf.Release()
		return
	}
	t.Defer(c.sender)
}

func (c *replicaConn) write() error {
	if err := c.sender.run(); err != nil {
		return fmt.Errorf("write replies of replica %s: %w", c.replica, err)
	}
	return nil
}

// read hands requests to the session until the connection ends. A frame that is
// damaged ends it before anything of the frame is applied.
func (c *replicaConn) read(session Session) error {
	var own turn.Turn
	defer own.End()
	frames := newFrameReader(c.conn, &own)
	var h header
	for {
		meta, buf, err := frames.next(&h, kindRequest)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read requests to replica %s: %w", c.replica, err)
		}
		if h.replica != c.replica {
			buf.Release()
			return fmt.Errorf("request to replica %s on a connection to replica %s: %w", h.replica, c.replica, block.ErrProtocol)
		}
		req, err := decodeRequest(&h, meta, buf)
		if err != nil {
			return fmt.Errorf("read requests to replica %s: %w", c.replica, err)
		}
		if err := c.window.enter(&req, &own); err != nil {
			req.Buf.Release()
			return fmt.Errorf("read requests to replica %s: %w", c.replica, err)
		}
		session.Handle(req, &own)
	}
}
