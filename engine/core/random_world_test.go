package core

import (
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// network lets one thing happen on one link.
func (w *storm) network() bool {
	w.links = slices.DeleteFunc(w.links, func(l *stormLink) bool {
		return !l.up && len(l.inbox)+len(l.running)+len(l.replies) == 0
	})
	if len(w.links) == 0 {
		return false
	}
	for range 4 {
		if w.linkStep(w.links[w.random.IntN(len(w.links))]) {
			return true
		}
	}
	return false
}

func (w *storm) linkStep(l *stormLink) bool {
	node := w.nodes[l.node]
	if w.now < l.engine.cutUntil && l.engine.cut.has(l.node) {
		return false
	}
	works := w.now >= node.downUntil && w.now >= node.frozenUntil
	if w.now < node.slowUntil && w.random.IntN(10) != 0 {
		works = false
	}
	switch n := w.random.IntN(3); {
	case l.lost && l.up:
		l.up = false
		w.drop(l)
		w.step(l.engine, Event{Kind: EventLost, Replica: node.id, Session: l.session, Err: block.ErrUnavailable})
	case n == 0 && len(l.replies) > 0:
		rep := l.replies[0]
		l.replies = l.replies[1:]
		if !l.up {
			rep.Buf.Release()
			return true
		}
		w.step(l.engine, Event{Kind: EventReply, Replica: node.id, Reply: rep})
	case n == 1 && len(l.inbox) > 0 && works:
		l.running = append(l.running, l.inbox[0])
		l.inbox = l.inbox[1:]
	case n == 2 && len(l.running) > 0 && works:
		l.replies = append(l.replies, w.execute(l))
	default:
		return false
	}
	return true
}

// execute carries out one of the requests that arrived, in any order but for
// updates of metadata among themselves.
func (w *storm) execute(l *stormLink) block.Reply {
	k := w.random.IntN(len(l.running))
	if l.running[k].Op == block.OpUpdate {
		k = slices.IndexFunc(l.running, func(r block.Request) bool { return r.Op == block.OpUpdate })
	}
	req := l.running[k]
	l.running = slices.Delete(l.running, k, k+1)
	return w.nodes[l.node].handle(&req)
}

// drop loses what a link carries.
func (w *storm) drop(l *stormLink) {
	for _, req := range slices.Concat(l.inbox, l.running) {
		req.Buf.Release()
	}
	for _, rep := range l.replies {
		rep.Buf.Release()
	}
	l.inbox, l.running, l.replies = nil, nil, nil
}

func (w *storm) commit(p *block.Proposal) bool {
	landed := w.admits(p) && commit(&w.view, p)
	if landed && p.EndAttachment {
		w.history.forget()
	}
	if landed {
		w.landed(p)
	}
	return landed
}

// raft deals with one proposal.
func (w *storm) raft(e *stormEngine) {
	if n := len(w.late); n > 0 && w.random.IntN(4) == 0 {
		p := w.late[n-1]
		w.late = w.late[:n-1]
		w.commit(&p)
	}
	if len(e.proposals) == 0 || e.alone && w.now < e.cutUntil {
		return
	}
	p := e.proposals[0]
	e.proposals = e.proposals[1:]
	verdict := block.Unknown
	switch n := w.random.IntN(10); {
	case n == 0 && !w.calm:
		w.late = append(w.late, p)
	case n == 1 && !w.calm:
		w.commit(&p)
	default:
		if verdict = block.Conflict; w.commit(&p) {
			verdict = block.Committed
		}
	}
	w.step(e, Event{Kind: EventOutcome, Proposal: p, Verdict: verdict, View: w.view.Clone()})
}

// pass lets a little time go by, or all until a deadline.
func (w *storm) pass() {
	next := w.now + block.Instant(w.random.Int64N(300*millisecond))
	if w.random.IntN(3) == 0 {
		for _, e := range w.engines {
			if !e.stopped && e.core.Deadline() < next {
				next = max(w.now, e.core.Deadline())
			}
		}
	}
	w.now = next
	for _, e := range w.engines {
		if !e.stopped && e.core.Deadline() <= w.now {
			w.step(e, Event{Kind: EventTick})
		}
	}
}

// trouble lets something go wrong.
func (w *storm) trouble() {
	i := w.random.IntN(len(w.nodes))
	node := w.nodes[i]
	until := w.now + block.Instant(w.random.Int64N(12*second))
	switch w.random.IntN(10) {
	case 0, 1: // a link breaks
		if len(w.links) > 0 {
			w.links[w.random.IntN(len(w.links))].lost = true
		}
	case 2:
		w.kill(i, until)
		node.kill(w.random)
	case 3:
		w.kill(i, until)
		node.losePower(w.random)
	case 4:
		node.frozenUntil = until
	case 8, 9:
		node.slowUntil = until
	case 5:
		w.full = until
	case 6: // the engine's daemon is restarted, or its node is given up
		w.replaceEngine()
	case 7:
		if e := w.current(); !e.stopped && w.random.IntN(4) == 0 {
			e.detaching = true
			w.step(e, Event{Kind: EventDetach})
		}
	}
}

func (w *storm) kill(i int, until block.Instant) {
	w.nodes[i].downUntil = until
	for _, l := range w.links {
		if l.node == i {
			w.drop(l)
			l.lost = true
		}
	}
}

// replaceEngine starts the next engine. The old one is gone, or does not know
// because it is cut off, with the replica of its node.
func (w *storm) replaceEngine() {
	old := w.current()
	apart := w.random.IntN(4)
	if apart == 0 && !old.stopped {
		w.step(old, Event{Kind: EventAbort})
	}
	w.late = append(w.late, old.proposals...)
	old.proposals = nil
	w.start()
	if apart < 2 || len(w.nodes) < 2 {
		return
	}
	own := bit(int(old.core.cfg.Node.ID[1]) - 1)
	old.cutUntil = w.now + block.Instant(10*second)
	old.cut, old.alone = ^own, true
	w.current().cut, w.current().cutUntil = own, old.cutUntil
}
