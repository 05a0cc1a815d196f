package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// finished implements owner: it forms the reply and hands it to the writer.
func (c *Conn) finished(r *Request, err error, buf *block.Buffer) {
	r.reply = buf
	switch {
	case err != nil:
		c.formError(r, err)
	case c.config.Structured && r.Kind == KindRead:
		h := replyHeader{
			structured: true, flags: chunkFlagDone, chunk: chunkOffsetData,
			cookie: r.cookie, length: uint32(r.Length) + readChunkPrefix,
		}
		n := h.encode(r.head[:])
		binary.BigEndian.PutUint64(r.head[n:], uint64(r.Offset))
		r.headLength = n + readChunkPrefix
	default:
		h := replyHeader{cookie: r.cookie}
		r.headLength = h.encode(r.head[:])
	}
	c.enqueue(r)
}

// formError makes the reply an error, or holds it back.
func (c *Conn) formError(r *Request, err error) {
	errno, hold := judge(err)
	if hold && c.config.HoldErrors {
		r.held = true
		c.log.Info("NBD request left unanswered", "kind", r.Kind.String(), "err", err)
		c.abort(fmt.Errorf("%s request: %w", r.Kind, err))
		return
	}
	var refused Errno
	if !errors.As(err, &refused) {
		c.log.Warn("NBD request failed", "kind", r.Kind.String(), "offset", r.Offset, "length", r.Length, "err", err)
	}
	if !c.config.Structured || (r.Kind != KindRead && r.Kind != KindStatus) {
		h := replyHeader{cookie: r.cookie, errno: errno}
		r.headLength = h.encode(r.head[:])
		return
	}
	h := replyHeader{
		structured: true, flags: chunkFlagDone, chunk: chunkError,
		cookie: r.cookie, length: errorChunkPrefix,
	}
	n := h.encode(r.head[:])
	binary.BigEndian.PutUint32(r.head[n:], uint32(errno))
	binary.BigEndian.PutUint16(r.head[n+4:], 0)
	r.headLength = n + errorChunkPrefix
}

// finishedStatus implements owner: one chunk for each context.
func (c *Conn) finishedStatus(r *Request, err error, status [][]Extent) {
	if err != nil {
		c.finished(r, err, nil)
		return
	}
	invariant.Assert(len(status) == len(c.contexts), "status of %d contexts for %d", len(status), len(c.contexts))
	r.headLength = 0
	var reply []byte
	for i, extents := range status {
		extents = clipExtents(extents, r.Length, r.one)
		invariant.Assert(len(extents) > 0, "status of context %s without extents", c.contexts[i])
		h := replyHeader{
			structured: true, chunk: chunkBlockStatus,
			cookie: r.cookie, length: uint32(4 + 8*len(extents)),
		}
		if i == len(status)-1 {
			h.flags = chunkFlagDone
		}
		var head [structuredReplyLength]byte
		h.encode(head[:])
		reply = append(reply, head[:]...)
		reply = appendStatusChunk(reply, c.config.Contexts[i].ID, extents)
	}
	r.extra = reply
	c.enqueue(r)
}

// clipExtents cuts a status off at the end of its request and at the bounds of
// a reply.
func clipExtents(extents []Extent, length int64, one bool) []Extent {
	out := make([]Extent, 0, min(len(extents), maxStatusExtents))
	for _, e := range extents {
		if length == 0 || len(out) == maxStatusExtents || (one && len(out) == 1) {
			break
		}
		if e.Length == 0 {
			continue
		}
		e.Length = uint32(min(int64(e.Length), length))
		length -= int64(e.Length)
		out = append(out, e)
	}
	return out
}

// enqueue gives a finished request to the writer, or drops it when there is
// none any more.
func (c *Conn) enqueue(r *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseOver {
		c.recycleLocked(r)
		return
	}
	r.next = nil
	if c.doneTail == nil {
		c.doneHead = r
	} else {
		c.doneTail.next = r
	}
	c.doneTail = r
	if c.writerWaits && !c.corked {
		c.writerWaits = false
		c.workReady.Signal()
	}
}

// writeLoop sends replies until the reader has ended and nothing is in flight,
// or until the connection is aborted.
func (c *Conn) writeLoop() {
	var batch *Request
	for {
		if batch = c.nextBatch(batch); batch == nil {
			return
		}
		if err := c.send(batch); err != nil {
			c.abort(fmt.Errorf("write NBD replies: %w", err))
		}
	}
}

// nextBatch gives back the requests of the last batch and waits for new ones.
// It returns nil when the writer's work is over.
func (c *Conn) nextBatch(last *Request) *Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last != nil {
		for last != nil {
			r := last
			last = r.next
			c.recycleLocked(r)
		}
		c.slotFree.Signal()
	}
	for {
		if c.aborted || (c.phase == phaseDraining && c.inFlight == 0) {
			return nil
		}
		if c.doneHead != nil && !c.corked {
			break
		}
		c.writerWaits = true
		c.workReady.Wait()
		c.writerWaits = false
	}
	batch := c.doneHead
	c.doneHead, c.doneTail = nil, nil
	if c.quiescing {
		_ = c.socket.SetWriteDeadline(time.Now().Add(quiesceWriteTimeout))
	}
	return batch
}

// send writes the replies of a batch.
func (c *Conn) send(batch *Request) error {
	for r := batch; r != nil; r = r.next {
		if r.held {
			continue
		}
		c.out.add(r.head[:r.headLength])
		if len(r.extra) > 0 {
			c.out.add(r.extra)
		}
		if r.reply != nil {
			c.out.add(r.reply.Data)
		}
	}
	return c.out.flush()
}

// outputVector gathers pieces and writes them at once: by writev where the
// socket can, else through one contiguous buffer, so that a TLS record holds
// many replies.
type outputVector struct {
	socket  net.Conn
	vector  bool
	pieces  [][]byte
	pending net.Buffers
	flat    []byte
}

// flatBytes is the size of the contiguous buffer.
const flatBytes = 256 << 10

func (o *outputVector) init(socket net.Conn) {
	o.socket = socket
	switch socket.(type) {
	case *net.UnixConn, *net.TCPConn:
		o.vector = true
	default:
		o.flat = make([]byte, 0, flatBytes)
	}
}

func (o *outputVector) add(piece []byte) { o.pieces = append(o.pieces, piece) }

func (o *outputVector) flush() error {
	defer func() {
		clear(o.pieces)
		o.pieces = o.pieces[:0]
	}()
	if o.vector {
		o.pending = o.pieces
		_, err := o.pending.WriteTo(o.socket)
		return err
	}
	for _, p := range o.pieces {
		for len(p) > 0 {
			n := min(len(p), flatBytes-len(o.flat))
			o.flat = append(o.flat, p[:n]...)
			p = p[n:]
			if len(o.flat) == flatBytes {
				if err := o.flushFlat(); err != nil {
					return err
				}
			}
		}
	}
	return o.flushFlat()
}

func (o *outputVector) flushFlat() error {
	if len(o.flat) == 0 {
		return nil
	}
	_, err := o.socket.Write(o.flat)
	o.flat = o.flat[:0]
	return err
}
