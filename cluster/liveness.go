package cluster

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
)

// Liveness is what a leader knows of who is alive, as Cluster itself goes by it, for
// nodes that are simulated.
type Liveness struct{ leases *leases }

// NewLiveness makes that of a node which does not lead yet.
func NewLiveness(c clock.Clock, lease time.Duration) *Liveness {
	return &Liveness{leases: newLeases(c, lease)}
}

// Lead begins a term of this node.
func (l *Liveness) Lead() { l.leases.reset() }

// Heard notes a heartbeat of a node.
func (l *Liveness) Heard(node block.NodeID) { l.leases.heard(node, 0, nil) }

// Alive reports whether a node is not to be held for dead.
func (l *Liveness) Alive(node block.NodeID) bool { return l.leases.alive(node) }
