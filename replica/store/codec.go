package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// decoder reads the fixed-width little-endian fields of a value. It remembers
// the first read past the end, so that callers check once.
type decoder struct {
	rest  []byte
	at    int
	short bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.short = true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	d.at += n
	return b
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) id() (id block.ID) {
	copy(id[:], d.take(len(id)))
	return id
}

// bool accepts 0 and 1 only, so that each value has one encoding.
func (d *decoder) bool() bool {
	b := d.u8()
	if b > 1 {
		d.short = true
	}
	return b == 1
}

// end reports the error of the whole value: a field that was missing, or bytes
// that are left over.
func (d *decoder) end(what string) error {
	if d.short || len(d.rest) != 0 {
		return fmt.Errorf("decode %s at byte %d: %w", what, d.at, block.ErrCorrupt)
	}
	return nil
}

func appendIncarnation(b []byte, inc block.Incarnation) []byte {
	b = append(b, inc.Boot[:]...)
	b = binary.LittleEndian.AppendUint64(b, inc.DiskSequence)
	return binary.LittleEndian.AppendUint64(b, inc.Superblock)
}

func (d *decoder) incarnation() block.Incarnation {
	return block.Incarnation{Boot: d.id(), DiskSequence: d.u64(), Superblock: d.u64()}
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
