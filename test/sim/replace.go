package sim

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// replacesMax bounds the replicas of a volume that are replaced.
const replacesMax = 4

// replaces moves replicas of a volume from disk to disk, and gives some moves up. What is
// begun when everything is healed is finished.
func (w *World) replaces(v *volume) {
	w.loop.after(nil, w.loop.between(100*millisecond, 800*millisecond), func() {
		vol, _ := w.truth.state.Volume(v.id)
		switch {
		case w.healed || !w.truth.quorum:
		case len(vol.Replacing) > 0 && w.loop.chance(4):
			w.abandon(v, vol.Replacing[0].New.Replica)
		case len(vol.Replacing) == 0 && w.loop.chance(50):
			w.replace(v)
		}
		w.retire(v)
		w.replaces(v)
	})
}

// replace begins to move a replica of a volume to a disk that has none, if there is one.
func (w *World) replace(v *volume) {
	vol, _ := w.truth.state.Volume(v.id)
	if len(v.replicas) >= vol.Parameters.Replicas+replacesMax {
		return
	}
	var free []*node
	for _, n := range w.nodes[:w.options.Shape.Disks] {
		if !slices.ContainsFunc(vol.View.Replicas, func(m block.Member) bool { return m.Node == n.id }) {
			free = append(free, n)
		}
	}
	if len(free) == 0 {
		return
	}
	w.replaceBy(v, vol.View.Replicas[w.loop.rng.IntN(len(vol.View.Replicas))].ID, free[w.loop.rng.IntN(len(free))])
}

// replaceBy begins to move a replica of a volume to the disk of a node.
func (w *World) replaceBy(v *volume, old block.ReplicaID, n *node) block.ReplicaID {
	next := block.ReplicaID{ID: w.loop.id()}
	v.replicas = append(v.replicas, next)
	r := w.truth.apply(state.ReplaceReplica{
		Volume: v.id, Old: old, New: state.Placement{Replica: next, Node: n.id, Disk: n.storage.id}, DecidedAt: w.truth.state.Index(),
	})
	w.loop.log("raft: %s shall take the place of %s on %v: %v", w.replicaName(next), w.replicaName(old), n, r.Err)
	w.paths.count("replacement: begun")
	return next
}

// abandon gives up a replica that was to take the place of another.
func (w *World) abandon(v *volume, next block.ReplicaID) {
	r := w.truth.apply(state.AbandonReplacement{Volume: v.id, Replica: next})
	w.loop.log("raft: %s is given up: %v", w.replicaName(next), r.Err)
	if r.Err == nil {
		w.paths.count("replacement: given up")
	}
	w.truth.hint(v)
}

// retire tells the engine what Raft wants to leave, as its host does.
func (w *World) retire(v *volume) {
	vol, _ := w.truth.state.Volume(v.id)
	r, leaves := vol.Retiring()
	h := v.current
	if h == nil || h.ended() {
		return
	}
	if !h.process.paused && !h.detaching && (leaves || w.loop.chance(20)) {
		h.step(core.Event{Kind: core.EventRetire, Replica: r.Old, Successor: r.New.Replica})
	}
	if !h.stopped && h.core.Status().View.Revision < vol.View.Revision {
		w.truth.hint(v)
	}
}

// replaced verifies that a commit which lets a replica go for the sake of another leaves
// as many in sync as there were before the other one came: nobody who is well is missed.
func (w *World) replaced(p *block.Proposal, was *state.State, after *block.View) {
	before, _ := was.Volume(p.Volume)
	for i := range before.View.Replicas {
		m := &before.View.Replicas[i]
		if after.Member(m.ID) != nil {
			continue
		}
		w.paths.count("replacement: done")
		r := before.ReplacementOf(m.ID)
		if r == nil {
			w.fail("replacements", fmt.Sprintf("replica %s is gone, and nothing takes its place", w.replicaName(m.ID)))
			continue
		}
		if next := after.Member(r.New.Replica); next == nil || !next.InSync {
			w.fail("replacements", fmt.Sprintf("replica %s is gone, and %s, which takes its place, is not in sync", w.replicaName(m.ID), w.replicaName(r.New.Replica)))
		}
	}
}
