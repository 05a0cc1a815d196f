package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// reversion is the revert of a volume by the engine of a host, as the engine's own shell
// runs it. What it writes is in the history like a client's writes, but for the values,
// which are those of the snapshot.
type reversion struct {
	host     *host
	snapshot block.SnapshotID
	run      *core.Revert
	// open are the requests under way, each with the operations that it stands for.
	open map[uint64][]*operation
	// failed is why it ended early; told that Raft has the end.
	failed error
	told   bool
}

// revertTag tells the requests of a reversion from a client's.
const revertTag = 1 << 63

// revert begins to make the volume of a host what a snapshot was.
func (w *World) revert(h *host, snapshot block.SnapshotID) *reversion {
	run, err := core.NewRevert(&h.view, snapshot)
	if err != nil {
		w.fail("reverts", fmt.Sprintf("%v cannot begin: %v", h, err))
		return nil
	}
	x := &reversion{host: h, snapshot: snapshot, run: run, open: make(map[uint64][]*operation)}
	h.revert = x
	w.paths.count("revert: begins")
	x.carryOn()
	return x
}

// carryOn asks for whatever can be asked for.
func (x *reversion) carryOn() {
	h := x.host
	for q, more := x.run.Next(); more; q, more = x.run.Next() {
		x.open[q.Tag] = x.record(&q)
		q.Tag |= revertTag
		h.step(core.Event{Kind: core.EventRequest, Request: q})
	}
	over, err := x.run.Ended()
	switch {
	case !over || x.told || x.failed != nil:
	case err != nil:
		x.failed = err
		h.world.loop.log("%v: the revert ends: %v", h, err)
	default:
		x.tell()
	}
}

// record notes what a request does to the volume.
func (x *reversion) record(q *core.Request) (list []*operation) {
	add := func(kind core.RequestKind, offset, length int64, as value) {
		w := x.host.world
		w.operations++
		op := &operation{id: w.operations, kind: kind, epoch: x.host.epoch, offset: offset, length: length, invoked: w.loop.steps, at: w.loop.now}
		if kind == core.WriteRequest {
			op.as = &as
		}
		list = append(list, op)
		x.host.volume.history.invoke(op)
	}
	switch q.Kind {
	case core.ZeroRequest:
		add(q.Kind, q.Offset, q.Length, 0)
	case core.FlushRequest:
		add(q.Kind, 0, 0, 0)
	case core.WriteRequest:
		// A run of sectors of one write is an operation.
		for from := int64(0); from < q.Length; {
			v := headerValue(q.Buf.Data[from:])
			to := from + block.SectorSize
			for to < q.Length && headerValue(q.Buf.Data[to:]) == v {
				to += block.SectorSize
			}
			add(q.Kind, q.Offset+from, to-from, v)
			from = to
		}
	}
	return list
}

// completed takes the core's answer.
func (x *reversion) completed(tag uint64, err error, buf *block.Buffer) {
	tag &^= revertTag
	o := succeeded
	if err != nil {
		o = unsettled
	}
	x.end(tag, o)
	x.run.Done(tag, err, buf)
	x.carryOn()
}

func (x *reversion) end(tag uint64, o outcome) {
	w := x.host.world
	for _, op := range x.open[tag] {
		op.ended, op.outcome = w.loop.steps, o
		w.acks.answered(x.host, op)
		x.host.volume.history.end(op)
	}
	delete(x.open, tag)
}

// abandon gives up on everything open: the engine has died.
func (x *reversion) abandon() {
	x.failed = errors.New("its engine has died")
	for tag := range uint64(core.RevertTags) {
		x.end(tag, unsettled)
	}
}

// tell tells Raft of the end, until that is known.
func (x *reversion) tell() {
	h := x.host
	w := h.world
	var result state.Result
	w.truth.command(h.node, h.process, func() {
		before, _ := w.truth.state.Volume(h.volume.id)
		result = w.truth.apply(state.EndRevert{Volume: h.volume.id, Snapshot: x.snapshot, Epoch: h.epoch})
		w.loop.log("raft: %v ends the revert: %v", h, result.Err)
		if before.Reverting() && result.Err == nil && !result.Volume.Reverting() {
			w.reverted(h, h.volume.shot(x.snapshot))
		}
	}, func(known bool) {
		switch {
		case h.ended():
		case !known:
			x.tell()
		case result.Err != nil:
			x.failed = result.Err
		default:
			x.told = true
		}
	})
}

// notReverting verifies that no command publishes a volume that is being reverted, nor
// lets what that needs go (rule 26).
func (t *truth) notReverting(before, after *state.State, kind string) {
	for _, v := range t.world.volumes {
		old, _ := before.Volume(v.id)
		now, _ := after.Volume(v.id)
		if !old.Reverting() || now.Deleting {
			continue
		}
		if !now.Published.IsZero() {
			t.world.fail("reverts", fmt.Sprintf("%s: %s publishes it, and it is being reverted", v.name, kind))
		}
		if _, there := after.Snapshot(old.Revert.To); !there {
			t.world.fail("reverts", fmt.Sprintf("%s: %s deletes the snapshot that it is being reverted to", v.name, kind))
		}
	}
}

// compareReverted verifies that every in-sync replica holds in its head what a snapshot
// held when it was committed, and zeros beyond its end.
func (w *World) compareReverted(v *volume, s *shot) {
	view := w.truth.view(v.id)
	used := v.used()
	for _, id := range w.members(&view) {
		for offset := int64(0); offset < view.Size && w.violation == nil; offset += block.ExtentSize {
			if !used[offset] || w.storeOf(id) == nil {
				continue
			}
			data, err := w.readReplica(id, block.SnapshotID{}, offset, min(block.ExtentSize, view.Size-offset))
			if err != nil {
				w.fail("reverts", fmt.Sprintf("read %s at %d: %v", w.replicaName(id), offset, err))
				return
			}
			for i := 0; i < len(data); i += block.SectorSize {
				sector := uint64(offset+int64(i)) / block.SectorSize
				got, err := sectorValue(data[i:i+block.SectorSize], v.tag, sector)
				if want := s.op.cut[sector]; err != nil || got != want {
					w.fail("reverts", fmt.Sprintf("sector %d of %s is %d after the revert, and was %d in the snapshot (%v)", sector, w.replicaName(id), got, want, err))
					return
				}
			}
		}
	}
}
