package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// After healing, the volumes must come to rest within these virtual durations:
// settleMax until all replicas are admitted, drainMax until the last request is
// answered.
const (
	settleMax = 60 * second
	drainMax  = 20 * second
)

// settle verifies progress after healing: engines serve, every replica is
// admitted, every request is answered, and a last flush succeeds.
func (w *World) settle() {
	deadline := w.loop.now + block.Instant(settleMax)
	w.advance(func() bool { return w.restless() == "" || w.loop.now > deadline })
	if w.violation != nil {
		return
	}
	if why := w.restless(); why != "" {
		w.fail("progress", fmt.Sprintf("%d s after healing: %s", settleMax/second, why))
		return
	}
	for _, v := range w.volumes {
		v.current.client.quiet = true
	}
	w.drain("the last requests")
	for _, v := range w.volumes {
		if w.violation == nil && !v.current.stopped {
			v.current.client.send(core.Request{Kind: core.FlushRequest})
		}
	}
	w.drain("the last flush")
}

// restless says why the world is not at rest; empty if it is.
func (w *World) restless() string {
	for _, v := range w.volumes {
		if why := w.unsettled(v); why != "" {
			return v.name + ": " + why
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
