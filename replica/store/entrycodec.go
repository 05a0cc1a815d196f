package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// entryMark is in the first byte of an entry, beside the number of placements.
	// Version 1 wrote the number alone.
	entryMark = 0x80
	// maxEntryLength is the longest encoding of an entry.
	maxEntryLength = 1 + 4 + 8*block.BlocksPerExtent + 4*block.BlocksPerExtent
)

// appendEntry encodes e.
func appendEntry(b []byte, e *entryState) []byte {
	at := len(b)
	b = append(b, entryMark)
	b = binary.LittleEndian.AppendUint32(b, e.layer)
	for p := range e.placements {
		if p.mask() != 0 {
			b = binary.LittleEndian.AppendUint64(b, uint64(p))
			b[at]++
		}
	}
	for i := range block.BlocksPerExtent {
		if e.data&(1<<i) != 0 {
			b = binary.LittleEndian.AppendUint32(b, e.sums[i])
		}
	}
	return b
}

// appendState encodes an entry that there may not be.
func appendState(b []byte, e *entryState) []byte {
	if e == nil {
		return append(b, 0)
	}
	return appendEntry(b, e)
}

// decodeEntry reads an entry of this version or of version 1.
func decodeEntry(b []byte, e *entryState) error {
	d := decoder{rest: b}
	if err := d.entry(e); err != nil {
		return err
	}
	return d.end("map entry")
}

// state reads what appendState wrote; nil if there is no entry.
func (d *decoder) state() (*entryState, error) {
	if len(d.rest) > 0 && d.rest[0] == 0 {
		d.u8()
		return nil, nil
	}
	e := new(entryState)
	return e, d.entry(e)
}

func (d *decoder) entry(e *entryState) error {
	*e = entryState{}
	n := d.u8()
	if n&entryMark == 0 {
		return d.firstEntry(e, n)
	}
	if n &^= entryMark; n > block.BlocksPerExtent {
		return fmt.Errorf("decode map entry at byte %d: %d placements: %w", d.at-1, n, block.ErrCorrupt)
	}
	if e.layer = d.u32(); e.layer == 0 && !d.short {
		return fmt.Errorf("decode map entry at byte %d: layer 0: %w", d.at-4, block.ErrCorrupt)
	}
	var list []placement
	if n > 1 {
		list = make([]placement, 0, n)
	}
	for range n {
		p := placement(d.u64())
		if d.short || !p.valid() || p.mask()&e.data != 0 {
			return fmt.Errorf("decode map entry at byte %d: placement: %w", d.at-8, block.ErrCorrupt)
		}
		if n == 1 {
			e.first, e.data = p, p.mask()
			break
		}
		list = append(list, p)
		e.data |= p.mask()
	}
	if n > 1 {
		e.set(list)
	}
	d.entrySums(e)
	return nil
}

// valid reports whether a placement may be stored.
func (p placement) valid() bool {
	const end = int64(maxExtents) * block.BlocksPerExtent
	switch {
	case p.mask() == 0 || p.flags()&^placementFlags != 0 || p.owned() && p.foreign():
		return false
	case p.base() > end-block.BlocksPerExtent:
		return false
	case !p.slot():
		return p.base()%block.BlocksPerExtent == 0 && p.base() >= firstExtent*block.BlocksPerExtent
	default:
		for a := range p.areas {
			if a.extent < firstExtent {
				return false
			}
		}
		return true
	}
}

// firstEntry reads the rest of an entry of version 1, with n placements.
func (d *decoder) firstEntry(e *entryState, n uint8) error {
	switch n {
	case 0:
	case 1:
		p := placement(d.u64())
		if p.flags() != placementOwned || !p.valid() {
			return fmt.Errorf("decode map entry at byte %d: placement: %w", d.at-8, block.ErrCorrupt)
		}
		e.layer, e.first, e.data = firstLayer, p, p.mask()
	default:
		return fmt.Errorf("decode map entry at byte %d: placements: %w", d.at-1, block.ErrCorrupt)
	}
	if d.u16() != 0 {
		return fmt.Errorf("decode map entry at byte %d: zero blocks without an older layer: %w", d.at-2, block.ErrCorrupt)
	}
	d.entrySums(e)
	return nil
}

func (d *decoder) entrySums(e *entryState) {
	for i := range block.BlocksPerExtent {
		if e.data&(1<<i) != 0 {
			e.sums[i] = d.u32()
		}
	}
}

// within reports whether all that e names lies below extent end.
func (e *entryState) within(end uint32) bool {
	for p := range e.placements {
		for a := range p.areas {
			if a.extent >= end {
				return false
			}
		}
	}
	return true
}
