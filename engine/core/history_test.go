package core

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// history judges reads, a sector at a time. A write is open from its request to
// its end; a read may return what was open at any moment of its own time, or
// the last that had ended before. What a read has returned has happened: from
// then on nothing older may be returned (rule 13).
type history struct {
	time    int64
	sectors map[int64][]*version
	// flushedAt is when the last completed flush was asked for.
	flushedAt int64
}

// version is what one write makes of a sector.
type version struct {
	value        uint64
	engine       int
	begun, ended int64
	// dead is when it became impossible for later reads.
	dead int64
}

const forever = math.MaxInt64

func newHistory() *history { return &history{sectors: map[int64][]*version{}} }

func (h *history) tick() int64 {
	h.time++
	return h.time
}

func (h *history) versions(sector int64) []*version {
	if h.sectors[sector] == nil {
		h.sectors[sector] = []*version{{dead: forever}} // zeros
	}
	return h.sectors[sector]
}

func sectorsOf(span block.Span) func(yield func(int64) bool) {
	return func(yield func(int64) bool) {
		for s := span.Offset / block.SectorSize; s*block.SectorSize < span.End(); s++ {
			if !yield(s) {
				return
			}
		}
	}
}

// begin notes that an engine, by its number, was asked for a write.
func (h *history) begin(span block.Span, value uint64, engine int) []*version {
	var list []*version
	begun := h.tick()
	for s := range sectorsOf(span) {
		v := &version{value: value, engine: engine, begun: begun, ended: forever, dead: forever}
		h.sectors[s] = append(h.versions(s), v)
		list = append(list, v)
	}
	return list
}

// acknowledge ends a write: what had ended before it began cannot be read again.
func (h *history) acknowledge(span block.Span, list []*version) {
	now := h.tick()
	i := 0
	for s := range sectorsOf(span) {
		v := list[i]
		i++
		v.ended = min(v.ended, now)
		for _, w := range h.sectors[s] {
			if w != v && w.ended < v.begun {
				w.dead = min(w.dead, now)
			}
		}
	}
}

// settle ends the writes of engines before this one that failed or were never
// answered: the engines are fenced, and the writes have happened by now or never
// will.
func (h *history) settle(engine int) {
	now := h.tick()
	for _, list := range h.sectors {
		for _, v := range list {
			if v.engine < engine {
				v.ended = min(v.ended, now)
			}
		}
	}
}

// forget is the end of an attachment: what was not flushed may be undone, until
// the next engine serves.
func (h *history) forget() {
	for _, list := range h.sectors {
		for _, v := range list {
			if v.dead > h.flushedAt {
				v.dead = forever
			}
		}
	}
}

// read judges the bytes that a read asked for at begun has returned.
func (h *history) read(span block.Span, begun int64, data []byte) error {
	now := h.tick()
	i := 0
	for s := range sectorsOf(span) {
		sector := data[i*block.SectorSize : (i+1)*block.SectorSize]
		i++
		value := binary.LittleEndian.Uint64(sector)
		for at := 8; at < len(sector); at += 8 {
			if binary.LittleEndian.Uint64(sector[at:]) != value {
				return fmt.Errorf("sector %d is torn", s)
			}
		}
		if err := h.readSector(s, begun, now, value); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) readSector(s, begun, now int64, value uint64) error {
	var seen []*version
	for _, v := range h.versions(s) {
		if v.value == value && v.dead > begun {
			seen = append(seen, v)
		}
	}
	if len(seen) == 0 {
		return fmt.Errorf("sector %d: read %d at [%d, %d], which nobody wrote or which was overwritten: %s",
			s, value, begun, now, h.describe(s))
	}
	if len(seen) == 1 {
		seen[0].ended = min(seen[0].ended, now)
	}
	for _, v := range h.sectors[s] {
		if v.value != value && v.ended < begun {
			v.dead = min(v.dead, now)
		}
	}
	return nil
}

func (h *history) describe(s int64) string {
	text := ""
	for _, v := range h.sectors[s] {
		text += fmt.Sprintf(" %+v", *v)
	}
	return text
}

func sectorData(value uint64) []byte {
	word := binary.LittleEndian.AppendUint64(nil, value)
	return bytes.Repeat(word, block.SectorSize/8)
}

// The judge is shown to catch what it is there for.
func TestHistoryCatchesPlantedFaults(t *testing.T) {
	span := block.Span{Length: block.SectorSize}
	write := func(h *history, value uint64) { h.acknowledge(span, h.begin(span, value, 1)) }
	read := func(h *history, value uint64) error { return h.read(span, h.tick(), sectorData(value)) }

	for name, c := range map[string]struct {
		ok  bool
		run func(h *history) error
	}{
		"zeros at first":          {true, func(h *history) error { return read(h, 0) }},
		"never written":           {false, func(h *history) error { return read(h, 7) }},
		"the last write":          {true, func(h *history) error { write(h, 1); write(h, 2); return read(h, 2) }},
		"an acknowledged is lost": {false, func(h *history) error { write(h, 1); write(h, 2); return read(h, 1) }},
		"one under way":           {true, func(h *history) error { write(h, 1); h.begin(span, 2, 1); return read(h, 2) }},
		"not yet there":           {true, func(h *history) error { write(h, 1); h.begin(span, 2, 1); return read(h, 1) }},
		"goes back": {false, func(h *history) error {
			write(h, 1)
			h.begin(span, 2, 1)
			if read(h, 2) == nil {
				return read(h, 1)
			}
			return nil // not the fault that is planted
		}},
		"begun before the overwrite": {true, func(h *history) error {
			write(h, 1)
			begun := h.tick()
			write(h, 2)
			return h.read(span, begun, sectorData(1))
		}},
		"comes after a later write": {false, func(h *history) error {
			h.begin(span, 1, 1)
			h.settle(2)
			write(h, 2)
			return read(h, 1)
		}},
		"lost power before a flush": {true, func(h *history) error {
			write(h, 1)
			write(h, 2)
			h.forget()
			h.settle(2)
			return read(h, 1)
		}},
		"lost power after a flush": {false, func(h *history) error {
			write(h, 1)
			write(h, 2)
			h.flushedAt = h.tick()
			h.forget()
			h.settle(2)
			return read(h, 1)
		}},
		"torn": {false, func(h *history) error {
			data := sectorData(0)
			data[9] = 1
			return h.read(span, h.tick(), data)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.run(newHistory()); (err == nil) != c.ok {
				t.Errorf("judged %v", err)
			}
		})
	}
}
