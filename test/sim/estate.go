package sim

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// estate is the volumes that come and go beside those under test, one at a time: made
// by the agents of the nodes, visited, deleted. What is left of one may come up again.
type estate struct {
	world *World
	brief *brief
	made  int
	// visitors are engines of volumes that may be gone, the latest last.
	visitors []*visitor
	// gone are the latest deleted replicas.
	gone []remains
}

// brief is a volume that is soon deleted again.
type brief struct {
	create state.CreateVolume
	// asked: a command for it is under way.
	asked   bool
	visited bool
	// until is when it has lived long enough.
	until block.Instant
}

// remains are what a deleted replica was.
type remains struct {
	node *node
	spec store.ReplicaSpec
}

const (
	estateInterval = 400 * millisecond
	briefLife      = 3 * second
	briefSize      = 2 * block.ExtentSize
	// visitorsMax and remainsMax bound what is remembered of volumes that are gone.
	visitorsMax = 2
	remainsMax  = 4
)

func newEstate(w *World) *estate { return &estate{world: w} }

// run takes a step for the present volume now and then, until everything is healed.
func (e *estate) run() {
	l := e.world.loop
	l.after(nil, l.between(estateInterval/4, estateInterval), func() {
		if !e.world.healed {
			e.step()
			e.run()
		}
	})
}

// step does the next thing in the life of a volume. A command that was not heard of is
// asked for again.
func (e *estate) step() {
	w := e.world
	b := e.brief
	if b == nil {
		e.brief = e.plan()
		return
	}
	if b.asked {
		return
	}
	v, known := w.truth.state.Volume(b.create.Volume)
	switch {
	case !known && b.until > 0:
		w.paths.count("estate: volume is gone")
		e.buried(b)
		e.brief = nil
	case !known:
		e.ask(b, b.create)
	case v.Deleting:
	case !v.Ready():
		b.until = w.loop.now + block.Instant(w.loop.between(0, briefLife))
	case w.loop.now > b.until && !v.Published.IsZero():
		// By force: whoever had it need not hear of it.
		e.ask(b, state.Unpublish{Volume: v.ID, Node: v.Published, EndAttachment: true})
	case w.loop.now > b.until:
		e.ask(b, state.DeleteVolume{Volume: v.ID})
	case v.Published.IsZero():
		e.ask(b, state.Publish{Volume: v.ID, Node: w.anyMachine().id})
	case !b.visited:
		e.visit(b, &v)
	}
}

// plan decides on the next volume.
func (e *estate) plan() *brief {
	w := e.world
	e.made++
	c := state.CreateVolume{Volume: block.VolumeID{ID: w.loop.id()}, Name: fmt.Sprintf("brief%d", e.made), Size: briefSize}
	disks := w.loop.rng.Perm(w.options.Shape.Disks)
	for _, i := range disks[:1+w.loop.rng.IntN(2)] {
		c.Replicas = append(c.Replicas, state.Placement{Replica: block.ReplicaID{ID: w.loop.id()}, Node: w.nodes[i].id,
			Disk: w.nodes[i].storage.id})
	}
	c.Parameters = state.Parameters{Replicas: len(c.Replicas), MinInSync: 1}
	c.DecidedAt = w.truth.state.Index()
	return &brief{create: c}
}

// ask lands a command for the volume, or does not.
func (e *estate) ask(b *brief, c state.Command) {
	w := e.world
	b.asked = true
	w.truth.command(w.anyMachine(), nil, func() {
		r := w.truth.apply(c)
		w.loop.log("raft: %s of %s: %v", c.Kind(), b.create.Name, r.Err)
		if _, conflict := c.(state.CreateVolume); conflict && r.Err != nil && e.brief == b {
			e.brief = nil
		}
	}, func(bool) { b.asked = false })
}

// buried remembers the replicas of a volume that is gone.
func (e *estate) buried(b *brief) {
	for _, p := range b.create.Replicas {
		e.gone = append(e.gone, remains{node: e.world.machine(p.Node),
			spec: store.ReplicaSpec{Replica: p.Replica, Volume: b.create.Volume, Size: briefSize}})
	}
	e.gone = e.gone[max(len(e.gone)-remainsMax, 0):]
}

// machine finds a node.
func (w *World) machine(id block.NodeID) *node {
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.id == id })
	return w.nodes[i]
}

// comeUp puts a replica that was deleted on its disk again, as it was when it was new:
// the daemon finds it when it starts.
func comeUp(w *World) bool {
	if w.estate == nil || len(w.estate.gone) == 0 {
		return false
	}
	r := w.estate.gone[w.loop.rng.IntN(len(w.estate.gone))]
	if r.node.process == nil {
		return false
	}
	r.node.storage.found = append(r.node.storage.found, r.spec)
	w.takeDown(r.node, false, loseNothing)
	return true
}

// dig puts on the disk what was found; where its deletion has not come to its end, or
// the disk has failed, it is not there. To the checker of doors it is another one.
func (s *storage) dig(opened *store.Store) {
	for _, spec := range s.found {
		err := opened.Create(spec)
		s.node.world.loop.log("%v finds replica %s: %v", s.node, spec.Replica.Short(), err)
		if err == nil {
			delete(s.node.world.doors.replicas, spec.Replica)
		}
	}
	s.found = nil
}

// attachTwin attaches a copy of a disk that the node has. From then on neither is
// served, until the daemon starts again without it.
func attachTwin(w *World) bool {
	n := w.anyNode(func(n *node) bool { return withDisk(n) && n.twinned != n.process })
	if n == nil {
		return false
	}
	n.attachTwin()
	p := n.process
	w.later(50*millisecond, 3*second, func() {
		if n.process == p {
			n.kill(false, loseNothing)
			n.restart()
		}
	})
	return true
}

func (n *node) attachTwin() {
	w := n.world
	w.loop.log("%v shows its disk twice", n)
	n.twinned = n.process
	if err := n.server.AddDisk(&twinDisk{servedDisk{storage: n.storage, store: n.storage.store}}); err == nil {
		w.fail("identity", fmt.Sprintf("%v takes two disks with one ID", n))
	}
}
