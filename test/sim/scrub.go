package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// scrubs begins walks through the volume of an engine for as long as it lives, from
// anywhere and at any rate, as a node does that goes on with those of others; most only
// through a part in which clients write. Some are called off.
func (w *World) scrubs(h *host) {
	if w.options.Scripted {
		return
	}
	w.loop.after(h.process, w.loop.between(0, second), func() {
		if h.stopped || w.ending {
			return
		}
		if !h.core.Status().Scrub.Active || w.loop.chance(30) {
			h.scrub(w.drawScrub(h))
		}
		w.scrubs(h)
	})
}

func (w *World) drawScrub(h *host) *core.Scrub {
	if w.loop.chance(10) {
		return nil
	}
	asked := &core.Scrub{Rate: [...]int64{0, 8, 64}[w.loop.rng.IntN(3)] << 20}
	switch a := h.volume.areas[w.loop.rng.IntN(len(h.volume.areas))]; {
	case w.loop.chance(75):
		asked.From, asked.To = a.offset, a.offset+a.length
	case w.loop.chance(50):
		asked.From = w.loop.rng.Int64N(h.volume.size)
	}
	asked.Covered = h.volume.replicas
	return asked
}

// scrub has the host's core walk through its volume.
func (h *host) scrub(asked *core.Scrub) {
	h.world.paths.count("scrub: asked for")
	h.scrubbed = core.Scrubbed{}
	h.step(core.Event{Kind: core.EventScrub, Scrub: asked})
}

// walked notes how far a walk is.
func (h *host) walked(s core.Scrubbed) {
	h.scrubbed = s
	if s.Done {
		h.world.paths.count("scrub: done")
		h.world.loop.log("%v has scrubbed all, on %d replicas", h, len(s.Covered))
	}
}

// checkDiffer: replicas that are in sync are equal, so nobody may say that they are
// not, however many writes are under way while a scrub reads. What a crash made
// acceptable in a rotten sector is another matter, and a script may have made them so.
func (w *World) checkDiffer(h *host, n *core.Notice) {
	if n.Err != nil || w.options.Scripted {
		return
	}
	for at := n.Offset; at < n.Offset+n.Bytes; at += block.SectorSize {
		if h.volume.acceptable[uint64(at)/block.SectorSize] {
			return
		}
	}
	w.fail("scrub", fmt.Sprintf("%v says that %s differs at %d", h, w.replicaName(n.Replica), n.Offset))
}

// scrubAll verifies everything once the world is at rest: a walk ends, covers every
// member, and leaves no damage that could be repaired. The machine of the checkers' own
// tests scrubs nothing.
func (w *World) scrubAll() {
	for _, v := range w.volumes {
		if _, scrubs := v.current.core.(*core.Core); scrubs && w.violation == nil && !w.starved(v.current) {
			w.scrubVolume(v)
		}
	}
}

func (w *World) scrubVolume(v *volume) {
	// The engine may be the last to hear of its admission.
	h := v.current
	before := h.core.Status().View
	h.scrub(&core.Scrub{})
	w.await(settleMax, func() string {
		if h.stopped || h.scrubbed.Done {
			return ""
		}
		return fmt.Sprintf("%v scrubs %s, and is at %d of %d", h, v.name, h.scrubbed.Offset, before.Size)
	})
	after := w.truth.view(v.id)
	if w.violation != nil || h.stopped || before.Revision != after.Revision {
		return
	}
	ids := w.members(&after)
	// Clients may not know yet how large the volume is.
	if h.scrubbed.Offset != before.Size || len(h.scrubbed.Covered) < len(ids) {
		w.fail("scrub", fmt.Sprintf("%v ended a scrub at %d of %d, on %d of %d", h, h.scrubbed.Offset, before.Size, len(h.scrubbed.Covered), len(ids)))
		return
	}
	used := v.used()
	for offset := int64(0); offset < v.size && w.rotten && w.violation == nil; offset += block.ExtentSize {
		if used[offset] {
			w.checkRepaired(v, ids, block.SnapshotID{}, block.Span{Offset: offset, Length: min(block.ExtentSize, v.size-offset)})
		}
		for k := range after.Snapshots {
			if o := &after.Snapshots[k]; used[offset] && o.Size > offset {
				w.checkRepaired(v, ids, o.ID, block.Span{Offset: offset, Length: min(block.ExtentSize, o.Size-offset)})
			}
		}
	}
}

// checkRepaired wants each block of a span of a layer that cannot be read on one member
// to be lost on all.
func (w *World) checkRepaired(v *volume, ids []block.ReplicaID, layer block.SnapshotID, span block.Span) {
	for at := span.Offset; at < span.End(); at += block.BlockSize {
		bad, name := 0, ""
		for _, id := range ids {
			if _, err := w.readReplica(id, layer, at, min(block.BlockSize, span.End()-at)); err != nil {
				bad, name = bad+1, w.replicaName(id)
			}
		}
		if bad > 0 && bad < len(ids) {
			w.fail("scrub", fmt.Sprintf("%s: the block at %d of %s is damaged on %s after a scrub, and intact elsewhere", v.name, at, layer.Short(), name))
			return
		}
		if bad > 0 {
			w.paths.count("scrub: nobody has it intact")
		}
	}
}
