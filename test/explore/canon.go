package explore

import (
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/holdfast-io/holdfast/internal/block"
)

// canon builds the canonical form of a state: bytes that are equal for states
// from which the same can happen.
//
// Numbers that only grow are written as gaps: each class of them is sorted, and
// equal, next and later are all that is kept (doc.go). What a number becomes
// is known only at the end, so its place is left open until then.
type canon struct {
	l     *layout
	stock *stock
	buf   []byte
	open  []hole

	// The core being written.
	core   unsafe.Pointer
	engine int
	epoch  block.Epoch
	unit   block.Instant
	seeds  [2]maphash.Seed
}

// hole is a place left open for a number of a class.
type hole struct {
	class uint16
	at    uint32
	value uint64
}

// The classes of numbers that only grow.
const (
	classRevision = 0
	// classFlush is one class for each epoch.
	classFlush = 16
	// classSerial is one for each engine, classSession one for each engine and
	// replica. Of sessions only the order matters: the next is above all.
	classSerial  = 48
	classSession = 64
)

func (c *canon) byte(b byte) { c.buf = append(c.buf, b) }

func (c *canon) bool(b bool) {
	if b {
		c.buf = append(c.buf, 1)
	} else {
		c.buf = append(c.buf, 0)
	}
}

func (c *canon) raw(at unsafe.Pointer, n uintptr) {
	c.buf = append(c.buf, unsafe.Slice((*byte)(at), n)...)
}

func (c *canon) number(class int, value uint64) {
	c.open = append(c.open, hole{class: uint16(class), at: uint32(len(c.buf)), value: value})
	c.buf = append(c.buf, 0)
}

func (c *canon) revision(r block.Revision) { c.number(classRevision, uint64(r)) }

func (c *canon) flush(f block.FlushNumber) {
	c.byte(byte(f.Epoch))
	c.number(classFlush+int(f.Epoch), f.N)
}

func (c *canon) serial(n uint64) { c.number(classSerial+c.engine, n) }

// session is a number of one engine at one replica; the epoch names the engine.
func (c *canon) session(epoch block.Epoch, replica int, s block.Session) {
	c.number(classSession+int(epoch)*maxReplicas+replica, uint64(s))
}

// age is how many units of time ago something was, as far as that matters.
func (c *canon) age(t block.Instant) {
	c.byte(byte(min((c.unit-t/unit)+1, leaseUnits+marginUnits+1)))
}

// regions are written without what their length says beyond the set.
func (c *canon) regions(r block.Regions) {
	var word uint64
	if len(r) > 0 {
		word = r[0].Words[0]
	}
	c.byte(byte(word))
}

func (c *canon) buffer(b *block.Buffer) {
	if b == nil {
		c.byte(255)
		return
	}
	for at := 0; at < len(b.Data); at += block.BlockSize {
		c.byte(b.Data[at])
	}
	c.byte(254)
}

// close fills the open places in.
func (c *canon) close() {
	slices.SortFunc(c.open, func(a, b hole) int {
		if a.class != b.class {
			return int(a.class) - int(b.class)
		}
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		}
		return 0
	})
	var last hole
	var now byte
	for i, h := range c.open {
		switch {
		case (i == 0 || h.class != last.class) && h.class >= classSession:
			now = 1
		case i == 0 || h.class != last.class:
			now = byte(min(h.value, 2))
		case h.value == last.value:
		case h.value == last.value+1 || h.class >= classSession:
			now++
		default:
			now += 2
		}
		c.buf[h.at] = now
		last = h
	}
	c.open = c.open[:0]
}

// sum is the hash of the canonical form.
func (c *canon) sum() key {
	return key{maphash.Bytes(c.seeds[0], c.buf), maphash.Bytes(c.seeds[1], c.buf)}
}
