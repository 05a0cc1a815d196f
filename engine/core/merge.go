package core

import (
	"errors"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// unmerged deals with a write of a part of a block whose other part does not
// verify at a replica, and reports whether it did. A target misses the write: the
// copy of the chunk brings the block whole. The only member cannot be replaced,
// and nobody has the bytes that are missing: as a read of them would (rule 19),
// the request fails. Any other member is removed, for others have the block.
func (c *Core) unmerged(i int, at int32, rep *block.Reply) bool {
	p := &c.peers[i]
	e := &p.calls.slots[at]
	if e.purpose != forWrite || !errors.Is(rep.Err, block.ErrChecksum) {
		return false
	}
	w := &c.writes[e.index]
	current := w.used && w.stamp == e.stamp
	switch {
	case p.target != nil && !c.need().has(i):
		if current {
			w.sent &^= bit(i)
			w.missed |= bit(i)
		}
		c.missed(i, e.req.Span())
		p.calls.remove(at)
		c.pump(i)
		c.kick = true
	case c.need() == bit(i) && current && w.request >= 0:
		index := int(e.index)
		p.calls.remove(at)
		c.failWrite(index)
	default:
		return false
	}
	return true
}

// failWrite ends a client's write that the only member cannot carry out. Targets
// may have it, and must not keep it alone.
func (c *Core) failWrite(i int) {
	w := &c.writes[i]
	invariant.Assert(w.running && w.request >= 0, "a write fails that no client waits for")
	c.leaveLog(w.span)
	for k := range c.peers {
		if t := c.peers[k].target; t != nil && t.active {
			c.missed(k, w.span)
			c.forgetOlder(k, w.span)
		}
	}
	ended := c.endWrite(i)
	c.release(c.requests[ended.request].ticket)
	c.complete(int(ended.request), block.ErrIO, nil)
	c.kick = true
}
