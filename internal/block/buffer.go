package block

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// Buffer is a reference-counted piece of memory whose first byte is aligned to
// BlockSize, fit for O_DIRECT. The one that takes a reference gives it back with
// Release; the last Release returns the memory to its pool.
type Buffer struct {
	// Data is the payload; its length may be shortened by the owner.
	Data []byte

	// sums are the checksums of the blocks of Data, if it is summed.
	sums   []uint32
	summed bool

	full  []byte
	class int
	refs  atomic.Int32
}

// bufferClasses are the capacities kept in pools, in bytes.
var bufferClasses = [...]int{BlockSize, 4 * BlockSize, ExtentSize, 4 * ExtentSize, MaxTransfer}

// buffers has free buffers by class, and the memory that the next large ones are cut
// from. It is a cache without meaning, and so the one exception to "no mutable globals".
var buffers struct {
	pools [len(bufferClasses)]sync.Pool
	huge  hugeMemory
}

// NewBuffer returns a buffer of n bytes with one reference. Its content is
// undefined. n may exceed every pooled class; such a buffer is not pooled.
func NewBuffer(n int) *Buffer {
	for class, capacity := range bufferClasses {
		if n > capacity {
			continue
		}
		b, _ := buffers.pools[class].Get().(*Buffer)
		if b == nil {
			b = &Buffer{full: newBytes(capacity), sums: make([]uint32, capacity/BlockSize), class: class}
		}
		b.Data, b.summed = b.full[:n], false
		b.refs.Store(1)
		return b
	}
	b := &Buffer{full: alignedBytes(n, BlockSize), sums: make([]uint32, n/BlockSize), class: -1}
	b.Data = b.full[:n]
	b.refs.Store(1)
	return b
}

// Retain takes one more reference and returns the buffer.
func (b *Buffer) Retain() *Buffer {
	b.refs.Add(1)
	return b
}

// Release gives one reference back. A nil buffer is ignored.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	switch n := b.refs.Add(-1); {
	case n == 0 && b.class >= 0:
		buffers.pools[b.class].Put(b)
	case n < 0:
		panic("block: buffer released more often than retained")
	}
}

// Sum computes the checksums of the blocks of Data, if these are whole. Who has filled the
// buffer does it, before anybody else has a reference, and Data changes no more: so what
// is sent to several replicas and stored by them is summed once.
func (b *Buffer) Sum() {
	if b.summed || len(b.Data)%BlockSize != 0 {
		return
	}
	for i := range len(b.Data) / BlockSize {
		b.sums[i] = Checksum(b.Data[i*BlockSize : (i+1)*BlockSize])
	}
	b.summed = true
}

// Sums are the checksums of the blocks of Data, if it was summed and is whole blocks; else
// nil.
func (b *Buffer) Sums() []uint32 {
	if !b.summed || len(b.Data)%BlockSize != 0 {
		return nil
	}
	return b.sums[:len(b.Data)/BlockSize]
}

// Checksum is the checksum of the bytes that have sum, and Data behind them.
func (b *Buffer) Checksum(sum uint32) uint32 {
	sums := b.Sums()
	if sums == nil {
		return updateChecksum(sum, b.Data)
	}
	for _, s := range sums {
		sum = joinChecksum(sum, s)
	}
	return sum
}

// newBytes cuts large pieces from huge pages.
func newBytes(n int) []byte {
	if n < ExtentSize {
		return alignedBytes(n, BlockSize)
	}
	return buffers.huge.cut(n)
}

// alignedBytes returns n new bytes whose address is a multiple of alignment.
func alignedBytes(n, alignment int) []byte {
	raw := make([]byte, n+alignment)
	skip := 0
	if rest := int(uintptr(unsafe.Pointer(unsafe.SliceData(raw))) % uintptr(alignment)); rest != 0 {
		skip = alignment - rest
	}
	return raw[skip : skip+n : skip+n]
}
