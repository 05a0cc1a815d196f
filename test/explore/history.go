package explore

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// history judges what clients see: that each block is linearizable, exactly, and
// that what was flushed survives. It is part of the state that is explored, and
// like a replica it is copied by assignment: its slices are never changed.
type history struct {
	// possible are, for each block, all states it may be in after some legal
	// order of what has happened, sorted.
	possible [maxBlocks][]possibility
	writes   [maxWrites]operation
	reads    [maxReads]operation
	flushes  [maxFlushes]operation
	// written, read, flushed count the operations that were begun.
	written, read, flushed uint8
	// allowed are the values of a block that may show after every copy lost what
	// was not flushed.
	allowed [maxBlocks]uint8
	// lost: the attachment has ended for want of memory, and nobody has served
	// since.
	lost bool
	// serving is the highest epoch that has served.
	serving block.Epoch
}

// possibility is one state of a block: its value in the lowest four bits, then a
// bit for each open write that has taken effect, then for each open read four
// bits with one more than the value it has seen.
type possibility uint32

const (
	possibleWrites = 4
	possibleReads  = possibleWrites + maxWrites
)

func (p possibility) value() value { return value(p & 15) }

func (p possibility) has(w int) bool { return p>>(possibleWrites+w)&1 == 1 }

func (p possibility) wrote(w int, v value) possibility {
	return p&^15 | possibility(v) | 1<<(possibleWrites+w)
}

func (p possibility) seen(r int) int { return int(p>>(possibleReads+4*r)) & 15 }

func (p possibility) sees(r int) possibility {
	return p | possibility(p.value()+1)<<(possibleReads+4*r)
}

type operation struct {
	state  opState
	block  uint8
	engine uint8
	// late: a newer engine had served when it was begun, so it must not succeed.
	late bool
	// allowed is, of a flush, what may show once it succeeded.
	allowed [maxBlocks]uint8
}

type opState uint8

const (
	opNone opState = iota
	opOpen
	// opUnknown is a write that failed: it may still take effect.
	opUnknown
	// opFrozen is a write that can take effect no more but may have: a newer
	// engine serves.
	opFrozen
	opEnded
	// opVoid was open when the attachment ended by a loss. Nothing is asked of it.
	opVoid
)

// effective reports whether a write may take effect from now on.
func (o *operation) effective() bool { return o.state == opOpen || o.state == opUnknown }

// valueOf is the value that a write writes.
func (h *history) valueOf(w int) value { return value(w) + firstValue }

// firstValue is that of the first write. What replicas hold at first is below.
const firstValue = 2

func newHistory(initial value) history {
	var h history
	for b := range h.possible {
		h.possible[b] = []possibility{possibility(initial)}
		h.allowed[b] = 1 << initial
	}
	return h
}

// beginWrite opens a write of a new value.
func (h *history) beginWrite(engine int, epoch block.Epoch, b int) int {
	w := int(h.written)
	h.written++
	h.writes[w] = operation{state: opOpen, block: uint8(b), engine: uint8(engine), late: h.serving > epoch}
	h.allowed[b] |= 1 << h.valueOf(w)
	for i := range h.flushes {
		if h.flushes[i].state == opOpen {
			h.flushes[i].allowed[b] |= 1 << h.valueOf(w)
		}
	}
	h.spread(b)
	return w
}

func (h *history) beginRead(engine int, epoch block.Epoch, b int) int {
	r := int(h.read)
	h.read++
	h.reads[r] = operation{state: opOpen, block: uint8(b), engine: uint8(engine), late: h.serving > epoch}
	h.spread(b)
	return r
}

func (h *history) beginFlush(engine int, epoch block.Epoch) int {
	f := int(h.flushed)
	h.flushed++
	op := operation{state: opOpen, engine: uint8(engine), late: h.serving > epoch}
	for b := range h.possible {
		for _, p := range h.possible[b] {
			op.allowed[b] |= 1 << p.value()
		}
	}
	h.flushes[f] = op
	return f
}

