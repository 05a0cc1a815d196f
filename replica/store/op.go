// Package store keeps the replicas of one disk.
package store

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// Kind is what an Op asks of a replica in a store.
type Kind uint8

const (
	// Read fills Buf with the span's bytes, each block verified. Blocks that
	// fail are block.ErrChecksum, with Bad telling which.
	Read Kind = iota + 1
	// Write puts Buf at the span: any multiple of a sector. When Done is called,
	// killing the process cannot undo it (rule 8), and the region is durably in
	// the intent log (rule 14). With block.FlagDurable it is durable as after a Flush.
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
	// Repair gives a valid cut back blocks that fail their checksums, durably and in
	// their place. Buf must be what the cut has: other bytes are block.ErrChecksum,
	// and blocks that verify are left alone, so that nothing that can be read changes.
	Repair
	// Changed tells which extents of the span, at most 1 GiB, may differ between
	// Snapshot and the head: bit i%8 of byte i/8 of Buf stands for extent i of the
	// span. What was begun before and has not ended may be told of or not.
	Changed
)

// Op is one asynchronous operation on a replica. The submitter fills the fields
// of its kind, owns the Op again when Done is called, and may reuse it.
type Op struct {
	Kind   Kind
	Flags  block.Flags
	Offset int64
	Length int64
	// Snapshot is the cut that a Changed is about. Unless zero, it is the one instead
	// of the head that a Read or Hash is about; block.ErrNotFound if there is none. A Write or Zero of whole extents
	// gives that cut other bytes, and with it what has inherited them from it; a
	// valid cut, or one with a valid one above it, is block.ErrInvalid.
	Snapshot block.SnapshotID
	// Since, unless zero, is another cut: a Hash leaves out what the replica holds but
	// once for both (see block.Request).
	Since block.SnapshotID
	// Buf is the source of a Write and the destination of a Read or Changed. The store holds
	// no reference after Done.
	Buf *block.Buffer

	FlushNumber block.FlushNumber
	Confirmed   []block.Confirmed
	Meta        *block.Update
	NewFence    block.Fence

	// Hashes is the result of Hash.
	Hashes []block.ExtentHash
	// Next, for a Hash of a cut, is the next valid cut that may have other bytes in the
	// span; zero if there is none.
	Next block.SnapshotID
	// Bad names, for a Read that failed with block.ErrChecksum, the first block
	// that failed, by its offset in the volume.
	Bad int64
	// Err is the result, set before Done.
	Err error
	// Submitting is a turn of who submits, or nil; Submit takes it out.
	Submitting *turn.Turn
	// Ending is a turn of who calls Done, until that returns, or nil.
	Ending *turn.Turn
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
	case Changed:
		return "changes of"
	case Repair:
		return "repair"
	default:
		return fmt.Sprintf("operation %d of", uint8(k))
	}
}
