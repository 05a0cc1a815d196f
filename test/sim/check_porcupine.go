package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-io/holdfast/engine/core"
)

// past is what a sector's clients did, for the second judge: porcupine searches the
// whole history for an order, where register keeps every state that an order may
// lead to. They share nothing but the record.
type past struct {
	entries []entry
	// open are the writes that may still take effect, by their entries.
	open []int
	// resets are where every copy lost what was not flushed.
	resets []pastReset
	// judged counts the resets that the first judge has come to.
	judged int
	now    int64
}

// entry is a request, in the sector's own time: one tick for each mark.
type entry struct {
	op           *operation
	call, answer int64
	// until is when a write can take effect no more, because the next engine serves;
	// zero if it always can.
	until int64
}

// pastReset parts a history: what was open before it is over, and the sector shows
// one of first.
type pastReset struct {
	entry int
	at    int64
	first []value
}

// note records a mark.
func (p *past) note(m mark) {
	p.now++
	switch m.kind {
	case markInvoke:
		if m.op.kind == core.FlushRequest {
			return
		}
		p.entries = append(p.entries, entry{op: m.op, call: p.now})
		if m.op.writes() {
			p.open = append(p.open, len(p.entries)-1)
		}
	case markEnd:
		p.end(m.op)
	case markServe:
		p.open = slices.DeleteFunc(p.open, func(i int) bool {
			if p.entries[i].op.epoch >= m.epoch {
				return false
			}
			p.entries[i].until = p.now
			return true
		})
	case markReset:
		p.resets = append(p.resets, pastReset{entry: len(p.entries), at: p.now})
		p.open = p.open[:0]
	}
}

func (p *past) end(op *operation) {
	for i := len(p.entries) - 1; i >= 0; i-- {
		if e := &p.entries[i]; e.op == op {
			e.answer = p.now
			if op.writes() && op.outcome == succeeded {
				p.open = slices.DeleteFunc(p.open, func(k int) bool { return k == i })
			}
			return
		}
	}
}

// reset takes from the first judge what the sector may show after the next reset.
func (p *past) reset(first []value) {
	p.resets[p.judged].first = first
	p.judged++
}

// porcupineLimit bounds one search. A history for which it does not suffice is
// counted, and left to the first judge.
const porcupineLimit = 2 * time.Second

// judge looks for an order of what happened to a sector, from one reset to the next.
func (p *past) judge(sector uint64) porcupine.CheckResult {
	part := pastPart{sector: sector, first: []value{0}}
	from := 0
	for k := 0; ; k++ {
		to := len(p.entries)
		if part.end = math.MaxInt64; k < len(p.resets) {
			to, part.end = p.resets[k].entry, p.resets[k].at
		}
		part.entries = p.entries[from:to]
		if result := part.judge(); result != porcupine.Ok || k == p.judged {
			return result
		}
		from, part.first = to, p.resets[k].first
	}
}

// pastPart is what lies between two resets, the later one at end.
type pastPart struct {
	sector  uint64
	entries []entry
	// first is what the sector may show at the beginning.
	first []value
	end   int64
}

func (p *pastPart) judge() porcupine.CheckResult {
	seen := make(map[value]bool)
	for i := range p.entries {
		if e := &p.entries[i]; p.read(e) {
			seen[e.op.readAt(p.sector)] = true
		}
	}
	var list []porcupine.Operation
	maybe := len(p.first) > 1
	for i := range p.entries {
		if s, until, matters := p.step(&p.entries[i], seen); matters {
			maybe = maybe || s.maybe
			list = append(list, porcupine.Operation{Input: s, Call: p.entries[i].call, Return: until})
		}
	}
	model := certainRegister(p.first[0])
	if maybe {
		model = uncertainRegister(p.first)
	}
	return porcupine.CheckOperationsTimeout(model, list, porcupineLimit)
}

// step is what the model is given of an entry, and until when it happened; false if
// the rest is the same with it or without it.
func (p *pastPart) step(e *entry, seen map[value]bool) (s sectorStep, until int64, matters bool) {
	switch {
	case p.read(e):
		return sectorStep{reads: true, v: e.op.readAt(p.sector)}, e.answer, true
	case !e.op.writes():
		return s, 0, false
	}
	s.v = e.op.shown()
	until = p.end
	if e.until > 0 {
		until = min(until, e.until)
	}
	if p.succeeded(e) {
		return s, min(until, e.answer), true
	}
	// What was seen has happened. Zeros are no witness of that, nor is what two writes
	// have written.
	s.maybe = s.v == 0 || e.op.as != nil
	return s, until, s.maybe || seen[s.v]
}

func (p *pastPart) succeeded(e *entry) bool {
	return e.op.outcome == succeeded && e.answer > 0 && e.answer < p.end
}

// read reports whether the entry is a read that returned something.
func (p *pastPart) read(e *entry) bool {
	return !e.op.writes() && p.succeeded(e) && e.op.judges(p.sector)
}

// sectorStep is what the model is given of a request: a read must see v, a write
// makes the sector v, or leaves it if it may not have happened.
type sectorStep struct {
	reads, maybe bool
	v            value
}

func certainRegister(first value) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(state, input, _ any) (bool, any) {
			s, _ := input.(sectorStep)
			if s.reads {
				return state == s.v, state
			}
			return true, s.v
		},
	}
}

func uncertainRegister(first []value) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any {
			var all []any
			for _, v := range first {
				all = append(all, v)
			}
			return all
		},
		Step: func(state, input, _ any) []any {
			s, _ := input.(sectorStep)
			switch {
			case s.reads && state != s.v:
				return nil
			case s.reads:
				return []any{state}
			case s.maybe:
				return []any{state, s.v}
			}
			return []any{s.v}
		},
	}
	return model.ToModel()
}

// secondOpinions is how many sectors of a run porcupine judges.
const secondOpinions = 48

// judgeAgain has porcupine judge some sectors of each volume, drawn by the seed, and
// the one in which the first judge found something: both must say the same.
func (w *World) judgeAgain() {
	for _, v := range w.volumes {
		drawn := slices.Clone(v.history.order)
		rank := func(r *register) uint64 { return mix(w.options.Seed ^ mix(r.number)) }
		slices.SortFunc(drawn, func(a, b *register) int {
			switch x, y := rank(a), rank(b); {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		})
		for i, r := range drawn {
			if r.violated || i < secondOpinions/len(w.volumes) && !r.gaveUp {
				w.judgeSector(v, r)
			}
		}
	}
}

func (w *World) judgeSector(v *volume, r *register) {
	w.paths.count("judged by porcupine")
	result := r.past.judge(r.number)
	switch {
	case result == porcupine.Unknown:
		w.paths.count("judged by porcupine, in vain")
	case result == porcupine.Illegal && !r.violated:
		w.fail("porcupine", fmt.Sprintf("%s: porcupine finds no order in sector %d, and the simulator's own judge does", v.name,
			r.number))
	case result == porcupine.Ok && r.violated:
		w.violation.Text += "\nporcupine does not agree: it finds an order"
	}
}