// spread adds what can take effect now to what is possible.
func (h *history) spread(b int) {
	list := slices.Clone(h.possible[b])
	add := func(p possibility) {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	for i := 0; i < len(list); i++ {
		p := list[i]
		for w := range h.writes {
			if o := &h.writes[w]; o.effective() && int(o.block) == b && !p.has(w) {
				add(p.wrote(w, h.valueOf(w)))
			}
		}
		for r := range h.reads {
			if o := &h.reads[r]; o.state == opOpen && int(o.block) == b && p.seen(r) == 0 {
				add(p.sees(r))
			}
		}
	}
	slices.Sort(list)
	h.possible[b] = list
}

// keep leaves the possibilities that change keeps, as it leaves them.
func (h *history) keep(b int, change func(p possibility) (possibility, bool)) bool {
	var list []possibility
	for _, p := range h.possible[b] {
		if q, ok := change(p); ok && !slices.Contains(list, q) {
			list = append(list, q)
		}
	}
	slices.Sort(list)
	h.possible[b] = list
	return len(list) > 0
}

// endWrite closes a write. One that failed may have taken effect, or may yet.
func (h *history) endWrite(w int, ok bool) error {
	op := &h.writes[w]
	if op.state == opVoid {
		return nil
	}
	if !ok {
		if op.state == opOpen {
			op.state = opUnknown
		}
		return nil
	}
	if op.late {
		return fmt.Errorf("one engine: write %d succeeded though epoch %d served when it was begun", w, h.serving)
	}
	op.state = opEnded
	mask := possibility(1) << (possibleWrites + w)
	if !h.keep(int(op.block), func(p possibility) (possibility, bool) { return p &^ mask, p&mask != 0 }) {
		return fmt.Errorf("linearizable: no order in which write %d of block %d took effect", w, op.block)
	}
	return nil
}

func (h *history) endRead(r int, ok bool, v value) error {
	op := &h.reads[r]
	if op.state == opVoid {
		return nil
	}
	op.state = opEnded
	mask := possibility(15) << (possibleReads + 4*r)
	if ok && op.late {
		return fmt.Errorf("one engine: read %d succeeded though epoch %d served when it was begun", r, h.serving)
	}
	before := h.possible[op.block]
	if !h.keep(int(op.block), func(p possibility) (possibility, bool) {
		return p &^ mask, !ok || p.seen(r) == int(v)+1
	}) {
		return fmt.Errorf("linearizable: read %d of block %d returned %d, possible are %s", r, op.block, v, values(before))
	}
	return nil
}

func (h *history) endFlush(f int, ok bool) error {
	op := &h.flushes[f]
	if op.state == opVoid {
		return nil
	}
	op.state = opEnded
	if !ok {
		return nil
	}
	if op.late {
		return fmt.Errorf("one engine: flush %d succeeded though epoch %d served when it was begun", f, h.serving)
	}
	for b := range h.allowed {
		h.allowed[b] &= op.allowed[b]
	}
	return nil
}

// serves notes that an engine serves: older engines are shut out, and what they
// had under way has either taken effect or never will.
func (h *history) serves(epoch block.Epoch, epochs func(engine int) block.Epoch) {
	h.serving = max(h.serving, epoch)
	if h.lost {
		h.forget()
	}
	for w := range h.writes {
		if op := &h.writes[w]; op.effective() && epochs(int(op.engine)) < epoch {
			op.state = opFrozen
		}
	}
}

// forget follows the end of an attachment of which every member lost its memory:
// what is left is what the flushes promised. It counts from when the next engine
// serves; until then an older one, which has yet to learn of the end, may go on
// with what it has.
func (h *history) forget() {
	h.lost = false
	for b := range h.possible {
		h.possible[b] = nil
		for v := range value(maxWrites + firstValue) {
			if h.allowed[b]>>v&1 == 1 {
				h.possible[b] = append(h.possible[b], possibility(v))
			}
		}
	}
	for _, list := range [][]operation{h.writes[:], h.reads[:], h.flushes[:]} {
		for i := range list {
			if list[i].effective() || list[i].state == opFrozen {
				list[i].state = opVoid
			}
		}
	}
}

// open reports whether a client of the engine still waits for something.
func (h *history) open(engine int) bool {
	for _, list := range [][]operation{h.writes[:], h.reads[:], h.flushes[:]} {
		for i := range list {
			if list[i].state == opOpen && int(list[i].engine) == engine {
				return true
			}
		}
	}
	return false
}

func values(list []possibility) string {
	var seen []value
	for _, p := range list {
		if !slices.Contains(seen, p.value()) {
			seen = append(seen, p.value())
		}
	}
	return fmt.Sprint(seen)
}

// Tags name the operations towards a core.
func tagOf(kind core.RequestKind, i int) uint64 { return uint64(kind)<<8 | uint64(i) }

// completed judges the end of a request.
func (h *history) completed(tag uint64, err error, buf *block.Buffer) error {
	i, ok := int(tag&255), err == nil
	switch core.RequestKind(tag >> 8) {
	case core.ReadRequest:
		var v value
		if buf != nil {
			v = buf.Data[0]
		}
		return h.endRead(i, ok, v)
	case core.WriteRequest:
		return h.endWrite(i, ok)
	default:
		return h.endFlush(i, ok)
	}
}

// append adds the canonical form.
func (h *history) append(c *canon) {
	for b := range h.possible {
		for _, p := range h.possible[b] {
			c.buf = append(c.buf, byte(p), byte(p>>8), byte(p>>16), byte(p>>24))
		}
		c.byte(255)
		c.byte(h.allowed[b])
	}
	for _, list := range [][]operation{h.writes[:h.written], h.reads[:h.read], h.flushes[:h.flushed]} {
		for i := range list {
			op := &list[i]
			c.byte(byte(op.state))
			c.byte(op.block)
			if op.effective() || op.state == opFrozen {
				c.byte(op.engine)
				c.bool(op.late)
				c.byte(op.allowed[0])
				c.byte(op.allowed[1])
			}
		}
		c.byte(252)
	}
	c.byte(byte(h.serving))
	c.bool(h.lost)
}
