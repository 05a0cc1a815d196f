package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// watched is a replica of which every operation that its door hands to the store is
// counted until the store has done it.
type watched struct {
	server.Replica
	running int
}

// Submit implements server.Replica. A fence is the door's own.
func (r *watched) Submit(op *store.Op) {
	if op.Kind != store.Fence {
		r.running++
		done := op.Done
		op.Done = func(op *store.Op) {
			r.running--
			op.Done = done
			done(op)
		}
	}
	r.Replica.Submit(op)
}

// watch shows a replica to the server through the eyes of the checker of doors, until
// the daemon ends.
func (s *storage) watch(r *store.Replica) server.Replica {
	w := &watched{Replica: r}
	s.watched[r.ID()] = w
	return w
}

// drained verifies that nothing runs in the store for a replica that has just
// acknowledged an opening: it would be an operation of an older session (rule 4).
func (d *doors) drained(c *conn) {
	if c.to == nil || c.to.storage == nil {
		return
	}
	if w := c.to.storage.watched[c.replica]; w != nil && w.running > 0 {
		d.fail("doors", fmt.Sprintf("%s opened for %v while %d operations of older sessions run", d.world.replicaName(c.replica),
			c.engine, w.running))
	}
}

// arrives notes an opening that comes to a door: if it is let in, nothing older may
// have been told of a success since.
func (h *doorHistory) arrives(f block.Fence) {
	if h.entering.Less(f) {
		h.entering, h.outrun = f, ""
	}
}
