package sim

import "slices"

// durable judges the survival of flushed data in one sector: which writes the
// sector may show after every copy lost what was not flushed. A flush that was
// acknowledged allows what the sector could show when the flush began and what
// was written since, and nothing older.
type durable struct {
	// allowed are the writes; nil stands for "never written".
	allowed []*operation
	// flushes are those not yet ended, each with what it will allow.
	flushes []*flushing
	// lost: the attachment ended by loss, and no read has told yet what is left.
	lost bool
}

type flushing struct {
	op      *operation
	allowed []*operation
}

func newDurable() durable { return durable{allowed: []*operation{nil}} }

// flushBegins notes what op, a flush or a write with force unit access, allows.
func (d *durable) flushBegins(op *operation, states []possibility) {
	f := &flushing{op: op}
	for _, s := range states {
		if !slices.Contains(f.allowed, s.write) {
			f.allowed = append(f.allowed, s.write)
		}
	}
	d.flushes = append(d.flushes, f)
}

// writeBegins adds a write to everything that may still be shown.
func (d *durable) writeBegins(op *operation, r *register) {
	d.allowed = append(d.allowed, op)
	for _, f := range d.flushes {
		f.allowed = append(f.allowed, op)
	}
	if !op.fua {
		return
	}
	// What may come after a forced write: itself, and what is open with it.
	f := &flushing{op: op, allowed: []*operation{op}}
	for i := range r.open() {
		if o := r.slots[i].op; o.writes() {
			f.allowed = append(f.allowed, o)
		}
	}
	d.flushes = append(d.flushes, f)
}

// flushEnds narrows what is allowed if op succeeded.
func (d *durable) flushEnds(op *operation) {
	for i, f := range d.flushes {
		if f.op != op {
			continue
		}
		d.flushes = append(d.flushes[:i], d.flushes[i+1:]...)
		if op.outcome == succeeded {
			d.allowed = slices.DeleteFunc(d.allowed, func(w *operation) bool {
				return !slices.Contains(f.allowed, w)
			})
		}
		return
	}
}

// reset forgets the sector's order: it shows one of the writes that the flushes
// allow. What was open is over.
func (r *register) reset() {
	r.states = r.states[:0:0]
	for _, w := range r.allowed {
		r.states = append(r.states, possibility{write: w})
	}
	r.past.reset(r.possible())
	r.used = 0
	r.slots = [64]slot{}
	r.flushes = nil
	r.lost = true
}
