package core

import (
	"errors"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// mend is under way for a write of a part of a block at a replica whose copy of
// the other part does not verify. The block is brought whole from a member that
// has it intact, and the write is sent there again. Nothing else touches the block
// meanwhile, because the write holds its range; whether the member that gave it
// had the write already does not matter.
type mend struct {
	active bool
	// peer is the replica that is mended, edge the block: 0 is the one in which the
	// write begins, 1 the one in which it ends.
	peer, edge int
	// tried are the replicas whose copies fail. unsure: when the search began, the
	// checksum of the block was in doubt; accepting: all copies fail, and what was
	// not flushed before a crash is taken as found.
	tried             set
	unsure, accepting bool
	// call is the stamp of the call under way.
	call uint64
}

// mendsMax bounds how often a block that has just been mended is believed to have
// failed again.
const mendsMax = 8

// edge is the whole block of which the write changes the beginning or the end only.
func (w *write) edge(n int) (block.Span, bool) {
	first := block.Span{Offset: w.span.Offset &^ (block.BlockSize - 1), Length: block.BlockSize}
	last := block.Span{Offset: (w.span.End() - 1) &^ (block.BlockSize - 1), Length: block.BlockSize}
	switch n {
	case 0:
		return first, w.span.Offset != first.Offset || first == last && w.span.End() != last.End()
	case 1:
		return last, first != last && w.span.End() != last.End()
	default:
		return block.Span{}, false
	}
}

// partial reports whether the write changes only a part of some block.
func (w *write) partial() bool {
	_, first := w.edge(0)
	_, last := w.edge(1)
	return first || last
}

// unmerged deals with a write of a part of a block whose other part does not
// verify at a replica, and reports whether it did. A target that does not count
// misses the write: the copy of the chunk brings the block whole.
func (c *Core) unmerged(i int, at int32, rep *block.Reply) bool {
	p := &c.peers[i]
	e := &p.calls.slots[at]
	if e.purpose != forWrite || !errors.Is(rep.Err, block.ErrChecksum) {
		return false
	}
	index := int(e.index)
	w := &c.writes[index]
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
	case c.need().has(i) && current && w.partial() && w.mends < mendsMax:
		p.calls.remove(at)
		w.sent &^= bit(i)
		w.rotten |= bit(i)
		c.pushWrite(index)
	default:
		return false
	}
	return true
}

// mendWrite goes on with the replicas that could not merge the write, one after
// the other. As with every repair, all members must be here: the one that is away
// may be the one that has the block.
func (c *Core) mendWrite(i int) {
	w := &c.writes[i]
	for k := range (w.rotten &^ c.need()).all() {
		w.rotten &^= bit(k)
		if t := c.peers[k].target; t != nil && t.active {
			w.missed |= bit(k)
			c.missed(k, w.span)
		}
		if w.mend.active && w.mend.peer == k {
			w.mend = mend{}
		}
	}
	if w.rotten == 0 || w.mend.active || w.lost || !c.settled() || c.healthy() != c.iss {
		return
	}
	w.mend = mend{active: true, peer: w.rotten.first(), edge: -1}
	c.mendEdge(i)
}

// mendEdge goes on with the next block, or ends the mending of a replica: it is
// sent the write again.
func (c *Core) mendEdge(i int) {
	w := &c.writes[i]
	m := &w.mend
	m.tried, m.accepting = 0, false
	for m.edge++; m.edge <= 1; m.edge++ {
		if span, partial := w.edge(m.edge); partial {
			m.unsure = c.unsure.touches(span)
			c.mendFrom(i)
			return
		}
	}
	w.rotten &^= bit(m.peer)
	w.mend = mend{}
	w.mends++
}

