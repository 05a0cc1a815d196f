package sim

import (
	"fmt"
	"runtime/debug"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Result is what came of a run.
type Result struct {
	Violation *Violation
	// Steps is the number of events, Operations that of client requests.
	Steps      int
	Operations uint64
	// Hash is over the whole trace.
	Hash  uint64
	Trace []string
	// GaveUp counts the sectors whose history was too wide to judge.
	GaveUp int

	paths *paths
}

// assertion is the checker that stands for the code's own: it sees a bug from
// within.
const assertion = "assertion"

// lookInterval is how many steps pass between two looks of the checkers that
// look at the whole world.
const lookInterval = 64

// Run lets faults and clients at a world, heals it, lets it come to rest, and
// compares its replicas.
func Run(o Options) (*Result, error) {
	w, err := NewWorld(o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	w.play()
	return w.result(), nil
}

// play is a whole run. An assertion that fails ends it like a violation that a
// checker found, so that it can be replayed.
func (w *World) play() {
	defer func() {
		if broken := recover(); broken != nil {
			w.broken = true
			w.fail(assertion, fmt.Sprintf("%v\n%s", broken, debug.Stack()))
		}
	}()
	w.haunt()
	w.advance(func() bool { return w.loop.steps >= w.options.Steps })
	if w.violation == nil {
		w.heal()
		w.settle()
	}
	if w.violation == nil {
		w.scrubAll()
	}
	if w.violation == nil {
		w.compare()
	}
	w.judgeAgain()
}

// advance steps until done, or a violation.
func (w *World) advance(done func() bool) {
	for w.violation == nil && !done() {
		if !w.loop.step() {
			w.fail("progress", "nothing is left to happen")
			return
		}
		if w.loop.steps%lookInterval == 0 {
			w.checkMemory()
		}
	}
}

func (w *World) result() *Result {
	r := &Result{
		Violation: w.violation, Steps: w.loop.steps, Operations: w.operations, Hash: w.loop.trace.hash,
		Trace: w.loop.trace.last(len(w.loop.trace.ring)), paths: w.paths,
	}
	for _, v := range w.volumes {
		for _, h := range v.hosts {
			w.paths.guards(h.core.Status().Guards)
		}
		for _, s := range v.history.order {
			if s.gaveUp {
				r.GaveUp++
			}
		}
	}
	return r
}

// close ends what libraries have started. What a failed assertion left locked is
// not touched.
func (w *World) close() {
	if w.broken {
		return
	}
	for _, n := range w.nodes {
		if n.process != nil {
			n.kill(false, loseNothing)
		}
	}
}

// unsettled says why a volume is not at rest; empty if it is.
func (w *World) unsettled(v *volume) string {
	vol, _ := w.truth.state.Volume(v.id)
	view, c := &vol.View, v.current
	switch {
	case vol.Reverting() || vol.Borrowed():
		return "it is being reverted"
	case c == nil || c.stopped:
		return "no engine runs"
	case !c.serving:
		return fmt.Sprintf("%v does not serve", c)
	case view.Epoch != c.epoch:
		return fmt.Sprintf("%v runs, Raft shows epoch %d", c, view.Epoch)
	case view.InSync() != len(view.Replicas) && !w.incomplete(c):
		return w.describeView(view)
	case c.core.Status().Divergent > 0:
		return fmt.Sprintf("%v has %d bytes to repair", c, c.core.Status().Divergent)
	case w.options.Managed && c.core.Status().View.Revision != view.Revision:
		// Only then do views change behind an engine's back.
		return fmt.Sprintf("%v knows revision %d of %d", c, c.core.Status().View.Revision, view.Revision)
	case v.pendingShot() != nil:
		return "a snapshot is neither taken nor given up"
	case view.Size < v.wantedSize(w):
		return fmt.Sprintf("it has %d bytes and shall have %d", view.Size, v.wantedSize(w))
	case len(v.hosts) > 1:
		return fmt.Sprintf("%d engines have not stopped", len(v.hosts))
	}
	return ""
}

// pendingShot is a snapshot of which more will be heard.
func (v *volume) pendingShot() *shot {
	for _, s := range v.shots {
		if s.op.outcome == pending {
			return s
		}
	}
	return nil
}

// wantedSize is what Raft wants the volume to have.
func (v *volume) wantedSize(w *World) int64 {
	vol, _ := w.truth.state.Volume(v.id)
	return max(vol.View.Size, vol.GrowTo)
}

// members are the in-sync replicas of a view.
func (w *World) members(view *block.View) []block.ReplicaID {
	var out []block.ReplicaID
	for _, m := range view.Replicas {
		if m.InSync {
			out = append(out, m.ID)
		}
	}
	return out
}
