package sim

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/block"
)

// leadership is who leads the Raft group, and whom the leader holds for dead. Terms
// end as they please: a leader dies, freezes, loses the quorum, or is replaced.
type leadership struct {
	world  *World
	leader *node
	// process is the life of the leader's daemon, liveness what that knows.
	process  *process
	liveness *cluster.Liveness
	// led are all lives of daemons that have led.
	led map[*process]*cluster.Liveness
	// heard is when a leader has last heard of a node.
	heard map[block.NodeID]block.Instant
	fail  func(checker, text string)
}

const (
	nodeLease         = 1500 * millisecond
	heartbeatInterval = 400 * millisecond
	leadInterval      = 300 * millisecond
)

func newLeadership(w *World) *leadership {
	return &leadership{world: w, led: make(map[*process]*cluster.Liveness), heard: make(map[block.NodeID]block.Instant),
		fail: w.fail}
}

// run holds elections and has every node send heartbeats.
func (x *leadership) run() {
	x.look()
	for _, n := range x.world.nodes {
		x.beat(n)
	}
}

// look elects a leader where there is none, or has it judge the nodes.
func (x *leadership) look() {
	w := x.world
	w.loop.after(nil, w.loop.between(leadInterval/3, leadInterval), func() {
		switch {
		case !w.truth.quorum:
			x.leader = nil
		case x.leader == nil || x.leader.process != x.process || x.process.paused || w.loop.chance(3):
			x.elect()
		default:
			x.judge()
		}
		x.look()
	})
}

// elect begins the term of a node that runs.
func (x *leadership) elect() {
	w := x.world
	if x.leader = w.anyNode(func(n *node) bool { return running(n) && !n.process.paused }); x.leader == nil {
		return
	}
	x.process = x.leader.process
	if x.liveness = x.led[x.process]; x.liveness == nil {
		x.liveness = cluster.NewLiveness(bootClock{x.leader}, time.Duration(nodeLease))
		x.led[x.process] = x.liveness
	}
	x.liveness.Lead()
	w.paths.count("leader: term begins")
	x.judge()
}

// beat sends the heartbeats of a node, if it runs, to the leader, if it gets there.
func (x *leadership) beat(n *node) {
	w := x.world
	w.loop.after(nil, w.loop.between(heartbeatInterval/4, heartbeatInterval), func() {
		to := x.leader
		lost := to == nil || n.process == nil || n.process.paused || w.truth.unreachable[n.index] ||
			n != to && w.network.cut[[2]int{n.index, to.index}]
		if !lost && to.process == x.process && !x.process.paused {
			x.heard[n.id] = w.loop.now
			x.liveness.Heard(n.id)
		}
		x.beat(n)
	})
}

// judge asks the leader who is dead.
func (x *leadership) judge() {
	for _, n := range x.world.nodes {
		if !x.liveness.Alive(n.id) {
			x.world.paths.count("leader: node held for dead")
			x.dead(n)
		}
	}
}

// dead verifies that no leader, this or an earlier one, has heard of a node that is held
// for dead within a lease, by the fastest clock (rule 28).
func (x *leadership) dead(n *node) {
	quiet := int64(x.world.loop.now - x.heard[n.id])
	if quiet < nodeLease-nodeLease/1e6*2*driftMax {
		x.fail("leases", fmt.Sprintf("%v is held for dead, and was heard %d ms ago", n, quiet/millisecond))
	}
}

// bootClock is the clock of a node's machine.
type bootClock struct{ node *node }

// Now implements clock.Clock.
func (c bootClock) Now() block.Instant { return c.node.clock.read(c.node.world.loop.now) }

// AfterFunc implements clock.Clock. Nobody asks for it.
func (bootClock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return false } }
