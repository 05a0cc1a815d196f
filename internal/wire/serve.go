package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// replicaConn is a replica's end of one connection past its handshake.
type replicaConn struct {
	socket  *socket.Socket
	replica block.ReplicaID
	window  *window
	sender  *sender[block.Reply]
	reader  *turn.Reader
}

// serveReplica moves requests of a connection to the acceptor and replies back,
// until the connection ends; it says why, nil when the peer hung up between two
// frames. It uses the calling goroutine and one more, which it joins.
func serveReplica(ctx context.Context, conn net.Conn, replica block.ReplicaID, limits Limits, acceptor Acceptor) error {
	c := &replicaConn{
		socket:  socket.New(conn),
		replica: replica,
	}
	c.reader = turn.NewReader(c.socket)
	c.window = newWindow(limits, c.reader)
	// The window bounds what can be put here.
	c.sender = newSender(c.socket, math.MaxInt, math.MaxInt64, func(b []byte, rep *block.Reply) ([]byte, error) {
		return appendReply(b, replica, rep)
	}, c.window.leave)
	stop := context.AfterFunc(ctx, c.hangUp)
	defer stop()
	session := acceptor.Accept(c.reply)
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		writeErr = c.write()
		// Without a writer nobody is served: let the reader end too.
		c.hangUp()
	})
	frames := newFrameReader(c.reader)
	err := c.reader.Run(func() error { return c.read(session, frames) })
	session.Close()
	releaseAll(c.sender.close())
	c.hangUp()
	writing.Wait()
	if writeErr != nil && !errors.Is(err, block.ErrProtocol) {
		err = writeErr
	}
	return err
}

// hangUp ends the connection at once, also if the reader waits for room.
func (c *replicaConn) hangUp() {
	c.window.close()
	// What closing could report, the reader and the writer find out themselves.
	_ = c.socket.HangUp()
	c.reader.Stop()
}

// reply takes one reply over; it never waits.
func (c *replicaConn) reply(rep block.Reply, t *turn.Turn) {
	if c.sender.put(rep) != accepted {
		rep.Buf.Release()
		return
	}
	c.reader.Suggest(t)
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
func (c *replicaConn) read(session Session, frames *frameReader) error {
	var h header
	for {
		meta, buf, err := frames.next(&h, kindRequest)
		if errors.Is(err, turn.ErrMoved) {
			return err
		}
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
		if err := c.window.enter(&req); err != nil {
			req.Buf.Release()
			return fmt.Errorf("read requests to replica %s: %w", c.replica, err)
		}
		session.Handle(req, c.reader.Turn())
	}
}
