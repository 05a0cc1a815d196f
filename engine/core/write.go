package core

import (
	"errors"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// write is one mirrored write or zeroing: of a client, or of a repair. Its range
// is locked from before it is sent until everybody who counts has it.
type write struct {
	used, running bool
	stamp         uint64
	op            block.Op
	flags         block.Flags
	span          block.Span
	buf           *block.Buffer
	// request or job is the slot of its owner; the other is -1.
	request, job int32
	// sent are the replicas it was handed to, has those that have it (rule 8),
	// missed the targets that it was not queued for (rule 21).
	sent, has, missed set
	// full are the replicas that had no space for it; they are asked again at
	// retryAt.
	full    set
	retryAt block.Instant
	// starved: it found a disk full, and has not ended yet. enters: some replica has a
	// region in its log because of it.
	starved, enters bool
	// rotten are the replicas that cannot merge it into a block whose other part
	// does not verify; mend is under way for one of them, mends are done. lost:
	// nobody has that part of the block mend.edge; failed: one was left out.
	rotten       set
	mend         mend
	mends        int
	lost, failed bool
}

// mirror begins a mirrored write. It takes over one reference of w.buf.
func (c *Core) mirror(w write) {
	invariant.Assert(len(c.freeWrites) > 0, "more writes than requests and jobs")
	n := len(c.freeWrites) - 1
	i := int(c.freeWrites[n])
	c.freeWrites = c.freeWrites[:n]
	w.used = true
	w.stamp = c.writes[i].stamp + 1
	c.writes[i] = w
	c.pushWrite(i)
}

// pushWrite carries a write as far as it can go now: sends it, or ends it.
func (c *Core) pushWrite(i int) {
	w := &c.writes[i]
	if !w.running {
		if c.maySendWrite(w) {
			c.sendWrite(i)
		} else {
			c.noteHeld(w)
		}
		return
	}
	if w.full != 0 {
		c.checkSpace(i)
	}
	if w.rotten != 0 {
		c.mendWrite(i)
	}
	if w.lost {
		c.leaveOut(i)
		return
	}
	for k := range (c.need() &^ (w.has | w.sent | w.full | w.rotten)).all() {
		c.deliver(k, i)
	}
	c.checkWrite(i)
}

// maySendWrite is the gate in front of every write: the view and the dirty sets
// are stored, the in-sync set may acknowledge it, no region it touches is just
// leaving the logs, and no cut is being taken.
func (c *Core) maySendWrite(w *write) bool {
	return c.settled() && (c.enough() || w.job >= 0) && !c.clearingAny(w.span) && !c.cut.holds()
}

// noteHeld counts what keeps a write from being sent.
func (c *Core) noteHeld(w *write) {
	switch {
	case !c.settled():
		c.guarded(GuardGate)
	case !c.enough() && w.job < 0:
		c.guarded(GuardMinimum)
	case c.cut.holds():
		c.guarded(GuardCut)
	default:
		c.guarded(GuardLeaving)
	}
}

// sendWrite hands a write to every replica that counts, and to every target.
func (c *Core) sendWrite(i int) {
	w := &c.writes[i]
	c.assertLocked(w)
	w.running = true
	if w.request >= 0 && c.requests[w.request].fua && w.op == block.OpWrite && c.durableAlone() {
		w.flags |= block.FlagDurable
	}
	c.enterLog(w.span)
	c.noteChanges(w.span)
	for k := range c.need().all() {
		c.deliver(k, i)
	}
	for k := range c.peers {
		if t := c.peers[k].target; t != nil && t.active && !w.sent.has(k) {
			c.queueForTarget(k, i)
		}
	}
}

// assertLocked: the range of a write is held by its owner for as long as it
// runs.
func (c *Core) assertLocked(w *write) {
	if w.request >= 0 {
		r := &c.requests[w.request]
		invariant.Assert(r.used && r.state == requestRunning && c.locks.held(r.ticket), "write without its range")
		invariant.Assert(!c.divide.touches(w.span), "write to a divergent chunk")
		return
	}
	j := &c.jobs[w.job]
	invariant.Assert(j.used && c.locks.held(j.ticket), "repair without its range")
}

// deliver makes the call that brings a write to one replica.
func (c *Core) deliver(k, i int) {
	w := &c.writes[i]
	w.sent |= bit(k)
	for r := range regionsOf(w.span) {
		if c.peers[k].log.Has(r) {
			continue
		}
		c.peers[k].log.Add(r)
		if !w.enters {
			w.enters = true
			c.flush.entering++
		}
	}
	c.call(k, forWrite, i, w.stamp, block.Request{
		Op: w.op, Flags: w.flags, Offset: w.span.Offset, Length: w.span.Length, Buf: w.buf,
	})
}

func (c *Core) writeReplied(k int, e *call, rep *block.Reply) {
	i := int(e.index)
	w := &c.writes[i]
	c.kick = c.kick || c.peers[k].target != nil
	if !w.used || w.stamp != e.stamp {
		// A target that did not count caught up with a write that has ended.
		return
	}
	if errors.Is(rep.Err, block.ErrNoSpace) {
		w.full |= bit(k)
		w.sent &^= bit(k)
		if !w.starved {
			w.starved = true
			c.starved++
		}
		w.retryAt = c.now + block.Instant(c.cfg.Timing.NoSpaceRetry)
		c.planSpaceRetry(w.retryAt)
	} else {
		w.has |= bit(k)
	}
	c.pushWrite(i)
}

// checkSpace gives full members up, or lets the write wait.
func (c *Core) checkSpace(i int) {
	w := &c.writes[i]
	for k := range w.full.all() {
		if !c.mayDropFull(w, k) {
			continue
		}
		c.guarded(GuardSpace)
		w.full &^= bit(k)
		if c.peers[k].failed == nil {
			c.fail(k, block.ErrNoSpace)
		}
	}
	if c.now >= w.retryAt {
		w.full = 0
	}
}

// mayDropFull reports whether a replica that has no room for a write may go.
//
// Rule 31 (full disks): a member goes if another one took the write and says that it
// has room left; else the write waits. When all are full, nobody goes. The other half
// is the store's: a sync that failed is never tried again (fail).
func (c *Core) mayDropFull(w *write, k int) bool {
	for q := range (w.has & c.iss &^ bit(k)).all() {
		if c.peers[q].free > 0 && c.iss.has(k) {
			return true
		}
	}
	return false
}

// mayAcknowledge reports whether a write may end. The end of a client's write is
// its acknowledgement.
//
// Rule 9 (acknowledgements): everybody who counts has it (rule 8), by a view that all
// members hold, and a client's write needs an in-sync set that is large enough. One
// who failed counts until the commit of its removal is known.
func (c *Core) mayAcknowledge(w *write) bool {
	return c.need()&^w.has == 0 && c.settled() && (w.request < 0 || c.enough())
}

// checkWrite ends a write that may be acknowledged.
func (c *Core) checkWrite(i int) {
	w := &c.writes[i]
	if !c.mayAcknowledge(w) {
		c.noteUnacknowledged(w, c.need()&^w.has)
		return
	}
	invariant.Assert(c.iss&^w.has == 0, "write ends without member")
	c.leaveLog(w.span)
	for k := range (w.missed | w.full).all() {
		// A copy may have read its source before the write got there. A full one
		// was to be admitted, and was not.
		c.missed(k, w.span)
	}
	ended := c.endWrite(i)
	if ended.failed {
		c.failWrite(ended)
	} else if ended.request >= 0 {
		c.written(int(ended.request), ended.span.Length, ended.durable())
	} else {
		c.jobWritten(int(ended.job))
	}
	for k := range c.peers {
		if c.peers[k].target != nil {
			c.kick = true
			break
		}
	}
}

// durable reports that the write is durable with all that have it, and needs no flush
// for that: it found its regions in their logs (renumber).
func (w *write) durable() bool { return w.flags&block.FlagDurable != 0 && !w.enters }

// noteUnacknowledged counts what keeps a write that was sent from its end.
func (c *Core) noteUnacknowledged(w *write, lacking set) {
	switch {
	case lacking == 0 && !c.settled():
		c.guarded(GuardGate)
	case lacking == 0:
		c.guarded(GuardMinimum)
	case lacking&^w.full == 0:
		c.guarded(GuardFull)
	case lacking&c.iss == 0:
		c.guarded(GuardJoining)
	case lacking&^c.failedMembers() == 0:
		c.guarded(GuardRemoval)
	}
}

// endWrite frees the slot of a write, and returns what it was.
func (c *Core) endWrite(i int) write {
	w := &c.writes[i]
	ended := *w
	if w.starved {
		c.starved--
	}
	if w.enters {
		c.flush.entering--
		c.flush.entered = true
	}
	*w = write{stamp: w.stamp}
	c.freeWrites = append(c.freeWrites, int32(i))
	ended.buf.Release()
	ended.buf = nil
	c.kick = c.kick || c.cut.holds()
	return ended
}
