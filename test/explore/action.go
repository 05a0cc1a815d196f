package explore

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// action is one thing that may happen next.
type action struct {
	kind actionKind
	// engine and replica are those concerned, at the request or proposal.
	engine, replica, at uint8
	// forget: checksums that were not durable are lost.
	forget bool
	// done are the requests that were carried out before, their replies
	// outstanding: for each engine a set of places in its queue, and in that of
	// its orphans.
	done [maxEngines]uint8
	// left are the values that a loss of power leaves.
	left [maxBlocks]value
}

type actionKind uint8

const (
	// actExchange: a replica carries a request out, and its engine hears of it.
	actExchange actionKind = iota + 1
	// actLate: a reply arrives that was on its way when its replica went on.
	actLate
	// actOrphan: a replica is opened by a session that its engine has given up.
	actOrphan
	// actCut: a connection ends; actLearn: an engine learns that it has ended.
	actCut
	actLearn
	actKill
	actPower
	// actPutBack: a replica's disk is as it was at the beginning.
	actPutBack
	// actLand: Raft decides a proposal; actOutcome: the proposer hears of it;
	// actUnknown: it is told that nobody knows.
	actLand
	actOutcome
	actUnknown
	actHint
	actStart
	actWrite
	actRead
	actFlush
	actTimer
	actUnit
	actPause
	actTick
	actDetach
)

// actions are all that can happen in a state. An action that turns out to change
// nothing is dropped by apply.
func (w *world) actions(list []action) []action {
	for i := range w.count {
		list = w.engineActions(list, i)
	}
	for r := range w.setting.config.Replicas {
		list = w.faults(list, r)
	}
	if w.left.Engines > 0 {
		list = append(list, action{kind: actStart})
	}
	if w.left.Units > 0 {
		list = append(list, action{kind: actUnit})
	}
	if w.left.Pauses > 0 {
		list = append(list, action{kind: actPause})
	}
	return list
}

func (w *world) engineActions(list []action, i int) []action {
	e := w.engines[i]
	by := func(kind actionKind, at int) {
		list = append(list, action{kind: kind, engine: uint8(i), at: uint8(at)})
	}
	for k := range e.proposals {
		p := &e.proposals[k]
		alone := w.alone(i, p)
		if !p.landed && (p.unknown || !alone) {
			by(actLand, k)
		}
		if (p.landed || alone) && !p.unknown && !e.stopped {
			by(actOutcome, k)
		}
		if !p.unknown && w.left.Unknowns > 0 && !e.stopped {
			by(actUnknown, k)
		}
	}
	for r := range e.links {
		list = w.linkActions(list, i, r)
	}
	if e.stopped {
		return list
	}
	if v := w.view(); w.left.Hints > 0 && (v.Revision != e.seenRevision || v.Epoch != e.seenEpoch) {
		by(actHint, 0)
	}
	if w.left.Detaches > 0 && e.serving {
		by(actDetach, 0)
	}
	if e.core.Deadline() <= w.now {
		by(actTick, 0)
	}
	for t := range timers {
		if w.setting.layout.armed(e.core, t) && (t != timerLog || w.left.Clears > 0) {
			by(actTimer, int(t))
		}
	}
	if e.serving {
		list = w.clientActions(list, i)
	}
	return list
}

// alone reports whether nobody can tell when a proposal lands from when its
// outcome is heard: it can only fail, or no other engine will look any more.
func (w *world) alone(i int, p *proposal) bool {
	v := w.view()
	if p.asked.Epoch != v.Epoch || p.asked.Revision != v.Revision {
		return true
	}
	return i == w.count-1 && w.left.Engines == 0 && w.left.Hints == 0
}

func (w *world) clientActions(list []action, i int) []action {
	for b := range w.setting.config.Blocks {
		if w.left.Writes > 0 {
			list = append(list, action{kind: actWrite, engine: uint8(i), at: uint8(b)})
		}
		if w.left.Reads > 0 {
			list = append(list, action{kind: actRead, engine: uint8(i), at: uint8(b)})
		}
	}
	if w.left.Flushes > 0 {
		list = append(list, action{kind: actFlush, engine: uint8(i)})
	}
	return list
}

func (w *world) linkActions(list []action, i, r int) []action {
	e := w.engines[i]
	l := &e.links[r]
	a := action{engine: uint8(i), replica: uint8(r)}
	if len(l.orphans) > 0 && l.orphans[0].Op == block.OpOpen {
		a.kind = actOrphan
		list = w.withDone(list, a)
	}
	if e.stopped || l.state == linkNone {
		return list
	}
	if l.state == linkBroken {
		a.kind = actLearn
		list = append(list, a)
	}
	for k := range l.queue {
		if !inOrder(l.queue, k, ^uint8(0)) {
			continue
		}
		a.kind, a.at = actExchange, uint8(k)
		if l.queue[k].Op == block.OpOpen {
			list = w.withDone(list, a)
		} else {
			list = append(list, a)
		}
	}
	a.at = 0
	if len(l.late) > 0 {
		a.kind = actLate
		for k := range l.late {
			a.at = uint8(k)
			list = append(list, a)
		}
		a.at = 0
	}
	if w.left.Links > 0 && l.state == linkLive {
		a.kind = actCut
		list = append(list, a)
	}
	return list
}

