package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
)

// replicaConn is a replica's end of one connection past its handshake.
type replicaConn struct {
	conn    net.Conn
	replica block.ReplicaID
	window  *window
	outbox  *outbox[block.Reply]
}

// serveReplica moves requests of a connection to the acceptor and replies back,
// until the connection ends; it says why, nil when the peer hung up between two
// frames. It uses the calling goroutine and one more, which it joins.
func serveReplica(conn net.Conn, replica block.ReplicaID, limits Limits, acceptor Acceptor) error {
	c := &replicaConn{
		conn:    conn,
		replica: replica,
		window:  newWindow(limits),
		// The window bounds what can be put here.
		outbox: newOutbox[block.Reply](math.MaxInt, math.MaxInt64),
	}
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
	releaseAll(c.outbox.close())
	hangUp(conn)
	writing.Wait()
	if writeErr != nil && !errors.Is(err, block.ErrProtocol) {
		err = writeErr
	}
	return err
}

// reply takes one reply over; it never waits.
func (c *replicaConn) reply(rep block.Reply) {
	size := 0
	if rep.Buf != nil {
		size = len(rep.Buf.Data)
	}
	if c.outbox.put(rep, size) != accepted {
		rep.Buf.Release()
	}
}

func (c *replicaConn) write() error {
	w := writer[block.Reply]{
		conn:    c.conn,
		outbox:  c.outbox,
		append:  func(b []byte, rep *block.Reply) ([]byte, error) { return appendReply(b, c.replica, rep) },
		written: c.window.leave,
	}
	if err := w.run(); err != nil {
		return fmt.Errorf("write replies of replica %s: %w", c.replica, err)
	}
	return nil
}

// read hands requests to the session until the connection ends. A frame that is
// damaged ends it before anything of the frame is applied.
func (c *replicaConn) read(session Session) error {
	frames := frameReader{r: bufio.NewReaderSize(c.conn, readBufferSize)}
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
		if err := c.window.enter(&req); err != nil {
			req.Buf.Release()
			return fmt.Errorf("read requests to replica %s: %w", c.replica, err)
		}
		session.Handle(req)
	}
}
