package explore

import (
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// carryOut carries out, at a copy of replica r, what an action says was done just
// before it. It returns the replies, by engine.
func (w *world) carryOut(r *replica, at int, a *action) (replies [maxEngines][]block.Reply) {
	for i, set := range a.done[:w.count] {
		queue, _ := w.engines[i].links[at].holder(r)
		for k := range queue {
			if set>>k&1 == 1 {
				rep := r.handle(w.setting.stock, w.engines[i].epoch, r.fence.Session, &queue[k])
				replies[i] = append(replies[i], rep)
			}
		}
	}
	return replies
}

// apply is the state after an action, or nil if it changes nothing.
func (w *world) apply(a *action) *world {
	n := w.copy()
	i, r := int(a.engine), int(a.replica)
	switch a.kind {
	case actExchange:
		n.exchange(i, r, a)
	case actLate:
		l := &n.engine(i).links[r]
		rep := l.late[a.at]
		l.late = append(l.late[:a.at], l.late[a.at+1:]...)
		n.step(i, core.Event{Kind: core.EventReply, Replica: replicaID(r), Session: rep.Session, Reply: rep})
	case actOrphan:
		l := &n.engine(i).links[r]
		req, session := l.orphans[0], l.old
		l.orphans = nil
		n.opened(i, r, session, &req, a)
	case actCut:
		n.left.Links--
		n.lose(i, r)
	case actLearn:
		n.lose(i, r)
	case actKill, actPower, actPutBack:
		n.crash(r, a)
	case actLand:
		n.land(i, int(a.at))
	case actOutcome, actUnknown:
		n.outcome(i, int(a.at), a.kind == actUnknown)
	case actHint:
		n.left.Hints--
		n.hint(i)
	case actStart:
		n.left.Engines--
		n.launch()
	case actWrite, actRead, actFlush:
		n.request(i, a)
	case actTimer:
		if timer(a.at) == timerLog {
			n.left.Clears--
		}
		n.fire(i, timer(a.at))
		if !n.progress && timer(a.at) != timerLog {
			return nil
		}
	case actUnit:
		n.left.Units--
		n.pass(1)
	case actPause:
		n.left.Pauses--
		n.pass(leaseUnits + marginUnits)
	case actTick:
		n.step(i, core.Event{Kind: core.EventTick})
	case actDetach:
		n.left.Detaches--
		n.step(i, core.Event{Kind: core.EventDetach})
	case actSnapshot:
		n.snapshot(i)
	}
	return n
}

// exchange lets a replica carry a request out and its engine hear of it.
func (w *world) exchange(i, r int, a *action) {
	l := &w.engine(i).links[r]
	req := l.queue[a.at]
	l.queue = append(l.queue[:a.at], l.queue[a.at+1:]...)
	if req.Op == block.OpOpen {
		rep := w.opened(i, r, l.session, &req, a)
		w.reply(i, r, rep)
		return
	}
	rep := w.replicas[r].handle(w.setting.stock, w.engines[i].epoch, l.session, &req)
	w.reply(i, r, rep)
}

func (w *world) reply(i, r int, rep block.Reply) {
	w.step(i, core.Event{Kind: core.EventReply, Replica: replicaID(r), Session: rep.Session, Reply: rep})
}

// opened lets a session in at a replica. What older sessions had in flight there
// was either carried out before, or is refused.
func (w *world) opened(i, r int, session block.Session, req *block.Request, a *action) block.Reply {
	rep := &w.replicas[r]
	old := rep.fence
	replies := w.carryOut(rep, r, a)
	answer := rep.handle(w.setting.stock, w.engines[i].epoch, session, req)
	if rep.fence == old {
		return answer
	}
	for k := range w.count {
		l := &w.engines[k].links[r]
		if k == i || l.state != linkLive || w.engines[k].stopped {
			if len(l.orphans) > 0 && l.orphans[0].Op != block.OpOpen {
				w.engine(k).links[r].orphans = nil
			}
			continue
		}
		l = &w.engine(k).links[r]
		l.late = append(l.late, replies[k]...)
		if len(l.orphans) > 0 && l.orphans[0].Op != block.OpOpen {
			l.orphans = nil
		}
		w.refuse(k, r, a.done[k])
	}
	return answer
}

// refuse answers what a session still had in flight when it was shut out.
func (w *world) refuse(k, r int, done uint8) {
	l := &w.engine(k).links[r]
	queue := l.queue
	l.queue = nil
	for j := range queue {
		q := &queue[j]
		switch {
		case q.Op == block.OpOpen:
			l.queue = append(l.queue, *q)
		case done>>j&1 == 0:
			// One refusal is enough to end the engine.
			l.late = append(l.late, block.Reply{Op: q.Op, Epoch: q.Epoch, Session: q.Session, Seq: q.Seq,
				Err: block.ErrStaleEpoch})
			return
		}
	}
}

// lose tells an engine that a connection has ended.
func (w *world) lose(i, r int) {
	l := &w.engine(i).links[r]
	session := l.session
	l.cut()
	w.step(i, core.Event{Kind: core.EventLost, Replica: replicaID(r), Session: session, Err: block.ErrUnavailable})
}

// crash ends the process of a replica, or takes its power away. It is back at
// once: that nobody reaches it for a while is a matter of deliveries.
func (w *world) crash(r int, a *action) {
	rep := &w.replicas[r]
	session := rep.fence.Session
	replies := w.carryOut(rep, r, a)
	switch a.kind {
	case actKill:
		w.left.Kills--
		rep.kill(a.forget)
	case actPower:
		w.left.Losses--
		rep.losePower(a.forget, a.left)
	default:
		w.left.PutBacks--
		rep.putBack(&w.setting.images[r])
	}
	for i := range w.count {
		if l := &w.engines[i].links[r]; l.state == linkNone && len(l.orphans) == 0 {
			continue
		}
		l := &w.engine(i).links[r]
		if l.state == linkLive {
			// An answer may have left before the end, and arrive after it.
			l.state = linkBroken
			if l.session == session {
				l.late = append(l.late, replies[i]...)
			}
		}
		l.queue, l.orphans = nil, nil
	}
}

// land lets Raft decide a proposal.
func (w *world) land(i, k int) {
	p := &w.engine(i).proposals[k]
	before := w.view()
	result := w.commit(state.Propose{Proposal: p.asked})
	p.landed, p.verdict, p.view = true, result.Verdict, result.View()
	if result.Verdict == block.Committed && p.asked.EndAttachment {
		w.lostAll(before, &p.view)
	}
	if result.Verdict == block.Committed && p.asked.Snapshot != nil {
		w.snapshotLanded(&p.view)
	}
	if p.unknown {
		w.forget(i, k)
	}
}

// lostAll is the end of an attachment for want of memory. It is right only if
// nobody who stays kept it.
func (w *world) lostAll(before, after *block.View) {
	for i := range after.Replicas {
		m := &after.Replicas[i]
		old := before.Member(m.ID)
		if m.InSync && old.Incarnation == incarnation(w.replicas[indexOf(m.ID)].boot) {
			w.fail("flushed: the attachment ended although %s kept its memory", letter(indexOf(m.ID)))
		}
	}
	w.history.lost = true
}

func (w *world) forget(i, k int) {
	e := w.engine(i)
	e.proposals = append(e.proposals[:k], e.proposals[k+1:]...)
}

// outcome tells a proposer what became of a proposal, or that nobody knows.
func (w *world) outcome(i, k int, unknown bool) {
	p := &w.engine(i).proposals[k]
	if !unknown && !p.landed {
		w.land(i, k)
	}
	ev := core.Event{Kind: core.EventOutcome, Proposal: p.asked}
	if unknown {
		w.left.Unknowns--
		p.unknown = true
	} else {
		ev.Verdict, ev.View = p.verdict, p.view
	}
	if p.landed {
		w.forget(i, k)
	}
	w.step(i, ev)
}

// pass lets time go by. Nobody notices before something else happens to him.
func (w *world) pass(units block.Instant) {
	w.units += units
	w.now += units * unit
}

// hint shows an engine the committed view.
func (w *world) hint(i int) {
	e, v := w.engine(i), w.view()
	e.seenRevision, e.seenEpoch = v.Revision, v.Epoch
	w.step(i, core.Event{Kind: core.EventView, View: v.Clone()})
}

// request lets a client ask.
func (w *world) request(i int, a *action) {
	e := w.engine(i)
	h := &w.history
	b := int(a.at)
	q := core.Request{Offset: w.setting.config.spacing().offset(b), Length: block.BlockSize}
	switch a.kind {
	case actWrite:
		w.left.Writes--
		n := h.beginWrite(i, e.epoch, b)
		q.Kind, q.Tag = core.WriteRequest, tagOf(core.WriteRequest, n)
		q.Buf = w.setting.stock.buffer([]value{h.valueOf(n)})
	case actRead:
		w.left.Reads--
		q.Kind, q.Tag = core.ReadRequest, tagOf(core.ReadRequest, h.beginRead(i, e.epoch, b))
	case actFlush:
		w.left.Flushes--
		q = core.Request{Kind: core.FlushRequest, Tag: tagOf(core.FlushRequest, h.beginFlush(i, e.epoch))}
	}
	w.step(i, core.Event{Kind: core.EventRequest, Request: q})
}
