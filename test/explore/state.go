package explore

import (
	"unsafe"

	"github.com/holdfast-io/holdfast/internal/block"
)

// key is the hash of a state.
type key [2]uint64

// key is the hash of the canonical form of a world.
func (w *world) key(c *canon) key {
	c.buf = c.buf[:0]
	c.open = c.open[:0]
	c.unit = w.units
	c.view(w.view())
	for i := range w.count {
		w.appendEngine(c, i)
	}
	for r := range w.setting.config.Replicas {
		w.replicas[r].append(c, r)
	}
	w.history.append(c)
	w.appendShots(c)
	left := w.left
	c.raw(unsafe.Pointer(&left), unsafe.Sizeof(left))
	c.close()
	return c.sum()
}

func (w *world) appendEngine(c *canon, i int) {
	e := w.engines[i]
	c.engine, c.epoch, c.core = i, e.epoch, unsafe.Pointer(e.core)
	c.bool(e.stopped)
	c.bool(e.serving)
	for k := range e.proposals {
		e.proposals[k].append(c)
	}
	c.byte(253)
	for r := range w.setting.config.Replicas {
		w.appendLink(c, i, r)
	}
	if e.stopped {
		return
	}
	if v := w.view(); w.left.Hints > 0 {
		c.bool(v.Revision == e.seenRevision && v.Epoch == e.seenEpoch)
	}
	c.bool(e.core.Deadline() <= w.now)
	w.setting.layout.core.append(c, c.core)
}

func (w *world) appendLink(c *canon, i, r int) {
	e := w.engines[i]
	l := &e.links[r]
	peer := w.setting.layout.peer(e.core, r)
	c.byte(byte(l.state))
	if l.state != linkNone {
		c.session(e.epoch, r, l.session)
	}
	name := func(seq uint64) bool {
		n := -1
		if !e.stopped {
			n = w.setting.layout.callOf(peer, seq)
		}
		c.byte(byte(n + 1))
		return n >= 0
	}
	for k := range l.queue {
		q := &l.queue[k]
		if q.Op == block.OpOpen {
			c.byte(249)
		} else if !name(q.Seq) {
			w.setting.layout.request.append(c, unsafe.Pointer(q))
		}
	}
	c.byte(248)
	for k := range l.late {
		// A success that nobody waits for any more is dropped.
		if l.late[k].Err != nil || !e.stopped && w.setting.layout.callOf(peer, l.late[k].Seq) >= 0 {
			c.byte(byte(l.late[k].Op))
			name(l.late[k].Seq)
			c.reply(&l.late[k])
		}
	}
	c.byte(247)
	if len(l.orphans) > 0 {
		c.session(e.epoch, r, l.old)
	}
	for k := range l.orphans {
		w.setting.layout.request.append(c, unsafe.Pointer(&l.orphans[k]))
	}
	c.byte(246)
}

func (c *canon) reply(rep *block.Reply) {
	c.bool(rep.Err != nil)
	c.buffer(rep.Buf)
	for i := range rep.Hashes {
		c.hash(&rep.Hashes[i])
	}
}

func (p *proposal) append(c *canon) {
	c.bool(p.landed)
	c.bool(p.unknown)
	c.byte(byte(p.verdict))
	c.byte(byte(p.asked.Epoch))
	c.revision(p.asked.Revision)
	for _, id := range p.asked.Remove {
		c.byte(id.ID[0])
	}
	c.byte(0)
	for _, id := range p.asked.Admit {
		c.byte(id.ID[0])
	}
	c.byte(0)
	for _, in := range p.asked.Incarnations {
		c.byte(in.Replica.ID[0])
		c.byte(in.Incarnation.Boot[0])
	}
	c.bool(p.asked.WaitedOut)
	c.bool(p.asked.EndAttachment)
	c.bool(p.asked.Snapshot != nil)
	if p.landed {
		c.view(&p.view)
	}
}

func (r *replica) append(c *canon, i int) {
	c.byte(byte(r.fence.Epoch))
	if r.fence.Epoch > 0 {
		c.session(r.fence.Epoch, i, r.fence.Session)
	}
	c.byte(r.boot)
	for b := range r.cur {
		c.byte(r.cur[b])
		c.byte(r.may[b])
	}
	c.bool(r.kept)
	r.appendCuts(c)
	c.byte(r.fresh)
	c.byte(r.suspect)
	c.byte(r.log)
	for k := range r.dirty {
		d := &r.dirty[k]
		c.bool(d.held)
		if d.held {
			c.revision(d.removal)
			c.byte(d.regions)
		}
	}
	if r.view != nil {
		c.byte(byte(r.view.Epoch))
		c.revision(r.view.Revision)
	}
	c.flush(r.flush)
	for k := range r.confirmed {
		c.flush(r.confirmed[k])
	}
}
