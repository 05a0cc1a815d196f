package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// outcome is how an operation ended.
type outcome uint8

const (
	pending outcome = iota
	succeeded
	// unsettled: it failed, or its engine died; a write may have taken effect.
	unsettled
)

// operation is one client request as its client saw it.
type operation struct {
	id      uint64
	kind    core.RequestKind
	fua     bool
	epoch   block.Epoch
	offset  int64
	length  int64
	outcome outcome
	// invoked and ended are steps of the loop; at the instant of invocation.
	invoked int
	ended   int
	at      block.Instant
	// as is what a write writes if that is what an older one has written before.
	as *value
	// read is what a read found, sector by sector.
	read []value
	// cut is what a snapshot was found to hold, of the sectors that could be judged: a
	// snapshot is a read of the whole volume. nil for all else.
	cut map[uint64]value
}

// writes reports whether the operation changes bytes.
func (o *operation) writes() bool {
	return o.kind == core.WriteRequest || o.kind == core.ZeroRequest
}

// shown is what a sector holds after the write: zero for a zeroing.
func (o *operation) shown() value {
	switch {
	case o.kind == core.ZeroRequest:
		return 0
	case o.as != nil:
		return *o.as
	}
	return value(o.id)
}

// judges reports whether the read has found anything in a sector.
func (o *operation) judges(sector uint64) bool {
	_, known := o.cut[sector]
	return o.cut == nil || known
}

// readAt is what the read found in a sector.
func (o *operation) readAt(sector uint64) value {
	if o.cut != nil {
		return o.cut[sector]
	}
	return o.read[sector-uint64(o.offset)/block.SectorSize]
}

func (o *operation) String() string {
	name := [...]string{core.ReadRequest: "read", core.WriteRequest: "write", core.ZeroRequest: "zero",
		core.FlushRequest: "flush"}[o.kind]
	return fmt.Sprintf("%s %d (epoch %d, steps %d to %d, [%d,+%d))", name, o.id, o.epoch, o.invoked, o.ended,
		o.offset, o.length)
}

// markKind is what happened to a sector.
type markKind uint8

const (
	markInvoke markKind = iota
	markEnd
	markServe
	markReset
)

// mark is one entry of a sector's history, in the order of the run.
type mark struct {
	kind  markKind
	op    *operation
	epoch block.Epoch
	step  int
}

// history is what the clients of one volume saw, sector by sector. A sector's
// marks are judged in order, each as soon as nothing unknown stands before it.
type history struct {
	volume  uint64
	sectors map[uint64]*register
	// order lists the sectors as they were first touched, so that a walk over
	// them is the same in each run of a seed.
	order   []*register
	flushes []*operation
	// cuts are the snapshots that are being taken.
	cuts []*operation
	// unjudged: nothing is known of it any more.
	unjudged bool
	fail     func(checker, text string)
}

func newHistory(volume uint64, fail func(checker, text string)) *history {
	return &history{volume: volume, sectors: make(map[uint64]*register), fail: fail}
}

// invoke records that a client sent op.
func (h *history) invoke(op *operation) {
	if op.kind == core.FlushRequest {
		h.flushes = append(h.flushes, op)
		h.everywhere(mark{kind: markInvoke, op: op, step: op.invoked})
		return
	}
	h.each(op, mark{kind: markInvoke, op: op, step: op.invoked})
}

// end records op's outcome, which the caller has set.
func (h *history) end(op *operation) {
	m := mark{kind: markEnd, op: op, step: op.ended}
	if op.kind != core.FlushRequest {
		h.each(op, m)
		return
	}
	for i, f := range h.flushes {
		if f == op {
			h.flushes = append(h.flushes[:i], h.flushes[i+1:]...)
			break
		}
	}
	h.everywhere(m)
}

// cutBegins records that a snapshot is asked for.
func (h *history) cutBegins(op *operation) {
	h.cuts = append(h.cuts, op)
	h.everywhere(mark{kind: markInvoke, op: op, step: op.invoked})
}

// cutEnds records that a snapshot was committed, so that what it holds is to be found
// out (pending), or that it never will be.
func (h *history) cutEnds(op *operation, o outcome, step int) {
	for i, c := range h.cuts {
		if c == op {
			h.cuts = append(h.cuts[:i:i], h.cuts[i+1:]...)
			break
		}
	}
	op.ended, op.outcome = step, o
	h.everywhere(mark{kind: markEnd, op: op, step: step})
}

// cutRead records what a committed snapshot holds, or that nobody can tell any more.
func (h *history) cutRead(op *operation, o outcome) {
	if op.outcome != pending {
		return
	}
	op.outcome = o
	for _, r := range h.order {
		r.run()
	}
}

// serve records that the engine of epoch serves from now on: no write of an
// older engine can take effect any more.
func (h *history) serve(epoch block.Epoch, step int) {
	h.everywhere(mark{kind: markServe, epoch: epoch, step: step})
}

// reset records that an attachment ended because every copy may have lost what
// was not flushed (rule 17).
func (h *history) reset(step int) { h.everywhere(mark{kind: markReset, step: step}) }

// giveUp stops judging: a fault that nobody can notice may have changed anything.
func (h *history) giveUp() {
	h.unjudged = true
	for _, r := range h.order {
		r.gaveUp = true
	}
}

// possible is what the sector may hold now; nil if no client ever touched it.
func (h *history) possible(sector uint64) []value {
	r := h.sectors[sector]
	if r == nil {
		return nil
	}
	return r.possible()
}

func (h *history) each(op *operation, m mark) {
	first := uint64(op.offset) / block.SectorSize
	for s := first; s < first+uint64(op.length)/block.SectorSize; s++ {
		r := h.sectors[s]
		if r == nil {
			r = newRegister(s, h)
			r.gaveUp = h.unjudged
			h.sectors[s] = r
			h.order = append(h.order, r)
			for _, f := range h.flushes {
				r.add(mark{kind: markInvoke, op: f, step: f.invoked})
			}
			for _, o := range h.cuts {
				r.add(mark{kind: markInvoke, op: o, step: o.invoked})
			}
		}
		r.add(m)
	}
}

func (h *history) everywhere(m mark) {
	for _, r := range h.order {
		r.add(m)
	}
}