// conflict reports whether two requests of a queue must be carried out in their
// order: both touch a block, and one changes it.
func conflict(a, b *block.Request) bool {
	changes := func(r *block.Request) bool { return r.Op == block.OpWrite || r.Op == block.OpZero }
	span := func(r *block.Request) bool { return changes(r) || r.Op == block.OpRead || r.Op == block.OpHash }
	return span(a) && span(b) && (changes(a) || changes(b)) && a.Span().Overlaps(b.Span())
}

// inOrder reports whether request k may be carried out when, of those before it,
// the ones in waiting are not.
func inOrder(queue []block.Request, k int, waiting uint8) bool {
	for j := range k {
		if waiting>>j&1 == 1 && conflict(&queue[j], &queue[k]) {
			return false
		}
	}
	return true
}

// withDone adds the action once for each way in which requests in flight to the
// replica may have been carried out just before it. Only the session that the
// door let in last has any.
func (w *world) withDone(list []action, a action) []action {
	r := &w.replicas[a.replica]
	list = append(list, a)
	if fence, opens := w.fenceOf(&a); opens && !r.fence.Less(fence) {
		return list // refused, and so nothing to anybody else
	}
	for i := range w.count {
		l := &w.engines[i].links[a.replica]
		if w.engines[i].epoch != r.fence.Epoch {
			continue
		}
		queue, reply := l.holder(r)
		if len(queue) == 0 {
			continue
		}
		for set := uint8(1); set < 1<<len(queue); set++ {
			if sensible(queue, set, reply) {
				a.done = [maxEngines]uint8{}
				a.done[i] = set
				list = append(list, a)
			}
		}
	}
	return list
}

// fenceOf is the fence that an action brings to a replica, if it opens one.
func (w *world) fenceOf(a *action) (fence block.Fence, opens bool) {
	l := &w.engines[a.engine].links[a.replica]
	switch a.kind {
	case actOrphan:
		return l.orphans[0].Open.Fence, true
	case actExchange:
		return l.queue[a.at].Open.Fence, true
	}
	return fence, false
}

// holder is the queue of the session that a replica's door let in, and whether
// somebody still waits for its replies.
func (l *link) holder(r *replica) (queue []block.Request, reply bool) {
	switch {
	case l.state == linkLive && l.session == r.fence.Session:
		return l.queue, true
	case l.old == r.fence.Session:
		return l.orphans, false
	}
	return nil, false
}

// sensible reports whether a set of requests may be carried out before the
// others, and whether that can make a difference to anybody.
func sensible(queue []block.Request, set uint8, reply bool) bool {
	for k := range queue {
		if set>>k&1 == 0 {
			continue
		}
		switch queue[k].Op {
		case block.OpOpen:
			return false
		case block.OpPing, block.OpRead, block.OpHash:
			if !reply {
				return false
			}
		}
		if !inOrder(queue, k, ^set) {
			return false
		}
	}
	return true
}

// faults are what may happen to a replica.
func (w *world) faults(list []action, r int) []action {
	replica := &w.replicas[r]
	a := action{replica: uint8(r)}
	if w.left.Kills > 0 {
		a.kind = actKill
		at := len(list)
		list = w.withDone(list, a)
		if w.setting.config.Suspect {
			for _, b := range list[at:] {
				b.forget = true
				list = append(list, b)
			}
		}
	}
	if w.left.PutBacks > 0 && w.wouldShow(r) {
		a.kind = actPutBack
		list = append(list, a)
	}
	if w.left.Losses == 0 {
		return list
	}
	a.kind = actPower
	at := len(list)
	list = w.withDone(list, a)
	// What was carried out just before may or may not be on the drive, so the
	// values are chosen among those that the replica held before and the new ones.
	ways := list[at:]
	list = list[:at:at]
	for _, way := range ways {
		after := *replica
		w.carryOut(&after, r, &way)
		for v0 := range value(8) {
			for v1 := range value(8) {
				if after.may[0]>>v0&1 == 0 || after.may[1]>>v1&1 == 0 {
					continue
				}
				way.left = [maxBlocks]value{v0, v1}
				way.forget = false
				list = append(list, way)
				if w.setting.config.Suspect && after.forgettable() != 0 {
					way.forget = true
					list = append(list, way)
				}
			}
		}
	}
	return list
}

// wouldShow reports whether somebody else knows of a flush that a replica would have
// forgotten if its disk were put back: every other member, of which there is one.
func (w *world) wouldShow(r int) bool {
	others, v := 0, w.view()
	for i := range v.Replicas {
		if k := indexOf(v.Replicas[i].ID); k != r && v.Replicas[i].InSync {
			others++
			if !w.setting.images[r].flush.Less(w.replicas[k].confirmed[r]) {
				return false
			}
		}
	}
	return others > 0
}

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

// String describes an action without its state, for errors.
func (a *action) String() string { return fmt.Sprintf("%+v", *a) }
