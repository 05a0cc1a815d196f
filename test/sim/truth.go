package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// truth stands in for the Raft group: one copy of the real state machine,
// reached through delays, losses and silence. A command may land at once, late,
// or never, and its proposer may or may not hear of it, in every combination.
type truth struct {
	world *World
	state *state.State
	index uint64
	// quorum is false while nothing can be committed.
	quorum bool
	// unreachable are the nodes that cannot reach the leader.
	unreachable map[int]bool
	// waiting are commands that land when the quorum returns.
	waiting []func()
}

// proposeTimeout is how long a proposer waits before it calls the outcome
// unknown.
const proposeTimeout = 400 * millisecond

func newTruth(w *World) *truth {
	return &truth{world: w, state: &state.State{}, quorum: true, unreachable: make(map[int]bool)}
}

// apply carries a command to the state machine in its encoded form.
func (t *truth) apply(c state.Command) state.Result {
	data, err := state.Encode(c)
	var decoded state.Command
	if err == nil {
		decoded, err = state.Decode(data)
	}
	if err != nil {
		t.world.fail("raft", fmt.Sprintf("command %s: %v", c.Kind(), err))
		return state.Result{Err: err}
	}
	t.index++
	next, result := t.state.Apply(t.index, decoded)
	if _, proposal := decoded.(state.Propose); !proposal {
		t.sameMembers(t.state, next, c.Kind())
		t.notBorrowed(t.state, next, c.Kind())
		t.notReverting(t.state, next, c.Kind())
	}
	t.world.identities.changed(t.state, next, c.Kind())
	t.state = next
	if err := next.Check(); err != nil {
		t.world.fail("raft", fmt.Sprintf("after %s: %v", c.Kind(), err))
	}
	return result
}

// sameMembers verifies that a command changed no in-sync set: that is for the
// engine of the epoch to propose (rule 3).
func (t *truth) sameMembers(before, after *state.State, kind string) {
	for _, v := range t.world.volumes {
		old, known := before.Volume(v.id)
		now, _ := after.Volume(v.id)
		for i := range now.View.Replicas {
			m := &now.View.Replicas[i]
			if was := old.View.Member(m.ID); known && was != nil && was.InSync != m.InSync {
				t.world.fail("proposers", fmt.Sprintf("%s: %s changed the in-sync set", v.name, kind))
			}
		}
	}
}

// proposer verifies that a change of the view that landed was proposed by the
// engine of the epoch, on the revision that it knew.
func (t *truth) proposer(h *host, p *block.Proposal, before *block.View) {
	if h.epoch != before.Epoch || p.Epoch != h.epoch || p.Revision != before.Revision {
		t.world.fail("proposers", fmt.Sprintf("a proposal of epoch %d revision %d by %v landed on epoch %d revision %d",
			p.Epoch, p.Revision, h, before.Epoch, before.Revision))
	}
}

// notBorrowed verifies that no command publishes a volume that an engine without a
// frontend has (rule 2): the node that gets it would begin beside that.
func (t *truth) notBorrowed(before, after *state.State, kind string) {
	for _, v := range t.world.volumes {
		old, known := before.Volume(v.id)
		now, _ := after.Volume(v.id)
		if known && !old.Yields && old.Published.IsZero() && !old.View.Owner.IsZero() && !now.Published.IsZero() {
			t.world.fail("attachments", fmt.Sprintf("%s: %s publishes it, and an engine has borrowed it", v.name, kind))
		}
	}
}

// intended verifies that a snapshot that landed was reserved and a size wanted (rules 24
// and 27), in the state before.
func (t *truth) intended(before *state.State, p *block.Proposal) {
	v, _ := before.Volume(p.Volume)
	if p.Size > max(v.View.Size, v.GrowTo) {
		t.world.fail("proposers", fmt.Sprintf("%d bytes are committed, nobody wants more than %d", p.Size, v.GrowTo))
	}
	if p.Snapshot == nil {
		return
	}
	if r, ok := before.Snapshot(p.Snapshot.ID); !ok || r.Volume != p.Volume || r.Ready() {
		t.world.fail("proposers", fmt.Sprintf("snapshot %s is committed and was not reserved", p.Snapshot.ID.Short()))
	}
}

