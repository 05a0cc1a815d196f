package sim

import (
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// beginRevert has a volume become what one of its snapshots was: whoever has it loses it,
// and the intent is recorded. One that is under way is to go back to what was kept, or is
// taken back while nothing has begun.
func (w *World) beginRevert(v *volume) {
	vol, _ := w.truth.state.Volume(v.id)
	c := state.RevertVolume{Volume: v.id}
	switch n := len(vol.View.Snapshots); {
	case vol.RevertBegun():
		c.Snapshot = vol.Revert.Kept
	case vol.Reverting():
		w.takeBackRevert(v, vol.Revert.To)
		return
	case n > 0:
		c.Snapshot = vol.View.Snapshots[w.loop.rng.IntN(n)].ID
		if n < snapshotsMax && w.loop.chance(50) {
			c.Keep = w.loop.id().String()
		}
	}
	if s := v.shot(c.Snapshot); s == nil || !s.read {
		return
	}
	if !vol.Published.IsZero() {
		w.truth.apply(state.Unpublish{Volume: v.id, Node: vol.Published, EndAttachment: true})
	}
	r := w.truth.apply(c)
	w.loop.log("raft: %s shall be what snapshot %s was, kept as %q: %v", v.name, c.Snapshot.Short(), c.Keep, r.Err)
	if r.Err == nil && vol.Reverting() {
		w.paths.count("revert: back to what was kept")
	}
	w.truth.hint(v)
}

func (w *World) takeBackRevert(v *volume, to block.SnapshotID) {
	r := w.truth.apply(state.EndRevert{Volume: v.id, Snapshot: to, GiveUp: true})
	w.loop.log("raft: %s stays what it is: %v", v.name, r.Err)
	if r.Err == nil {
		w.paths.count("revert: taken back")
	}
}

// superviseRevert sees to a volume that is being reverted, or that a node has borrowed
// for it, as the cluster's leader and that node do: an engine without a frontend keeps
// what the volume is, another one reverts it, and each is given back.
func (w *World) superviseRevert(v *volume, vol *state.Volume) {
	h := v.current
	switch {
	case h != nil && h.borrowed && !h.ended() && h.view.Attachment == vol.View.Attachment:
		w.superviseBorrower(h)
	case vol.Borrowed():
		w.endLeftover(v, w.machine(vol.View.Owner))
	case w.loop.chance(40):
		w.ask(v, v.target, func() state.Result { return w.publish(v, v.target) }, func(r state.Result) {
			if r.Err != nil {
				w.paths.count("revert: client is refused")
			}
		})
	default:
		w.borrow(v, v.target)
	}
}

// superviseBorrower ends an engine that has done what it was begun for. Some lose the
// volume before: the leader holds their nodes for dead.
func (w *World) superviseBorrower(h *host) {
	switch {
	case h.detaching:
	case h.workDone():
		w.detach(h)
	case !w.healed && w.loop.chance(3):
		r := w.truth.apply(state.EndAttachment{Volume: h.volume.id, Attachment: h.view.Attachment})
		w.loop.log("raft: %v loses what it has borrowed: %v", h, r.Err)
		w.paths.count("revert: engine loses the volume")
		w.truth.hint(h.volume)
	}
}

// borrow asks for an engine without a frontend.
func (w *World) borrow(v *volume, n *node) {
	cmd := state.StartEngine{Volume: v.id, Node: n.id, Start: block.StartID{ID: w.loop.id()},
		NewAttachment: block.AttachmentID{ID: w.loop.id()}, Borrow: true}
	w.ask(v, n, func() state.Result { return w.assign(v, cmd) }, func(r state.Result) {
		if r.Err != nil {
			return
		}
		if h := w.launch(v, n, r.View().Clone(), workload{}); h != nil {
			h.borrowed = true
			if r.Volume.RevertBegun() {
				h.reverting = r.Volume.Revert.To
			}
		}
	})
}

// work has an engine without a frontend do what it was begun for: revert the volume to
// what Raft had as an intent when the engine was started, or keep what it is.
func (w *World) work(h *host) {
	vol, _ := w.truth.state.Volume(h.volume.id)
	switch {
	case !h.reverting.IsZero():
		w.revert(h, h.reverting)
	case vol.Reverting() && !vol.RevertBegun():
		h.keeps = w.takeNamed(h, block.SnapshotID{ID: w.loop.id()}, vol.Revert.Keep)
	}
}

// workDone reports whether nothing more will come of an engine without a frontend.
func (h *host) workDone() bool {
	switch {
	case !h.serving:
		return false
	case h.revert != nil:
		return h.revert.told || h.revert.failed != nil
	case h.keeps != nil:
		return h.keeps.committed || h.keeps.failed
	}
	return true
}

// reverted has the history verify, as Raft takes the end of a revert, that the volume is
// what the snapshot was, and zeros beyond its end, durably: to the history that is a read
// of everything, which found that, and a flush.
func (w *World) reverted(h *host, s *shot) {
	w.paths.count("revert: done")
	if s == nil || !s.read {
		return
	}
	found := make(map[uint64]value)
	for _, r := range h.volume.history.order {
		got, known := s.op.cut[r.number]
		if (known || !w.rotten) && !h.volume.acceptable[r.number] {
			// What the cut was not asked for nobody had written before.
			found[r.number] = got
		}
	}
	for _, op := range []*operation{{kind: core.ReadRequest, length: h.volume.size, cut: found}, {kind: core.FlushRequest}} {
		w.operations++
		op.id, op.epoch, op.outcome = w.operations, h.epoch, succeeded
		op.invoked, op.ended, op.at = w.loop.steps, w.loop.steps, w.loop.now
		h.volume.history.everywhere(mark{kind: markInvoke, op: op, step: op.invoked})
		h.volume.history.everywhere(mark{kind: markEnd, op: op, step: op.ended})
	}
}
