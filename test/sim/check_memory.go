package sim

import "fmt"

// queueMax bounds what an engine may leave in one connection: every request it
// may hold, a window of a target, its copies, and the protocol's own messages.
const queueMax = 256

// checkInFlight verifies, at every request that comes to a replica, that no more of its
// session are held there than a session may have in flight: what is beyond that was
// refused at once (rule 32).
func (w *World) checkInFlight(c *conn) {
	if len(c.asked) > serverLimits().InFlight {
		w.fail("memory", fmt.Sprintf("%s holds %d requests of one session of %v", w.replicaName(c.replica), len(c.asked),
			c.engine))
	}
}

// checkMemory verifies that the memory of an engine is bounded: what it has put
// into a connection that does not move, and what its core holds: slots, ranges, and
// the calls to each replica.
func (w *World) checkMemory() {
	for _, v := range w.volumes {
		for _, h := range v.hosts {
			usage := h.core.Status().Usage
			if what := usage.Exceeds(w.options.Limits.Bounds()); what != "" {
				w.fail("memory", fmt.Sprintf("%v holds %s", h, what))
			}
		}
	}
	for _, c := range w.network.conns {
		if len(c.out.queue) > queueMax {
			w.fail("memory", fmt.Sprintf("%v has %d requests queued for %s", c.engine, len(c.out.queue),
				w.replicaName(c.replica)))
		}
		if len(c.asked) > queueMax {
			w.fail("memory", fmt.Sprintf("%v has %d requests unanswered at %s", c.engine, len(c.asked),
				w.replicaName(c.replica)))
		}
	}
}