// view is the committed view of a volume.
func (t *truth) view(id block.VolumeID) block.View {
	v, _ := t.state.Volume(id)
	return v.View.Clone()
}

// command lands apply and then answers the proposer, in one of the ways in which
// that can go: done(false) means that the outcome is not known.
func (t *truth) command(from *node, p *process, apply func(), done func(known bool)) {
	l, w := t.world.loop, t.world
	timeout := l.after(p, proposeTimeout, func() {
		w.paths.count("raft: outcome unknown")
		done(false)
	})
	if t.unreachable[from.index] {
		w.paths.count("raft: leader unreachable")
		return
	}
	delay := l.between(500*microsecond, 8*millisecond)
	answerLost := false
	if !w.healed && w.options.RaftFaults {
		switch roll := l.rng.IntN(100); {
		case roll < 4:
			w.paths.count("raft: command lost")
			return
		case roll < 9:
			w.paths.count("raft: answer lost")
			answerLost = true
		case roll < 16:
			w.paths.count("raft: command late")
			delay = l.between(proposeTimeout/2, 3*second)
		}
	}
	land := func() {
		apply()
		w.tempt()
		if answerLost {
			return
		}
		l.after(p, l.between(100*microsecond, 5*millisecond), func() {
			if l.cancel(timeout) {
				done(true)
			}
		})
	}
	l.after(nil, delay, func() { t.land(land) })
}

// land appends to the log, if there is a quorum for it. Without one, an entry is
// lost with its leader or waits.
func (t *truth) land(land func()) {
	switch {
	case t.quorum:
		land()
	case t.world.loop.chance(50):
		t.world.paths.count("raft: lost without quorum")
	default:
		t.world.paths.count("raft: waited for quorum")
		t.waiting = append(t.waiting, land)
	}
}

// restore gives the quorum back: what waited in the log lands.
func (t *truth) restore() {
	t.quorum = true
	waiting := t.waiting
	t.waiting = nil
	for _, land := range waiting {
		t.world.loop.after(nil, t.world.loop.between(0, 50*millisecond), land)
	}
}

// propose carries a core's proposal to the state machine and its outcome back.
func (t *truth) propose(h *host, p block.Proposal) {
	w := t.world
	var result state.Result
	t.command(h.node, h.process, func() {
		before, was := t.view(p.Volume), t.state
		result = t.apply(state.Propose{Proposal: p})
		after := result.View()
		w.loop.log("raft: %v (%s) lands: verdict %d %v, %s", h, w.describeProposal(&p), result.Verdict, result.Err,
			w.describeView(&after))
		if result.Verdict == block.Committed {
			t.proposer(h, &p, &before)
			t.intended(was, &p)
			w.replaced(&p, was, &after)
			w.committed(&p, &before, &after)
			if len(p.Remove) > 0 && !h.serving {
				w.paths.count("view: removal before serving")
			}
		}
	}, func(known bool) {
		ev := core.Event{Kind: core.EventOutcome, Proposal: p}
		if known {
			ev.Verdict, ev.View = result.Verdict, result.View().Clone()
		}
		w.loop.log("%v learns verdict %d of (%s)", h, ev.Verdict, w.describeProposal(&p))
		h.step(ev)
	})
}

// hint tells engines of a volume what Raft shows, some of them and some time
// later.
func (t *truth) hint(v *volume) {
	l := t.world.loop
	for _, h := range v.hosts {
		if !l.chance(70) || t.unreachable[h.node.index] {
			continue
		}
		l.after(h.process, l.between(millisecond, 50*millisecond), func() {
			if !h.stopped {
				h.step(core.Event{Kind: core.EventView, View: t.view(v.id)})
			}
		})
	}
}
