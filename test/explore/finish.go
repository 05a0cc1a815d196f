package explore

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// finishSteps bounds the way of a state to its rest, finishLook is how often on
// this way it is looked whether somebody has gone on from there before.
const (
	finishSteps = 3000
	finishLook  = 8
)

// quiet reports whether nothing is under way that the newest engine or a client
// of it waits for.
func (w *world) quiet() bool {
	i := w.count - 1
	e := w.engines[i]
	if !e.stopped && w.history.open(i) {
		return false
	}
	for k := range e.proposals {
		if !e.proposals[k].unknown {
			return false
		}
	}
	for r := range e.links {
		l := &e.links[r]
		if len(l.queue) > 0 || len(l.late) > 0 || l.state == linkBroken {
			return false
		}
	}
	return true
}

// abandonOthers leaves the newest engine alone with the replicas: older ones do nothing
// more, and nothing more is allowed to happen.
func (w *world) abandonOthers() {
	w.left = Bounds{}
	for i := range w.count - 1 {
		w.engines[i] = &engine{core: w.engines[i].core, epoch: w.engines[i].epoch, stopped: true}
	}
}

// finish lets the newest engine go on without faults, in one order, and older
// ones no more; another one is started if it has stopped, or if again says so.
// In the end every replica must be in sync, and all must hold the same, which
// must be what the history allows.
//
// Known are the states from which a rest was reached; nil if there are none.
func (w *world) finish(again bool, c *canon, known *visited) error {
	n := w.copy()
	n.abandonOthers()
	for step := range finishSteps {
		if known != nil && step%finishLook == 0 && !again {
			if fresh, room := known.add(n.key(c)); room && !fresh {
				return nil
			}
		}
		if n.violation != nil {
			return n.violation
		}
		if n.engines[n.count-1].stopped || again {
			again = false
			if n.count == maxEngines {
				return nil
			}
			n.launch()
			n.abandonOthers()
			continue
		}
		if n.deliver() || n.elapse() {
			continue
		}
		if !n.rested() {
			n.fail("finish: the engine waits for nothing, and not all is well: %s", n.describeEnd())
			return n.violation
		}
		return n.compare()
	}
	n.fail("finish: no end after %d steps: %s", finishSteps, n.describeEnd())
	return n.violation
}

// deliver carries out the next thing that is under way for the newest engine.
func (w *world) deliver() bool {
	i := w.count - 1
	e := w.engines[i]
	for r := range e.links {
		l := &e.links[r]
		a := action{engine: uint8(i), replica: uint8(r)}
		switch {
		case len(l.late) > 0:
			rep := l.late[0]
			w.engine(i).links[r].late = append([]block.Reply(nil), l.late[1:]...)
			w.reply(i, r, rep)
			return true
		case l.state == linkBroken:
			w.lose(i, r)
			return true
		case len(l.queue) > 0:
			w.exchange(i, r, &a)
			return true
		}
	}
	if len(e.proposals) == 0 {
		return false
	}
	if e.proposals[0].unknown {
		w.forget(i, 0)
	} else {
		w.outcome(i, 0, false)
	}
	return true
}

// elapse lets the next timer of the newest engine run out.
func (w *world) elapse() bool {
	i := w.count - 1
	l := w.setting.layout
	if w.engines[i].core.Deadline() <= w.now {
		w.step(i, core.Event{Kind: core.EventTick})
		return true
	}
	for t := range timerLog {
		if !l.armed(w.engines[i].core, t) {
			continue
		}
		n := w.copy()
		n.fire(i, t)
		if n.progress {
			*w = *n
			return true
		}
	}
	if d := w.engines[i].core.Deadline(); d < w.now+10*unit {
		w.now, w.units = d+unit, (d+unit)/unit
		return true
	}
	return false
}

// rested reports whether the newest engine has nothing left to do.
func (w *world) rested() bool {
	e := w.engines[w.count-1]
	s := e.core.Status()
	return s.Serving && s.Frozen == nil && s.InFlight == 0 && s.Divergent == 0 && s.View.InSync() == w.setting.config.Replicas
}

// compare looks at the replicas of a volume at rest.
func (w *world) compare() error {
	for b := range w.setting.config.Blocks {
		v := w.replicas[0].cur[b]
		for r := range w.setting.config.Replicas {
			if w.replicas[r].cur[b] != v {
				w.fail("replicas equal: at rest block %d is %d on A and %d on %s", b, v, w.replicas[r].cur[b], letter(r))
				return w.violation
			}
			if w.replicas[r].suspect>>b&1 == 1 {
				w.fail("replicas equal: at rest block %d does not verify on %s", b, letter(r))
				return w.violation
			}
		}
		possible := false
		for _, p := range w.history.possible[b] {
			possible = possible || p.value() == v
		}
		if !possible {
			w.fail("linearizable: at rest block %d is %d, possible are %s", b, v, values(w.history.possible[b]))
			return w.violation
		}
	}
	w.compareCuts()
	return w.violation
}
