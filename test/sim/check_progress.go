package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// After healing, the volumes must come to rest within these virtual durations:
// settleMax until all replicas are admitted, and until the logs are empty, drainMax until the last request is
// answered.
const (
	settleMax = 60 * second
	drainMax  = 20 * second
)

// settle verifies progress after healing: replicas are made and deleted where that was
// asked for, engines serve, every replica is admitted, every request is answered, a last flush succeeds, and without requests
// the intent logs become empty.
func (w *World) settle() {
	w.await(settleMax, w.restless)
	w.ending = true
	w.drain("the last requests")
	for _, v := range w.volumes {
		if w.violation == nil && !v.current.stopped {
			v.current.client.send(core.Request{Kind: core.FlushRequest})
		}
	}
	w.drain("the last flush")
	w.await(settleMax, w.untidy)
}

// await steps until nothing is left that problem reports, for a bounded time.
func (w *World) await(bound int64, problem func() string) {
	deadline := w.loop.now + block.Instant(bound)
	w.advance(func() bool { return problem() == "" || w.loop.now > deadline })
	if why := problem(); why != "" && w.violation == nil {
		w.fail("progress", fmt.Sprintf("after %d s without trouble: %s", bound/second, why))
	}
}

// restless says why the world is not at rest; empty if it is.
func (w *World) restless() string {
	for _, v := range w.volumes {
		if why := w.unsettled(v); why != "" {
			return v.name + ": " + why
		}
	}
	return w.unfinished()
}

// unfinished says which replica the agents of the nodes have not made or deleted yet;
// empty if there is none.
func (w *World) unfinished() string {
	if w.estate == nil && !w.options.Replaced {
		return ""
	}
	for v := range w.truth.state.Volumes() {
		if v.Deleting || !v.Ready() {
			return fmt.Sprintf("%s, deleted %v, waits for the agents of %d replicas", v.Name, v.Deleting,
				max(len(v.Pending), len(v.View.Replicas)))
		}
		if n := len(v.Replacing) + len(v.Retired); n > 0 {
			return fmt.Sprintf("%s: %d replicas are not replaced or deleted yet", v.Name, n)
		}
	}
	return ""
}

// incomplete reports that no more replicas can be admitted: the members have lost
// some bytes to rot, and only a client that writes them again can help.
func (w *World) incomplete(h *host) bool {
	return w.rotten && h.blocked > 0 && w.loop.now-h.blocked < block.Instant(second)
}

// starved reports that writes wait for replicas that cannot be admitted, which
// could be admitted if writes did not wait.
func (w *World) starved(h *host) bool {
	view := w.truth.view(h.volume.id)
	return w.incomplete(h) && view.InSync() < h.volume.minSync
}

// untidy says why the world is not as it should be when nobody asks for anything;
// empty if it is.
func (w *World) untidy() string {
	for _, v := range w.volumes {
		if why := w.unsettled(v); why != "" {
			return v.name + ": " + why
		}
		if why := w.strayCuts(v); why != "" {
			return v.name + ": " + why
		}
		if n := v.current.core.Status().LogRegions; n > 0 && !w.starved(v.current) {
			return fmt.Sprintf("%s: %d regions in the intent logs of %v", v.name, n, v.current)
		}
	}
	return ""
}

// drain waits until every request is answered.
func (w *World) drain(what string) {
	deadline := w.loop.now + block.Instant(drainMax)
	open := func() (out *operation) {
		for _, v := range w.volumes {
			for _, h := range v.hosts {
				if w.starved(h) {
					continue
				}
				for _, op := range h.client.order {
					if out == nil || op.at < out.at {
						out = op
					}
				}
			}
		}
		return out
	}
	w.advance(func() bool { return open() == nil || w.loop.now > deadline })
	if op := open(); op != nil && w.violation == nil {
		w.fail("progress", fmt.Sprintf("%s: %v is unanswered %d s after healing", what, op, drainMax/second))
	}
}
