package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// agent is what makes a node's disk match the cluster's state, in one life of its
// daemon. It goes about it as the loop of cluster.Cluster does: it looks at a copy of
// the state that may be old, and asks Raft for the present one before it touches
// anything.
type agent struct {
	node        *node
	process     *process
	quarantined map[block.ReplicaID]bool
	// busy: it waits for Raft.
	busy bool
	// looked is the state that it has last brought the disk in line with, nil before
	// the first time.
	looked *state.State
}

// agentInterval is the greatest pause between two looks of an agent.
const agentInterval = 300 * millisecond

func newAgent(n *node) *agent {
	a := &agent{node: n, process: n.process, quarantined: make(map[block.ReplicaID]bool)}
	if n.applied == nil {
		n.applied = n.world.truth.state
	}
	return a
}

// run looks again and again.
func (a *agent) run() {
	l := a.node.world.loop
	l.after(a.process, l.between(agentInterval/3, agentInterval), func() {
		if !a.busy {
			a.look()
		}
		a.run()
	})
}

// look compares the node's own copy of the state with its disk.
func (a *agent) look() {
	n, t := a.node, a.node.world.truth
	if n.world.loop.chance(70) && !t.unreachable[n.index] {
		n.applied = t.state
	}
	seen := n.applied
	if w := a.work(seen); w.Empty() {
		a.looked = seen
		return
	}
	a.busy = true
	var now *state.State
	t.command(n, a.process, func() { now = t.state }, func(known bool) {
		a.busy = false
		if known {
			n.applied = now
			a.carryOut(now)
		}
	})
}

func (a *agent) work(s *state.State) cluster.AgentWork {
	n := a.node
	report := cluster.DiskReport{ID: n.storage.id}
	if err := n.storage.store.Failed(); err != nil {
		report.Failure = err.Error()
	}
	var held []cluster.HeldReplica
	for _, r := range n.storage.store.Replicas() {
		held = append(held, cluster.HeldReplica{Disk: n.storage.id, Replica: r.ID(), Volume: r.Volume()})
	}
	return cluster.FindAgentWork(s, n.id, []cluster.DiskReport{report}, held, a.quarantined)
}

// carryOut does what the state asks for, and tells Raft.
func (a *agent) carryOut(s *state.State) {
	n, w := a.node, a.node.world
	work := a.work(s)
	for _, id := range work.Known {
		delete(a.quarantined, id)
		n.server.Quarantine(id, false)
	}
	for _, r := range work.Unknown {
		w.paths.count("agent: quarantine")
		w.loop.log("%v puts %s into quarantine", n, w.replicaName(r.Replica))
		a.quarantined[r.Replica] = true
		n.server.Quarantine(r.Replica, true)
	}
	for _, task := range work.Tasks {
		if err := a.perform(task); err != nil {
			w.loop.log("%v: replica %s, remove %v: %v", n, w.replicaName(task.Spec.Replica), task.Remove, err)
		}
	}
	a.looked = s
}

func (a *agent) perform(t cluster.AgentTask) error {
	n, w := a.node, a.node.world
	var told state.Command = state.ReplicaGone{Replica: t.Spec.Replica}
	if t.Remove {
		if err := n.server.DeleteReplica(t.Spec.Disk, t.Spec.Replica); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		w.identities.deleted(n, t.Spec.Replica)
		w.paths.count("agent: replica deleted")
	} else {
		if err := n.server.CreateReplica(t.Spec.Disk, t.Spec.Replica, t.Spec.Volume, t.Spec.Size); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		n.server.Quarantine(t.Spec.Replica, false)
		w.paths.count("agent: replica made")
		told = state.ReplicaReady{Replica: t.Spec.Replica, Incarnation: n.incarnation()}
	}
	w.truth.command(n, a.process, func() { w.truth.apply(told) }, func(bool) {})
	return nil
}
