package core

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

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
			if err := read(h, 2); err != nil {
				return nil
			}
			return read(h, 1)
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