// mendFrom asks the next member for the block. One that verifies wins over one that
// does not; bytes that nobody can verify are accepted only from an unflushed set,
// and those of the source of repairs first.
func (c *Core) mendFrom(i int) {
	w := &c.writes[i]
	m := &w.mend
	span, _ := w.edge(m.edge)
	from := c.iss &^ m.tried
	if from == 0 && m.unsure && !m.accepting {
		m.accepting, m.tried = true, 0
		from = c.iss
	}
	if from == 0 {
		w.lost, m.active = true, false
		return
	}
	k := from.first()
	if source := c.repairSource(); from.has(source) {
		k = source
	}
	if others := from &^ bit(m.peer); !m.accepting && others != 0 {
		k = others.first()
	}
	var flags block.Flags
	if m.accepting {
		flags = block.FlagAcceptSuspect
	}
	c.mendCall(k, i, block.Request{Op: block.OpRead, Flags: flags, Offset: span.Offset, Length: span.Length})
}

func (c *Core) mendCall(k, i int, req block.Request) {
	c.mends++
	c.writes[i].mend.call = c.mends
	c.call(k, forMend, i, c.mends, req)
}

// mendReplied is the answer of a replica to a mend.
func (c *Core) mendReplied(k int, e *call, rep *block.Reply) {
	i := int(e.index)
	w := &c.writes[i]
	m := &w.mend
	if !w.used || !m.active || m.call != e.stamp {
		rep.Buf.Release()
		return
	}
	span := e.req.Span()
	switch {
	case e.req.Op == block.OpWrite:
		rep.Buf.Release()
		c.noteRepaired(m.peer, block.SnapshotID{}, span, true)
		c.mendEdge(i)
	case rep.Err != nil:
		rep.Buf.Release()
		m.tried |= bit(k)
		c.mendFrom(i)
	case rep.Buf == nil || int64(len(rep.Buf.Data)) != span.Length:
		rep.Buf.Release()
		w.mend = mend{}
		c.fail(k, block.ErrProtocol)
		return
	case k == m.peer:
		// The checksum was taken as found, now or by a verification.
		rep.Buf.Release()
		c.mendEdge(i)
	default:
		c.mendCall(m.peer, i, block.Request{Op: block.OpWrite, Offset: span.Offset, Length: span.Length, Buf: rep.Buf})
		rep.Buf.Release()
	}
	c.pushWrite(i)
}

// leaveOut goes on without the block whose other part nobody has: as a read of it
// would (rule 19), the request will fail. What else it writes goes to everybody
// once more, so that all hold the same though some had applied it and others
// refused it whole. Targets miss it, and must not keep it alone.
func (c *Core) leaveOut(i int) {
	w := &c.writes[i]
	if c.need()&w.sent&^w.has != 0 {
		return
	}
	edge, _ := w.edge(w.mend.edge)
	c.noteUnreadable(block.SnapshotID{}, edge)
	for k := range c.peers {
		if t := c.peers[k].target; t != nil && t.active && !c.need().has(k) {
			w.missed |= bit(k)
			c.missed(k, w.span)
			c.forgetOlder(k, w.span)
		}
	}
	c.leaveLog(w.span)
	w.failed = true
	rest := block.Span{Offset: w.span.Offset, Length: edge.Offset - w.span.Offset}
	if w.mend.edge == 0 {
		rest = block.Span{Offset: edge.End(), Length: w.span.End() - edge.End()}
	}
	w.lost, w.mend, w.rotten, w.full, w.has = false, mend{}, 0, 0, 0
	w.sent &^= c.need()
	if rest.Length <= 0 {
		c.failWrite(c.endWrite(i))
		return
	}
	w.shorten(rest)
	c.enterLog(w.span)
	c.pushWrite(i)
}

// shorten leaves only a part of the write.
func (w *write) shorten(span block.Span) {
	if w.buf != nil {
		short := block.NewBuffer(int(span.Length))
		copy(short.Data, w.buf.Data[span.Offset-w.span.Offset:])
		w.buf.Release()
		w.buf = short
	}
	w.span = span
}

// failWrite ends the request of a write that has ended without all of it.
func (c *Core) failWrite(ended write) {
	invariant.Assert(ended.request >= 0, "a write fails that no client waits for")
	c.release(c.requests[ended.request].ticket)
	c.complete(int(ended.request), block.ErrIO, nil)
	c.kick = true
}
