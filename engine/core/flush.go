package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// flushState is the flush under way and who waits for which one.
// Flushes are counted; one is in flight, and whoever asks meanwhile
// waits for the next, which covers everything acknowledged before it begins.
type flushState struct {
	active bool
	// count is which one it is, or the last one was.
	count uint64
	// number is what it carries, and has been carried since numberedAt.
	number     block.FlushNumber
	numberedAt block.Instant
	// entering are the writes under way that took a region into somebody's log; entered:
	// one has ended since the last number.
	entering int
	entered  bool
	// began is the serial at its begin.
	began uint64
	// confirmed goes along with it.
	confirmed []block.Confirmed
	// sent and has are the replicas that were asked and that finished.
	sent, has set
	// wanted: the core itself wants one to begin. waiters are the requests that do.
	wanted  bool
	waiters int
	// answers are the requests that the one under way began for, crowd those that the
	// last one did and that waited when it ended. It began at begunAt, and until
	// gatherUntil the next one waits for as many.
	answers, crowd       int
	begunAt, gatherUntil block.Instant
	// clean is the serial at which the last flush began that all of need()
	// finished.
	clean uint64
}

// joinFlush says which is the first flush that covers what was acknowledged up to
// now.
func (c *Core) joinFlush() uint64 {
	c.flush.waiters++
	c.kick = true
	return c.flush.count + 1
}

// renumber gives the flush that begins a number of its own, unless clients alone want
// it, soon after the last number, and what they wrote since lies in regions that were
// in everybody's log by then.
//
// A replica stores a new number only, and so most flushes are a sync and nothing else.
// What is given up, and why it is no more, is in docs/adr/0010-flush-numbers.md.
func (c *Core) renumber() {
	f := &c.flush
	if !f.wanted && c.numbered() {
		return
	}
	f.number = block.FlushNumber{Epoch: c.view.Epoch, N: f.number.N + 1}
	f.numberedAt, f.entered = c.now, false
}

// durableAlone reports whether a durable write (FUA) that is sent now needs no flush: each
// replica syncs it, and that is one round of messages instead of two. Everybody must hold
// the number that a flush would have, and know that the others do; a flush tells that.
func (c *Core) durableAlone() bool {
	if !c.numbered() {
		return false
	}
	for i := range c.need().all() {
		if c.peers[i].told != c.flush.number {
			return false
		}
	}
	return true
}

// numbered reports whether what clients have made durable now needs no new number.
func (c *Core) numbered() bool {
	f := &c.flush
	soon := f.number.Epoch == c.view.Epoch && c.now-f.numberedAt < block.Instant(c.cfg.Timing.NumberGap)
	return soon && !f.entered && f.entering == 0
}

// driveFlush begins a flush if somebody waits for one and may be answered.
func (c *Core) driveFlush() {
	f := &c.flush
	if f.active || !c.settled() || !f.wanted && !(f.waiters > 0 && c.enough() && !f.gathers(c.now)) {
		return
	}
	c.serial++
	f.active = true
	f.count++
	c.renumber()
	f.wanted, f.waiters, f.answers = false, 0, f.waiters
	f.began, f.begunAt = c.serial, c.now
	f.confirmed = c.confirmations()
	f.sent, f.has = 0, 0
	for i := range c.need().all() {
		c.sendFlush(i)
	}
	for i := range c.peers {
		if t := c.peers[i].target; t != nil && t.active && !t.flushing && !f.sent.has(i) {
			c.sendFlush(i)
		}
	}
}

// gathers reports whether a flush that may begin waits for more to join it: clients that
// write and flush come back soon, and for all of them one sync of each disk is enough. It
// does so for no longer than the last flush took.
func (f *flushState) gathers(now block.Instant) bool {
	return f.waiters < f.crowd && now < f.gatherUntil
}

// sendFlush asks a replica to finish the flush under way. A target gets it
// behind everything that is queued for it.
func (c *Core) sendFlush(i int) {
	f := &c.flush
	f.sent |= bit(i)
	if t := c.peers[i].target; t != nil {
		t.flushSent(f.count, f.began)
	}
	c.call(i, forFlush, 0, f.count, block.Request{
		Op: block.OpFlush, Flush: f.number, Confirmed: f.confirmed,
	})
}

// confirmations are the highest flushes that each replica is known to have
// finished. Every flush has a fresh list, because links may hold it for long.
func (c *Core) confirmations() []block.Confirmed {
	list := make([]block.Confirmed, 0, len(c.peers))
	for i := range c.peers {
		if p := &c.peers[i]; !p.gone && p.confirmed != (block.FlushNumber{}) {
			list = append(list, block.Confirmed{Replica: p.id, Flush: p.confirmed})
		}
	}
	return list
}

func (c *Core) flushReplied(i int, e *call) {
	p := &c.peers[i]
	p.confirmed = laterFlush(p.confirmed, e.req.Flush)
	p.stored = laterFlush(p.stored, e.req.Flush)
	if p.target != nil {
		c.targetFlushed(i, e.stamp)
	}
	if c.flush.active && c.flush.count == e.stamp {
		c.flush.has |= bit(i)
		c.checkFlush()
	}
}

// finished reports whether the flush under way is one that may be acknowledged.
//
// Rule 10 (flushes): everybody who counts has finished it, so that what was
// acknowledged before it began is durable there, and holds its number; a replica
// that shows a lower one later was put back (rolledBack).
func (c *Core) finished(f *flushState) bool { return c.need()&^f.has == 0 && c.settled() }

// checkFlush completes the flush once every replica that counts has finished it.
func (c *Core) checkFlush() {
	f := &c.flush
	if !f.active {
		return
	}
	for i := range (c.need() &^ f.sent).all() {
		c.sendFlush(i)
	}
	if !c.finished(f) {
		return
	}
	f.active = false
	f.clean = f.began
	f.crowd = f.answers + f.waiters
	f.gatherUntil = c.now + min(c.now-f.begunAt, block.Instant(c.cfg.Timing.FlushGather))
	for _, told := range f.confirmed {
		if i := c.peerOf(told.Replica); i >= 0 {
			c.peers[i].told = told.Flush
		}
	}
	c.kick = true
	held := !c.enough()
	for i := range c.requests {
		r := &c.requests[i]
		if !r.used || r.state != requestFlushing || r.flush > f.count {
			continue
		}
		if held {
			// The in-sync set is too small to promise anything (rule 9): wait for
			// a flush of a larger one.
			r.flush = c.joinFlush()
			continue
		}
		c.complete(i, nil, nil)
	}
}
