// Package store keeps the replicas of one disk.
package store

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Kind is what an Op asks of a replica in a store.
type Kind uint8

const (
	// Read fills Buf with the span's bytes, each block verified. Blocks that
	// fail are block.ErrChecksum, with Bad telling which.
	Read Kind = iota + 1
	// Write puts Buf at the span: any multiple of a sector. When Done is called,
	// killing the process cannot undo it (rule 8), and the region is durably in
	// the intent log (rule 14).
	Write
	// Zero makes the span read as zeros and frees the extents it covers.
	Zero
	// Flush makes everything that was done before its submission durable, with
	// FlushNumber and Confirmed in the data file under the same sync (rule 10).
	Flush
	// Hash fills Hashes, one for each extent of the span, read and verified now.
	Hash
	// Update applies Meta in one durable step.
	Update
	// Fence stores NewFence durably; it must not be lower than the stored one.
	Fence
)

// Op is one asynchronous operation on a replica. The submitter fills the fields
// of its kind, owns the Op again when Done is called, and may reuse it.
type Op struct {
	Kind   Kind
	Flags  block.Flags
	Offset int64
	Length int64
	// Buf is the source of a Write and the destination of a Read. The store holds
	// no reference after Done.
	Buf *block.Buffer

	FlushNumber block.FlushNumber
	Confirmed   []block.Confirmed
	Meta        *block.Update
	NewFence    block.Fence

	// Hashes is the result of Hash.
	Hashes []block.ExtentHash
	// Bad names, for a Read that failed with block.ErrChecksum, the first block
	// that failed, by its offset in the volume.
	Bad int64
	// Err is the result, set before Done.
	Err error
	// Done is called once, from any goroutine, never from within Submit and with
	// no lock of the store held.
	Done func(*Op)

	// next links operations that have ended.
	next *Op
}

// String names the kind, for errors.
func (k Kind) String() string {
	switch k {
	case Read:
		return "read"
	case Write:
		return "write"
	case Zero:
		return "zero"
	case Flush:
		return "flush"
	case Hash:
		return "hash"
	case Update:
		return "update"
	case Fence:
		return "fence"
	default:
		return fmt.Sprintf("operation %d of", uint8(k))
	}
}
