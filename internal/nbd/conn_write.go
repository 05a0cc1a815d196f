package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// finished implements owner: it forms the reply, which goes at the end of the turn.
func (c *Conn) finished(r *Request, err error, buf *block.Buffer, t *turn.Turn) {
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
	c.enqueue(r, t)
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
		c.finished(r, err, nil, nil)
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
	c.enqueue(r, nil)
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

// enqueue adds a finished request to those to be answered, or drops it when nobody is
// any more.
func (c *Conn) enqueue(r *Request, t *turn.Turn) {
	c.mu.Lock()
	if c.phase == phaseOver {
		c.recycleLocked(r)
		c.mu.Unlock()
		return
	}
	r.next = nil
	if c.doneTail == nil {
		c.doneHead = r
	} else {
		c.doneTail.next = r
	}
	c.doneTail = r
	c.mu.Unlock()
	c.reader.Suggest(t)
	t.Defer(c)
}

// EndTurn implements turn.Ender: it sends the replies there are, as far as the client
// takes them, unless somebody is at it. What is left is for writeLoop.
func (c *Conn) EndTurn(*turn.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sending {
		return
	}
	for c.takeBatchLocked() {
		c.mu.Unlock()
		c.loadBatch()
		all, err := c.out.Try()
		c.mu.Lock()
		if err != nil {
			c.brokenLocked(err)
		}
		if !all && !c.aborted {
			c.left = true
			c.workReady.Signal()
			return
		}
		c.endBatchLocked()
	}
}

// writeLoop sends what others have left, and waits for the client to take it, until the
// reader has ended and nothing is in flight, or until the connection is aborted.
func (c *Conn) writeLoop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for !c.left && !c.aborted && (c.phase != phaseDraining || c.inFlight > 0) {
			c.workReady.Wait()
		}
		if !c.left {
			return
		}
		c.left = false
		for more := true; more; {
			if c.quiescing {
				_ = c.socket.SetWriteDeadline(time.Now().Add(quiesceWriteTimeout))
			}
			c.mu.Unlock()
			err := c.out.Flush()
			c.mu.Lock()
			if err != nil {
				c.brokenLocked(err)
			}
			c.endBatchLocked()
			if more = c.takeBatchLocked(); more {
				c.loadBatch()
			}
		}
	}
}

// takeBatchLocked makes what is finished the batch, unless there is nothing to be
// answered.
func (c *Conn) takeBatchLocked() bool {
	if c.aborted || c.doneHead == nil {
		return false
	}
	c.batch = c.doneHead
	c.doneHead, c.doneTail = nil, nil
	c.sending = true
	return true
}

// endBatchLocked gives back the requests of the batch.
func (c *Conn) endBatchLocked() {
	for c.batch != nil {
		r := c.batch
		c.batch = r.next
		c.recycleLocked(r)
	}
	c.sending = false
	c.slotFree.Signal()
	if c.phase == phaseDraining && c.inFlight == 0 {
		c.workReady.Signal()
	}
}

// brokenLocked ends a connection that cannot be written.
func (c *Conn) brokenLocked(err error) {
	if c.cause == nil && !c.quiescing && !c.aborted {
		c.cause = fmt.Errorf("write NBD replies: %w", err)
	}
	c.abortLocked()
}

// loadBatch hands the replies of the batch to out.
func (c *Conn) loadBatch() {
	for r := c.batch; r != nil; r = r.next {
		if r.held {
			continue
		}
		c.out.Add(r.head[:r.headLength])
		c.out.Add(r.extra)
		if r.reply != nil {
			c.out.Add(r.reply.Data)
		}
	}
}
