package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// wakeReads sends reads that waited for a lease.
func (c *Core) wakeReads() {
	for i := range c.requests {
		if r := &c.requests[i]; r.used && r.state == requestReady {
			c.sendRead(i)
		}
	}
}

// sendRead asks one member for the bytes of a read whose range is held. Rule 7:
// the lease is checked now, after the request arrived. Rule 13: no overlapping
// write is in flight, because the range is held.
func (c *Core) sendRead(i int) {
	r := &c.requests[i]
	if !c.settled() {
		return
	}
	if !c.leased() {
		c.guarded(GuardLease)
		c.renewLease()
		return
	}
	whole := c.whole(r.snapshot)
	if whole&^r.tried == 0 {
		c.unreadable(i)
		return
	}
	at := c.reader(r.tried | c.iss&^whole)
	if at < 0 {
		return
	}
	r.state = requestRunning
	r.at = at
	req := block.Request{Op: block.OpRead, Offset: r.offset, Length: r.length, Snapshot: r.snapshot}
	if r.kind == ChangedRequest {
		req.Op = block.OpChanged
	}
	if r.snapshot.IsZero() && c.peers[at].acceptSuspect && c.unsure.touches(r.piece()) {
		req.Flags |= block.FlagAcceptSuspect
	}
	c.call(at, forRead, i, r.stamp, req)
}

// answerBytes is how many bytes a read is answered with.
func (r *request) answerBytes() int64 {
	if r.kind == ChangedRequest {
		return int64(block.ChangedBytes(r.length))
	}
	return r.length
}

// whole are the members that have a snapshot whole; of the head, for which the ID is
// zero, all of them.
func (c *Core) whole(snapshot block.SnapshotID) set {
	if snapshot.IsZero() {
		return c.iss
	}
	var s set
	for i := range c.iss.all() {
		if cut := c.peers[i].findCut(snapshot); cut != nil && cut.Valid {
			s |= bit(i)
		}
	}
	return s
}

// reader picks the member to read from: the one on this node, else the first
// that is well and has not failed this read. It is -1 if there is none now.
func (c *Core) reader(tried set) int {
	well := c.healthy() &^ tried
	for i := range well.all() {
		if c.peers[i].node == c.cfg.Node {
			return i
		}
	}
	if well == 0 {
		return -1
	}
	return well.first()
}

// readCancelled sends a read elsewhere.
func (c *Core) readCancelled(i int, stamp uint64) {
	r := &c.requests[i]
	if r.used && r.stamp == stamp && r.state == requestRunning {
		r.state = requestReady
		r.at = -1
		c.wake = true
	}
}

func (c *Core) readReplied(i int, e *call, rep *block.Reply) {
	r := &c.requests[e.index]
	if !r.used || r.stamp != e.stamp || r.state != requestRunning || r.at != i {
		rep.Buf.Release()
		return
	}
	if rep.Err != nil {
		rep.Buf.Release()
		c.readCorrupt(int(e.index), i)
		return
	}
	if rep.Buf == nil || int64(len(rep.Buf.Data)) != r.answerBytes() {
		rep.Buf.Release()
		r.state = requestReady
		c.wake = true
		c.fail(i, block.ErrProtocol)
		return
	}
	r.result = rep.Buf
	c.release(r.ticket)
	r.state = requestHeld
	if c.settled() {
		c.complete(int(e.index), nil, r.result)
	}
}

// readCorrupt: a member's copy does not verify. Another one serves the read, and
// the bad blocks are rewritten from an intact copy (rule 30). Only when that has
// been tried, or nobody else is left, does the client see an error (rule 19).
func (c *Core) readCorrupt(i, at int) {
	r := &c.requests[i]
	r.tried |= bit(at)
	r.at = -1
	if c.iss.count() > 1 && r.snapshot.IsZero() {
		c.suspect(r.piece())
	}
	r.state = requestReady
	c.sendRead(i)
}

// noteUnreadable names the disks of those that should have the bytes.
func (c *Core) noteUnreadable(layer block.SnapshotID, span block.Span) {
	for i := range c.iss.all() {
		c.noteBytes(NoticeUnreadable, i, layer, span, block.ErrChecksum)
	}
}

// unreadable: no member has all the bytes intact. If the bad blocks lie in
// different places, together the members may still have everything.
func (c *Core) unreadable(i int) {
	r := &c.requests[i]
	if !r.snapshot.IsZero() {
		err := block.ErrIO
		if c.whole(r.snapshot) == 0 {
			err = block.ErrInvalid
		}
		c.release(r.ticket)
		c.complete(i, err, nil)
		return
	}
	if c.iss.count() > 1 && !r.repaired {
		r.repaired = true
		r.tried = 0
		r.state = requestRepairing
		c.release(r.ticket)
		c.kick, c.wake = true, true
		return
	}
	c.guarded(GuardUnreadable)
	c.noteUnreadable(block.SnapshotID{}, r.piece())
	c.release(r.ticket)
	c.complete(i, block.ErrIO, nil)
}
