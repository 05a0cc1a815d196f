package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// purpose says who waits for the reply of a call.
type purpose uint8

const (
	forPing purpose = iota
	// forRead: the request in slot index.
	forRead
	// forWrite: the mirrored write in slot index.
	forWrite
	// forFlush: the flush of that count.
	forFlush
	// forMeta: the update under way.
	forMeta
	// forJob: the job in slot index.
	forJob
	// forMend: the mend of the mirrored write in slot index.
	forMend
)

// call is one request to one replica, from its creation to its reply. It
// survives the end of a link: what was not answered is sent again on the next
// session of the same replica, in the same order (the door waits for the older
// session's I/O, rule 4).
type call struct {
	active, sent bool
	purpose      purpose
	index        int32
	// stamp tells the owner from a later one in the same slot (rule 29).
	stamp  uint64
	sentAt block.Instant
	// asked is when a ping was first sent.
	req        block.Request
	prev, next int32
}

// callTable holds the calls of one replica. A sequence number is a count above
// the slot, so that a reply finds its call at once; the order of creation is a
// list through the slots.
type callTable struct {
	slots []call
	free  []int32
	// head and tail are slot numbers plus one; zero is none.
	head, tail int32
	count      uint64
	active     int
	// unsent are calls that wait: for a link, or in the queue of a target.
	unsent int
	// writes are the calls forWrite.
	writes int
}

const slotBits = 20

// add makes a call. The call takes over one reference of req.Buf.
func (t *callTable) add(p purpose, index int, stamp uint64, req block.Request) int32 {
	var at int32
	if n := len(t.free); n > 0 {
		at = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		at = int32(len(t.slots))
		invariant.Assert(at < 1<<slotBits, "too many calls to one replica")
		t.slots = append(t.slots, call{})
	}
	t.count++
	req.Seq = t.count<<slotBits | uint64(at)
	t.slots[at] = call{
		active: true, purpose: p, index: int32(index), stamp: stamp, req: req, prev: t.tail,
	}
	if t.tail != 0 {
		t.slots[t.tail-1].next = at + 1
	} else {
		t.head = at + 1
	}
	t.tail = at + 1
	t.active++
	t.unsent++
	if p == forWrite {
		t.writes++
	}
	return at
}

// find is the call that a reply with this sequence number answers, or -1.
func (t *callTable) find(seq uint64) int32 {
	at := seq & (1<<slotBits - 1)
	if at >= uint64(len(t.slots)) || !t.slots[at].active || t.slots[at].req.Seq != seq {
		return -1
	}
	return int32(at)
}

// remove ends a call and gives its buffer back. It returns the call as it was,
// without the buffer.
func (t *callTable) remove(at int32) call {
	e := &t.slots[at]
	invariant.Assert(e.active, "call %d removed twice", at)
	gone := *e
	if e.prev != 0 {
		t.slots[e.prev-1].next = e.next
	} else {
		t.head = e.next
	}
	if e.next != 0 {
		t.slots[e.next-1].prev = e.prev
	} else {
		t.tail = e.prev
	}
	t.active--
	if !e.sent {
		t.unsent--
	}
	if e.purpose == forWrite {
		t.writes--
	}
	e.req.Buf.Release()
	*e = call{}
	t.free = append(t.free, at)
	gone.req.Buf = nil
	return gone
}

// clear ends all calls.
func (t *callTable) clear() {
	for t.head != 0 {
		t.remove(t.head - 1)
	}
}

// unsend marks everything as not sent, for another session.
func (t *callTable) unsend() {
	for at := t.head; at != 0; at = t.slots[at-1].next {
		t.slots[at-1].sent = false
	}
	t.unsent = t.active
}

// call makes a request to a replica and sends it as soon as that may be. The
// call takes a reference of its own of req.Buf.
func (c *Core) call(i int, p purpose, index int, stamp uint64, req block.Request) {
	if req.Buf != nil {
		req.Buf.Retain()
	}
	if p != forPing {
		c.askedAt = c.now
	}
	c.hastenPing()
	at := c.peers[i].calls.add(p, index, stamp, req)
	c.trySend(i, at)
}

