package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// shot is a snapshot that was asked for, as the service of snapshots sees it: under an
// ID of its own, of one engine.
type shot struct {
	id      block.SnapshotID
	created int64
	host    *host
	// op reads the whole volume at one moment between the call and the commit: what the
	// cut holds must be what such a read could have returned.
	op *operation
	// failed: the engine has said so, or is gone; taken: it has said that it is there.
	// committed: Raft has taken it. read: its bytes were taken from a replica.
	failed, taken, committed, read bool
	size                           int64
}

const (
	// snapshotsMax bounds the snapshots of a volume, growthsMax how often it grows.
	snapshotsMax = 4
	growthsMax   = 3
	growthStep   = 9 * block.BlockSize
)

// manage asks for snapshots of a volume, deletes some, and makes it larger.
func (w *World) manage(v *volume) {
	w.loop.after(nil, w.loop.between(100*millisecond, 700*millisecond), func() {
		w.tidy(v)
		if w.truth.quorum && !w.healed {
			switch roll := w.loop.rng.IntN(100); {
			case roll < 55:
				w.takeSnapshot(v)
			case roll < 85:
				w.deleteSnapshot(v)
			case roll < 90:
				w.grow(v)
			case w.options.Reverted:
				w.beginRevert(v)
			}
		}
		w.manage(v)
	})
}

// tidy finishes what was begun: a snapshot that nobody takes any more is taken back, and
// the engine is told of the size that Raft wants.
func (w *World) tidy(v *volume) {
	if !w.truth.quorum {
		return
	}
	for _, s := range v.shots {
		if s.committed || s.op.outcome != pending || !s.failed && !s.host.ended() {
			continue
		}
		// One that has landed, and whose commit was heard of by nobody, stays.
		if r := w.truth.apply(state.DeleteSnapshot{Snapshot: s.id, Untaken: true}); r.Err != nil {
			w.fail("raft", fmt.Sprintf("%s: take back %s: %v", v.name, s.id, r.Err))
		}
		v.history.cutEnds(s.op, unsettled, w.loop.steps)
		w.paths.count("snapshot: taken back")
		w.truth.hint(v)
	}
	vol, _ := w.truth.state.Volume(v.id)
	if h := v.current; w.healed && h != nil && h.core.Status().View.Revision < vol.View.Revision {
		w.truth.hint(v)
	}
	if h := v.current; vol.GrowTo > vol.View.Size && h != nil && !h.stopped && !h.detaching {
		h.step(core.Event{Kind: core.EventGrow, Size: vol.GrowTo})
	}
}

// ended reports that nothing more will be heard of the engine.
func (h *host) ended() bool { return h.stopped || h.process.dead }

// takeSnapshot has the engine take a snapshot.
func (w *World) takeSnapshot(v *volume) *shot {
	h := v.current
	if h == nil || h.ended() || h.process.paused || h.detaching || len(w.truth.view(v.id).Snapshots) >= snapshotsMax {
		return nil
	}
	id := block.SnapshotID{ID: w.loop.id()}
	return w.takeNamed(h, id, id.String())
}

// takeNamed reserves an ID and a name and asks an engine; nil if the name is not to be
// had.
func (w *World) takeNamed(h *host, id block.SnapshotID, name string) *shot {
	v := h.volume
	s := &shot{id: id, created: int64(len(v.shots) + 1), host: h}
	r := w.truth.apply(state.CreateSnapshot{Snapshot: s.id, Name: name, Volume: v.id, Created: s.created, DecidedAt: w.truth.index})
	if r.Err != nil || r.Snapshot.ID != id {
		w.loop.log("%s: no snapshot: %v", v.name, r.Err)
		if vol, _ := w.truth.state.Volume(v.id); vol.Reverting() {
			w.paths.count("revert: snapshot is refused")
		}
		return nil
	}
	w.operations++
	s.op = &operation{id: w.operations, kind: core.ReadRequest, epoch: h.epoch, invoked: w.loop.steps, at: w.loop.now,
		length: v.size, cut: make(map[uint64]value)}
	v.shots = append(v.shots, s)
	v.history.cutBegins(s.op)
	w.paths.count("snapshot: asked for")
	w.loop.log("%v > snapshot %s", h, s.id.Short())
	h.step(core.Event{Kind: core.EventCut, Snapshot: block.Snapshot{ID: s.id, Created: s.created}})
	return s
}

// deleteSnapshot is a command of Raft. The engine hears of it, or finds out.
func (w *World) deleteSnapshot(v *volume) {
	list := w.truth.view(v.id).Snapshots
	if len(list) == 0 {
		return
	}
	id := list[w.loop.rng.IntN(len(list))].ID
	r := w.truth.apply(state.DeleteSnapshot{Snapshot: id})
	w.loop.log("raft: %s deletes snapshot %s: %v", v.name, id.Short(), r.Err)
	if r.Err != nil {
		w.paths.count("revert: snapshot stays")
		return
	}
	w.paths.count("snapshot: deleted")
	w.truth.hint(v)
}

// grow is the intent to make the volume larger.
func (w *World) grow(v *volume) {
	if v.growths >= growthsMax {
		return
	}
	v.growths++
	vol, _ := w.truth.state.Volume(v.id)
	size := max(vol.View.Size, vol.GrowTo) + growthStep
	r := w.truth.apply(state.GrowVolume{Volume: v.id, Size: size})
	w.loop.log("raft: %s shall have %d bytes: %v", v.name, size, r.Err)
	w.paths.count("growth: asked for")
	w.tidy(v)
}

// cutEnded is what an engine says of a cut.
func (w *World) cutEnded(h *host, ef *core.Effect) {
	s := h.volume.shot(ef.Snapshot)
	w.loop.log("%v < snapshot %s: %v", h, ef.Snapshot.Short(), ef.Err)
	listed := false
	if view := w.truth.view(h.volume.id); view.Snapshot(ef.Snapshot) != nil {
		listed = true
	}
	switch {
	case s == nil:
		w.fail("snapshots", fmt.Sprintf("%v tells of a snapshot that nobody asked for", h))
	case ef.Err == nil && !s.committed:
		w.fail("snapshots", fmt.Sprintf("%v has taken a snapshot that is not committed", h))
	case ef.Err == nil:
		s.taken = true
		w.paths.count("snapshot: taken")
	case errors.Is(ef.Err, block.ErrDetached):
		s.failed = true
	case !errors.Is(ef.Err, block.ErrUnavailable) && !errors.Is(ef.Err, block.ErrConflict):
		w.fail("snapshots", fmt.Sprintf("%v: snapshot %s failed: %v", h, s.id.Short(), ef.Err))
	case listed && h == h.volume.current:
		w.fail("snapshots", fmt.Sprintf("%v has given up snapshot %s, which is committed", h, s.id.Short()))
	default:
		s.failed = true
		w.paths.count("snapshot: given up")
	}
}

func (v *volume) shot(id block.SnapshotID) *shot {
	for _, s := range v.shots {
		if s.id == id {
			return s
		}
	}
	return nil
}

// resized is what an engine says of a size: clients use what was added.
func (w *World) resized(h *host, size int64) {
	v := h.volume
	if view := w.truth.view(v.id); size > view.Size {
		w.fail("snapshots", fmt.Sprintf("%v tells of %d bytes, Raft has %d", h, size, view.Size))
	}
	if size <= v.size {
		return
	}
	w.loop.log("%v: %s has %d bytes", h, v.name, size)
	w.paths.count("growth: done")
	v.areas = append(append([]area(nil), v.areas...), area{offset: v.size, length: size - v.size})
	v.size = size
	h.client.areas = v.areas
}
