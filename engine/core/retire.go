package core

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// errRetired is why a member leaves whose place is taken.
var errRetired = fmt.Errorf("another replica has taken its place: %w", block.ErrDetached)

// retireState is the member that is to leave because next has taken its place; zero
// IDs if there is none.
type retireState struct {
	old, next block.ReplicaID
}

// askRetire is EventRetire.
func (c *Core) askRetire(old, next block.ReplicaID) {
	c.retire = retireState{old: old, next: next}
	c.kick = true
}

// mayRetire reports whether peer i may leave, whose place k has taken: k is a member,
// everybody is well, and enough are left to go on. So the in-sync set is never smaller
// than it was before k joined it, and nobody waits for this.
//
// What could still be counted on i is waited for: a cut that it takes part in, and a
// target that has taken over the dirty sets of the absent ones (rule 23), among which i
// is not.
func (c *Core) mayRetire(i, k int) bool {
	return i >= 0 && k >= 0 && c.iss.has(i) && c.iss.has(k) && c.healthy() == c.iss &&
		c.iss.count() > max(c.cfg.MinInSync, 1) && c.counting < 0 && c.cut.stage <= cutWanted
}

// proposeRetirement proposes to let a member go whose place is taken. It is a removal
// like any other, of one that happens to be well. Raft drops it from the view in the
// same commit, unless nobody wants that any more; then it comes back as a target.
func (c *Core) proposeRetirement() bool {
	if c.phase != serving || !c.settled() || !c.mayRetire(c.peerOf(c.retire.old), c.peerOf(c.retire.next)) {
		return false
	}
	c.propose(block.Proposal{Remove: []block.ReplicaID{c.retire.old}})
	return true
}

// tooMany reports whether a view has more new replicas than there is room for in one
// epoch: a peer keeps its place for the life of the core.
func (c *Core) tooMany(v *block.View) bool {
	n := len(c.peers)
	for i := range v.Replicas {
		if c.peerOf(v.Replicas[i].ID) < 0 {
			n++
		}
	}
	return n > maxReplicas
}
