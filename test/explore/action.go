package explore

import (
	"fmt"

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
	// actSnapshot: a client asks for a snapshot.
	actSnapshot
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
	if w.left.Snapshots > 0 {
		list = append(list, action{kind: actSnapshot, engine: uint8(i)})
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
// order: both touch a block, and one changes it, or the second would change what the
// first keeps as it is.
func conflict(a, b *block.Request) bool {
	changes := func(r *block.Request) bool { return r.Op == block.OpWrite || r.Op == block.OpZero }
	span := func(r *block.Request) bool { return changes(r) || r.Op == block.OpRead || r.Op == block.OpHash }
	if takesCuts(a) && changes(b) {
		return true
	}
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

// String describes an action without its state, for errors.
func (a *action) String() string { return fmt.Sprintf("%+v", *a) }
