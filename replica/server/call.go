package server

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/replica/store"
)

// call is one request on its way through a door. Calls are reused, so that a
// request costs no allocation.
type call struct {
	op      store.Op
	req     block.Request
	session *session
	door    *door
	next    *call
}

// start hands the call to the store, or answers a ping. It runs without the
// door's lock, in a turn of the caller.
func (c *call) start(t *turn.Turn) {
	if c.req.Op == block.OpPing {
		c.door.finish(c, t)
		return
	}
	c.prepare()
	c.op.Submitting = t
	c.door.replica.Submit(&c.op)
}

// prepare translates the request into the store's words.
func (c *call) prepare() {
	c.op = store.Op{Flags: c.req.Flags, Offset: c.req.Offset, Length: c.req.Length, Snapshot: c.req.Snapshot, Since: c.req.Since, Buf: c.req.Buf, Done: c.op.Done}
	switch c.req.Op {
	case block.OpRead:
		c.op.Kind = store.Read
		c.op.Buf = block.NewBuffer(int(c.req.Length))
	case block.OpWrite:
		c.op.Kind = store.Write
		if c.req.Flags&block.FlagRepair != 0 {
			c.op.Kind = store.Repair
		}
	case block.OpZero:
		c.op.Kind = store.Zero
	case block.OpFlush:
		c.op.Kind = store.Flush
		c.op.FlushNumber = c.req.Flush
		c.op.Confirmed = c.req.Confirmed
	case block.OpHash:
		c.op.Kind = store.Hash
	case block.OpChanged:
		c.op.Kind = store.Changed
		c.op.Buf = block.NewBuffer(block.ChangedBytes(c.req.Length))
	case block.OpUpdate:
		c.op.Kind = store.Update
		c.op.Meta = c.req.Update
	}
}

// answer makes the reply of a finished call and gives back what the call holds.
func (c *call) answer() block.Reply {
	rep := replyTo(&c.req, c.op.Err)
	switch c.req.Op {
	case block.OpRead, block.OpChanged:
		if rep.Err == nil {
			rep.Buf = c.op.Buf
		} else {
			c.op.Buf.Release()
		}
	case block.OpWrite, block.OpZero:
		rep.Free = c.door.disk.Free()
		c.req.Buf.Release()
	case block.OpPing:
		rep.Free = c.door.disk.Free()
	case block.OpHash:
		rep.Hashes, rep.Next = c.op.Hashes, c.op.Next
	}
	return rep
}

// callQueue is a list of calls in the order of their arrival.
type callQueue struct{ first, last *call }

func (q *callQueue) push(c *call) {
	c.next = nil
	if q.last == nil {
		q.first = c
	} else {
		q.last.next = c
	}
	q.last = c
}

// pop takes the oldest call; nil if there is none.
func (q *callQueue) pop() *call {
	c := q.first
	if c == nil {
		return nil
	}
	q.first = c.next
	if q.first == nil {
		q.last = nil
	}
	c.next = nil
	return c
}

// replyTo is the answer to a request, with nothing but its identity and err.
func replyTo(req *block.Request, err error) block.Reply {
	return block.Reply{Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Err: err}
}
