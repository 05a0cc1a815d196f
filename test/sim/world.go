package sim

import (
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// errForeignBytes marks bytes of another volume.
var errForeignBytes = errors.New("bytes of another volume")

// Options say what a world is made of and what happens in it.
type Options struct {
	Seed  uint64
	Shape Shape
	// Steps is how many events the faults go on for.
	Steps int
	// Faults are what the nemesis does; nil for none.
	Faults []fault
	// FaultInterval is the mean time between two faults, in nanoseconds.
	FaultInterval int64
	// FaultLength is a percentage of the usual length of faults.
	FaultLength int64
	// Temptation is the percentage of the protocol's important steps (proposals,
	// updates, openings) at which a fault strikes as well.
	Temptation int
	// RaftFaults: commands are lost, late, or answered by nobody.
	RaftFaults bool
	// Scripted leaves the clients to the caller: one volume, on node 0 first,
	// and no requests but those that the caller sends.
	Scripted bool
	// Managed: snapshots of the volumes are taken and deleted, and they grow.
	Managed bool
	// Reverted: volumes are made what snapshots of them were.
	Reverted bool
	// Replaced: replicas move from disk to disk, or the script moves them.
	Replaced bool
	Timing   core.Timing
	Limits   core.Limits
	// NewCore makes the core of an engine.
	NewCore func(core.Config, block.Instant) (machine, error)
	// Plant changes messages on their way, for planted bugs; nil for none.
	Plant *plant
	// TraceLines is how many lines of the trace are kept; Trace gets all.
	TraceLines int
	Trace      io.Writer
}

// Shape is the size of a cluster and of what is asked of it.
type Shape struct {
	// Nodes are the machines, of which the first Disks have a disk.
	Nodes, Disks int
	// Main and Other are the replicas of the two volumes.
	Main, Other int
	// Think is the greatest pause of a client of the first volume between two
	// requests, in nanoseconds.
	Think int64
}

// DefaultShape is that of the scenarios: every disk has a replica, and one node
// has none.
func DefaultShape() Shape {
	return Shape{Nodes: 4, Disks: 3, Main: 3, Other: 2, Think: 8 * millisecond}
}

// DefaultTiming is short, so that minutes of protocol fit into a run.
func DefaultTiming() core.Timing {
	return core.Timing{
		PingInterval:    100 * millisecond,
		IdlePing:        500 * millisecond,
		Lease:           400 * millisecond,
		LeaseMargin:     50 * millisecond,
		PingDeadline:    450 * millisecond,
		ReplicaDeadline: 600 * millisecond,
		AttachGrace:     700 * millisecond,
		AttachWait:      1500 * millisecond,
		ConnectRetry:    150 * millisecond,
		ProposeRetry:    250 * millisecond,
		NoSpaceRetry:    150 * millisecond,
		LogIdle:         800 * millisecond,
		CutHold:         300 * millisecond,
		NumberGap:       200 * millisecond,
	}
}

// DefaultLimits are small, so that bounds are met.
func DefaultLimits() core.Limits {
	return core.Limits{Requests: 64, TargetWindow: 16, Copies: 2, LogRegions: 2}
}

// Violation is what a checker found.
type Violation struct {
	Checker string
	Text    string
	Step    int
	At      block.Instant
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("%s: step %d, %.6fs: %s", v.Checker, v.Step, float64(v.At)/float64(second)-1000, v.Text)
}

// World is one cluster under test with everything around it. It is used by one
// goroutine.
type World struct {
	options Options
	loop    *loop
	network *network
	truth   *truth
	cluster block.ClusterID
	nodes   []*node
	volumes []*volume
	// operations counts the client requests of all volumes.
	operations uint64
	violation  *Violation
	// healed: no fault is left and none will come.
	healed bool
	// broken: an assertion failed in the middle of something.
	broken bool
	// ending: clients ask for nothing more.
	ending bool
	// rotten: bits were flipped in a disk, so that a read may have nobody intact
	// to go to.
	rotten bool
	// unreadable: reads of a disk failed, with the same consequence.
	unreadable bool
	// rolledBack are the replicas whose disk was put back, until they have left the
	// in-sync set for it.
	rolledBack map[block.ReplicaID]bool

	paths *paths
	acks  *acks
	doors *doors
	// identities watches which replicas there are; estate makes and deletes some, nil
	// in a scripted world until the script wants one.
	identities *identities
	estate     *estate
}

// NewWorld builds a cluster and starts its volumes.
func NewWorld(o Options) (*World, error) {
	w := &World{options: o, paths: newPaths(), rolledBack: make(map[block.ReplicaID]bool)}
	w.loop = newLoop(o.Seed, max(o.TraceLines, 64))
	w.loop.trace.full = o.Trace
	w.acks = newAcks(w.fail)
	w.doors = newDoors(w)
	w.identities = newIdentities(w)
	w.network = newNetwork(w.loop, w.doors)
	w.truth = newTruth(w)
	if err := w.build(); err != nil {
		return nil, fmt.Errorf("build world of seed %d: %w", o.Seed, err)
	}
	return w, nil
}

func (w *World) build() error {
	w.cluster = block.ClusterID{ID: w.loop.id()}
	if r := w.truth.apply(state.Bootstrap{Cluster: w.cluster, Incarnation: 1}); r.Err != nil {
		return r.Err
	}
	for i := range w.options.Shape.Nodes {
		n := &node{world: w, index: i, id: block.NodeID{ID: w.loop.id()}, clock: newClock(w.loop),
			devices: make(map[*volume]block.AttachmentID)}
		w.nodes = append(w.nodes, n)
		if r := w.truth.apply(state.SetNode{Node: state.Node{ID: n.id, Name: fmt.Sprintf("node%d", i)}}); r.Err != nil {
			return r.Err
		}
		if i < w.options.Shape.Disks {
			if err := n.format(); err != nil {
				return err
			}
			d := state.Disk{ID: n.storage.id, Node: n.id, Path: storePath, Capacity: diskCapacity}
			if r := w.truth.apply(state.AddDisk{Disk: d}); r.Err != nil {
				return r.Err
			}
		}
		if err := n.boot(); err != nil {
			return err
		}
	}
	return w.createVolumes()
}

// createVolumes makes two volumes on the same disks, the second one of a size
// that ends within a region, a chunk and an extent.
func (w *World) createVolumes() error {
	shape, scripted := w.options.Shape, w.options.Scripted
	first := area{offset: 0, length: 2 * block.ExtentSize}
	work := workload{depth: 6, think: shape.Think, writes: 40, zeros: 8, flushes: 6, forced: 8}
	on := w.loop.rng.Perm(shape.Disks)[:shape.Main]
	if scripted {
		work, on = workload{}, []int{0, 1, 2}
	}
	if err := w.create("main", 3*block.RegionSize, on,
		[]area{first, {offset: block.RegionSize - block.ExtentSize, length: 2 * block.ExtentSize},
			{offset: 2*block.RegionSize + block.ChunkSize, length: block.ExtentSize},
			{offset: 2*block.RegionSize + 2*block.ChunkSize, length: 8 * block.ExtentSize}}, work); err != nil {
		return err
	}
	if scripted {
		w.volumes[0].minSync, w.volumes[0].target = 1, w.nodes[0]
		return nil
	}
	tail := area{offset: block.RegionSize, length: block.ChunkSize + 3*block.ExtentSize + 5*block.BlockSize}
	size := tail.offset + tail.length
	tail.offset += block.ChunkSize
	tail.length -= block.ChunkSize
	w.estate = newEstate(w)
	w.estate.run()
	newLeadership(w).run()
	return w.create("other", size, w.loop.rng.Perm(shape.Disks)[:shape.Other], []area{first, tail},
		workload{depth: 2, think: 5 * shape.Think, writes: 50, zeros: 10, flushes: 5, forced: 5})
}

// create makes a volume with a replica on each of the nodes on.
func (w *World) create(name string, size int64, on []int, areas []area, work workload) error {
	v := &volume{name: name, id: block.VolumeID{ID: w.loop.id()}, size: size, areas: areas, work: work,
		acceptable: make(map[uint64]bool), minSync: min(1+w.loop.rng.IntN(2), len(on)), target: w.anyMachine()}
	v.tag = w.loop.rng.Uint64()
	v.history = newHistory(v.tag, w.fail)
	cmd := state.CreateVolume{Volume: v.id, Name: name, Size: size,
		Parameters: state.Parameters{Replicas: len(on), MinInSync: v.minSync}}
	for _, i := range on {
		id := block.ReplicaID{ID: w.loop.id()}
		v.replicas = append(v.replicas, id)
		cmd.Replicas = append(cmd.Replicas, state.Placement{Replica: id, Node: w.nodes[i].id, Disk: w.nodes[i].storage.id})
	}
	if r := w.truth.apply(cmd); r.Err != nil {
		return r.Err
	}
	for k, i := range on {
		n := w.nodes[i]
		if err := n.server.CreateReplica(n.storage.id, v.replicas[k], v.id, size); err != nil {
			return fmt.Errorf("create replica: %w", err)
		}
		if r := w.truth.apply(state.ReplicaReady{Replica: v.replicas[k], Incarnation: n.incarnation()}); r.Err != nil {
			return r.Err
		}
	}
	w.volumes = append(w.volumes, v)
	w.supervise(v)
	if w.options.Managed && !w.options.Scripted {
		w.manage(v)
	}
	if w.options.Replaced && !w.options.Scripted {
		w.replaces(v)
	}
	return nil
}

// fail records a violation; the first one counts.
func (w *World) fail(checker, text string) {
	w.loop.log("VIOLATION %s: %s", checker, text)
	if w.violation == nil {
		w.violation = &Violation{Checker: checker, Text: text, Step: w.loop.steps, At: w.loop.now}
	}
}

// answeredError judges an error that a client got.
func (w *World) answeredError(h *host, op *operation, err error) {
	switch {
	case errors.Is(err, block.ErrDetached), errors.Is(err, block.ErrStaleEpoch):
	case errors.Is(err, block.ErrIO) && op.kind != core.FlushRequest && (w.rotten || w.unreadable):
	default:
		w.fail("answers", fmt.Sprintf("%v: %v failed with an error no fault here allows: %v", h, op, err))
	}
}

func (w *World) volumeOf(id block.VolumeID) *volume {
	for _, v := range w.volumes {
		if v.id == id {
			return v
		}
	}
	return nil
}

// anyMachine draws a node, whether it runs or not.
func (w *World) anyMachine() *node { return w.nodes[w.loop.rng.IntN(len(w.nodes))] }

// nodeOf finds the node of a replica.
func (w *World) nodeOf(id block.ReplicaID) *node {
	v, ok := w.truth.state.VolumeOf(id)
	if !ok {
		return nil
	}
	m := v.View.Member(id)
	for _, n := range w.nodes {
		if m != nil && n.id == m.Node {
			return n
		}
	}
	return nil
}