// trySend sends a call if the link is open and its turn has come.
func (c *Core) trySend(i int, at int32) {
	p := &c.peers[i]
	e := &p.calls.slots[at]
	if p.link != linkOpen || e.sent || !c.mayGo(p, at) {
		return
	}
	e.sent = true
	e.sentAt = c.now
	p.calls.unsent--
	e.req.Epoch = c.view.Epoch
	e.req.Session = p.session
	if e.req.Buf != nil {
		e.req.Buf.Retain()
	}
	c.emit(Effect{Kind: EffectSend, Replica: p.id, Request: e.req})
}

// mayGo reports whether nothing earlier holds a call back. Members take
// everything at once; range locks order what overlaps. A target's writes are
// queued (rule 21): behind earlier ones to the same blocks, and behind a copy of
// their chunk. A flush goes to a target after every earlier write.
func (c *Core) mayGo(p *peer, at int32) bool {
	e := &p.calls.slots[at]
	if p.readOnly && c.now < p.refusedUntil && changesDisk(e.req.Op) {
		return false
	}
	if c.iss.has(p.index) && p.lacks() && e.purpose != forPing && c.phase != ending {
		// It is on its way out, or the attachment is; what it did now would pass for
		// what it has forgotten (rule 17).
		return false
	}
	if p.target == nil || e.purpose != forWrite && e.purpose != forFlush {
		return true
	}
	if p.target.cutting != 0 && e.purpose == forWrite {
		// It would be in the target's cut, and is in no member's.
		c.guarded(GuardCutTarget)
		return false
	}
	span := e.req.Span().Blocks()
	for k := e.prev; k != 0; k = p.calls.slots[k-1].prev {
		f := &p.calls.slots[k-1]
		if f.purpose == forWrite && (e.purpose == forFlush || f.req.Span().Blocks().Overlaps(span)) {
			return false
		}
	}
	if e.purpose == forWrite && c.copying(p.index, span) {
		c.guarded(GuardCopy)
		return false
	}
	return true
}

// pump sends what waits for a replica, in order.
func (c *Core) pump(i int) {
	p := &c.peers[i]
	if p.link != linkOpen {
		return
	}
	for at := p.calls.head; at != 0 && p.calls.unsent > 0; at = p.calls.slots[at-1].next {
		if !p.calls.slots[at-1].sent {
			c.trySend(i, at-1)
		}
	}
}

// cancelCalls ends the calls to a replica that no longer takes part.
func (c *Core) cancelCalls(i int) {
	p := &c.peers[i]
	for p.calls.head != 0 {
		c.cancelled(i, p.calls.remove(p.calls.head-1))
	}
	c.wake, c.kick = true, true
}

// cancelled tells the owner of a call that no reply will come.
func (c *Core) cancelled(i int, e call) {
	switch e.purpose {
	case forPing:
		c.peers[i].pinging = false
	case forRead:
		c.readCancelled(int(e.index), e.stamp)
	case forWrite:
		if w := &c.writes[e.index]; w.used && w.stamp == e.stamp {
			w.sent &^= bit(i)
			w.has &^= bit(i)
			w.full &^= bit(i)
		}
	case forFlush:
		if c.flush.active && c.flush.count == e.stamp {
			c.flush.sent &^= bit(i)
			c.flush.has &^= bit(i)
		}
	case forMeta:
		if c.meta.active && c.meta.stamp == e.stamp {
			c.meta.to &^= bit(i)
		}
	case forMend:
		if w := &c.writes[e.index]; w.used && w.mend.active && w.mend.call == e.stamp {
			w.mend = mend{}
		}
	case forJob:
		if j := &c.jobs[e.index]; j.used && j.stamp == e.stamp {
			j.restart = true
		}
	}
}
