package vfs

import (
	"unsafe"

	"github.com/holdfast-io/holdfast/internal/turn"
)

// joinMax bounds the bytes of operations that are carried out as one.
const joinMax = 1 << 20

// ioQueue is what waits for a device, in the order of submission. Operations that
// lie one behind the other on the disk and in memory leave it joined: they are
// linked by rest, and one call does them all. That is how a long request, which its
// store cuts at its extents, becomes one again.
type ioQueue struct {
	first, last *IO
	length      int
}

func (q *ioQueue) push(io *IO) {
	if q.last == nil {
		q.first = io
	} else {
		q.last.next = io
	}
	q.last = io
	q.length++
}

func (q *ioQueue) pop() *IO {
	io := q.first
	if q.first = io.next; q.first == nil {
		q.last = nil
	}
	io.next = nil
	q.length--
	return io
}

// take removes the operation that has waited longest, with those behind it that can
// be joined to it. The queue must not be empty.
func (q *ioQueue) take() *IO {
	io := q.pop()
	if !io.transfers() || io.rest != nil {
		return io
	}
	tail, total := io, len(io.Data)
	for q.first != nil && tail.continues(q.first) && total+len(q.first.Data) <= joinMax {
		tail.rest = q.pop()
		tail = tail.rest
		total += len(tail.Data)
	}
	return io
}

// transfers reports whether data moves.
func (io *IO) transfers() bool { return io.Kind == Read || io.Kind == Write }

// continues reports whether next begins where io ends.
func (io *IO) continues(next *IO) bool {
	n := len(io.Data)
	return n > 0 && len(next.Data) > 0 && next.Kind == io.Kind && next.rest == nil &&
		next.Offset == io.Offset+int64(n) && address(next.Data) == address(io.Data)+uint64(n)
}

// joined is the memory of io and of those joined to it, and how many they are.
func (io *IO) joined() (data []byte, count int) {
	total := 0
	for ; io != nil; io = io.rest {
		if total += len(io.Data); count == 0 {
			data = io.Data
		}
		count++
	}
	if count > 1 {
		data = unsafe.Slice(unsafe.SliceData(data), total)
	}
	return data, count
}

// done calls Done for io and those joined to it, in a turn of the caller. Their owners
// may submit them again at once.
func (io *IO) done(t *turn.Turn) {
	for io != nil {
		rest := io.rest
		io.rest, io.Ending = nil, t
		io.Done(io)
		io = rest
	}
}

// address is that of b's first byte, for the kernel. Memory of Go's heap does not
// move, and the caller keeps b until the kernel is done with it.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
