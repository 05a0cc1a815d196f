package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/server"
)

// identities verifies that the ID of a replica names one thing for ever (rule 1): one
// replica of one volume on one disk, known until its volume is deleted, or it was replaced
// and is gone, and then never again; and that of a snapshot, too.
type identities struct {
	world *World
	known map[block.ReplicaID]identity
	// dropped are the snapshots that are gone.
	dropped map[block.SnapshotID]bool
}

type identity struct {
	volume block.VolumeID
	disk   block.DiskID
	gone   bool
}

func newIdentities(w *World) *identities {
	return &identities{world: w, known: make(map[block.ReplicaID]identity), dropped: make(map[block.SnapshotID]bool)}
}

// changed compares two states, before and after a command.
func (x *identities) changed(before, after *state.State, kind string) {
	fail := func(id block.ReplicaID, what string) {
		x.world.fail("identity", fmt.Sprintf("after %s, replica %s %s", kind, x.world.replicaName(id), what))
	}
	for v := range after.Volumes() {
		for _, p := range allReplicas(&v) {
			now := identity{volume: v.ID, disk: p.Disk}
			switch old, known := x.known[p.Replica]; {
			case known && old != now:
				fail(p.Replica, "is another one, or one that was gone")
			case !known:
				x.known[p.Replica] = now
			}
		}
	}
	for v := range before.Volumes() {
		for _, p := range allReplicas(&v) {
			if _, ok := after.VolumeOf(p.Replica); ok {
				continue
			}
			if !v.Deleting && !v.IsRetired(p.Replica) {
				fail(p.Replica, "is forgotten, and neither it nor its volume is deleted")
			}
			x.known[p.Replica] = identity{volume: v.ID, disk: p.Disk, gone: true}
		}
	}
	for r := range after.Snapshots() {
		if x.dropped[r.ID] {
			x.world.fail("identity", fmt.Sprintf("after %s, snapshot %s is back, which was dropped", kind, r.ID.Short()))
		}
	}
	for r := range before.Snapshots() {
		if _, ok := after.Snapshot(r.ID); !ok {
			x.dropped[r.ID] = true
		}
	}
}

// allReplicas are those of a volume, whether they are in its view or not.
func allReplicas(v *state.Volume) []state.Placement {
	all := v.Elsewhere()
	for _, m := range v.View.Replicas {
		all = append(all, state.Placement{Replica: m.ID, Node: m.Node, Disk: m.Disk})
	}
	return all
}

// mayMake verifies that a replica that is made on a disk is one that Raft waits for.
func (x *identities) mayMake(id block.ReplicaID) {
	if v, ok := x.world.truth.state.VolumeOf(id); len(x.world.volumes) > 0 && (!ok || !v.IsPending(id) && !v.Deleting && v.View.Member(id) != nil) {
		x.world.fail("identity", fmt.Sprintf("replica %s is made, and Raft does not wait for it", x.world.replicaName(id)))
	}
}

// mayDelete verifies that a replica that is deleted has its tombstone in Raft.
func (x *identities) mayDelete(id block.ReplicaID) {
	if v, ok := x.world.truth.state.VolumeOf(id); !ok || !v.Deleting && !v.IsRetired(id) {
		x.world.fail("identity", fmt.Sprintf("replica %s is deleted without a tombstone", x.world.replicaName(id)))
	}
}

// deleted verifies that a replica which is about to be reported gone is not on its disk.
func (x *identities) deleted(n *node, id block.ReplicaID) {
	if _, err := n.storage.store.Replica(id); err == nil {
		x.world.fail("identity", fmt.Sprintf("replica %s is to be forgotten, and is on the disk of %v", x.world.replicaName(id), n))
	}
}

// forbidden says why a request that comes to a replica must not be granted; empty if
// it may be. A replica that Raft does not know is served to nobody once the agent of
// its node has seen that; of two disks with one ID, neither is.
func (x *identities) forbidden(c *conn, req *block.Request) string {
	n := c.to
	switch {
	case n == nil || n.process == nil:
		return ""
	case n.twinned == n.process:
		return "its disk is there twice"
	case req.Op != block.OpOpen || n.agent == nil || n.agent.looked == nil:
		return ""
	}
	_, known := x.world.truth.state.VolumeOf(c.replica)
	if _, seen := n.agent.looked.VolumeOf(c.replica); known || seen {
		return ""
	}
	return "the cluster does not know it"
}

// twinDisk is a copy of a disk in service.
type twinDisk struct{ servedDisk }

// Replicas implements server.Disk.
func (d *twinDisk) Replicas() []server.Replica {
	var list []server.Replica
	for _, r := range d.store.Replicas() {
		list = append(list, r)
	}
	return list
}

// strayCommand sends Raft what nobody should send: a report of a replica that was not
// deleted, or a volume with the ID of a replica that exists, as a machine whose random
// numbers repeat would draw.
func strayCommand(w *World) bool {
	if w.options.Scripted {
		return false
	}
	v := w.volumes[w.loop.rng.IntN(len(w.volumes))]
	replicas := w.truth.view(v.id).Replicas
	id := replicas[w.loop.rng.IntN(len(replicas))].ID
	var c state.Command = state.ReplicaGone{Replica: id}
	if w.loop.chance(50) {
		n := w.nodes[w.loop.rng.IntN(w.options.Shape.Disks)]
		c = state.CreateVolume{Volume: block.VolumeID{ID: w.loop.id()}, Name: "stray", Size: briefSize,
			Parameters: state.Parameters{Replicas: 1, MinInSync: 1}, DecidedAt: w.truth.state.Index(),
			Replicas: []state.Placement{{Replica: id, Node: n.id, Disk: n.storage.id}}}
	}
	r := w.truth.apply(c)
	w.loop.log("raft: stray %s: %v", c.Kind(), r.Err)
	if r.Err == nil {
		w.fail("identity", fmt.Sprintf("stray %s for replica %s is taken", c.Kind(), w.replicaName(id)))
	}
	return true
}
