package robustness

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// checkLimit bounds the search for an order in the history of one sector.
const checkLimit = 20 * time.Second

// errLost is the finding of a check: no order of the requests explains what was
// read.
var errLost = errors.New("history is not linearizable")

// touch is what one request did to one sector: saw is what a read found there.
type touch struct {
	op  *op
	saw value
}

// check looks for an order of the requests on each sector that agrees with what
// they saw and with the times at which they ran. It fails with errLost at the first
// sector that has none, and with an excerpt of its history.
func (h *history) check() (histories int, err error) {
	sectors := h.bySector()
	numbers := make([]int64, 0, len(sectors))
	for number := range sectors {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	// Sectors that were always used together have equal histories.
	checked := map[[sha256.Size]byte]bool{}
	for _, number := range numbers {
		touches := sectors[number]
		key := fingerprint(touches)
		if checked[key] {
			continue
		}
		checked[key] = true
		if err := checkSector(touches); err != nil {
			at := firstContradiction(touches)
			const before = moment(3 * time.Second)
			return len(checked), fmt.Errorf("sector %d: %w; first contradicted by\n%s\nin\n%s",
				number, err, at.op, h.excerpt(number, at.op.from-before))
		}
	}
	return len(checked), nil
}

// bySector sorts the requests by the sectors they touched.
func (h *history) bySector() map[int64][]touch {
	h.mu.Lock()
	defer h.mu.Unlock()
	sectors := map[int64][]touch{}
	for _, o := range h.ops {
		reads := o.kind == nbd.KindRead && o.outcome == acknowledged
		if !reads && !o.mutates() {
			continue
		}
		first := o.span.Offset / block.SectorSize
		for i := range o.span.Length / block.SectorSize {
			t := touch{op: o}
			if reads {
				t.saw = o.read[i]
			}
			sectors[first+i] = append(sectors[first+i], t)
		}
	}
	return sectors
}

func fingerprint(touches []touch) [sha256.Size]byte {
	sum := sha256.New()
	var raw [24]byte
	for _, t := range touches {
		binary.LittleEndian.PutUint64(raw[:], uint64(t.op.from))
		binary.LittleEndian.PutUint64(raw[8:], uint64(t.op.client)<<32|uint64(t.op.kind))
		binary.LittleEndian.PutUint64(raw[16:], uint64(t.saw))
		sum.Write(raw[:])
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// step is what the model is given of a request.
type step struct {
	// reads: it must see v; otherwise it makes the sector v. maybe: or leaves it.
	reads, maybe bool
	v            value
}

// checkSector judges the history of one sector.
func checkSector(touches []touch) error {
	written := map[value]bool{zeroed: true}
	seen := map[value]bool{}
	for _, t := range touches {
		if t.op.mutates() {
			written[t.op.wrote] = true
		} else {
			seen[t.saw] = true
		}
	}
	for v := range seen {
		if !written[v] {
			return fmt.Errorf("value %x was read and never written there: %w", uint64(v), errLost)
		}
	}
	var operations []porcupine.Operation
	maybe := false
	for _, t := range touches {
		s := step{reads: !t.op.mutates(), v: t.saw}
		if !s.reads {
			s.v = t.op.wrote
		}
		if t.op.outcome != acknowledged {
			if s.v != zeroed && !seen[s.v] {
				// Nobody saw it: with it or without it, the rest is the same.
				continue
			}
			// What was seen has happened. Zeros are no witness of that.
			s.maybe = s.v == zeroed
			maybe = maybe || s.maybe
		}
		operations = append(operations, porcupine.Operation{
			ClientId: t.op.client, Input: s, Call: int64(t.op.from), Return: int64(t.op.to),
		})
	}
	model := plainModel
	if maybe {
		model = maybeModel
	}
	switch porcupine.CheckOperationsTimeout(model(), operations, checkLimit) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("no order was found within %v, and no proof that there is none", checkLimit)
	default:
		return errLost
	}
}

// plainModel is a register.
func plainModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return zeroed },
		Step: func(state, input, _ any) (bool, any) {
			s, _ := input.(step)
			if s.reads {
				return state == s.v, state
			}
			return true, s.v
		},
	}
}

// maybeModel is a register, some of whose writes may not happen.
func maybeModel() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{zeroed} },
		Step: func(state, input, _ any) []any {
			s, _ := input.(step)
			switch {
			case s.reads && state != s.v:
				return nil
			case s.reads:
				return []any{state}
			case s.maybe:
				return []any{state, s.v}
			default:
				return []any{s.v}
			}
		},
	}
	return model.ToModel()
}

// firstContradiction is the first read, by the time of its answer, that no order
// explains.
func firstContradiction(touches []touch) touch {
	var writes, reads []touch
	for _, t := range touches {
		if t.op.mutates() {
			writes = append(writes, t)
		} else {
			reads = append(reads, t)
		}
	}
	slices.SortStableFunc(reads, func(a, b touch) int { return int(a.op.to - b.op.to) })
	low, high := 0, len(reads)-1
	for low < high {
		middle := (low + high) / 2
		if checkSector(append(slices.Clone(writes), reads[:middle+1]...)) != nil {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return reads[low]
}
