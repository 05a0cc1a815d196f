package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	flushMagic = 0x48534c46 // "FLSH"
	// flushVersion is that of the first format; the record has not changed since.
	flushVersion = 1
	// maxConfirmed bounds the confirmed flushes of a replica; one block holds them.
	maxConfirmed = 100

	flushHeaderLength = 4 + 4 + 16 + 8 + 16 + 4
	flushSumOffset    = block.BlockSize - 4
)

// flushRecord is what a replica's flush slot says.
type flushRecord struct {
	replica block.ReplicaID
	// counter orders the two blocks of a slot; the higher is newer.
	counter   uint64
	number    block.FlushNumber
	confirmed []block.Confirmed
}

// flushOffset is where the record with that counter goes. The two blocks of a
// slot take turns, so that a torn write leaves the older one intact.
func flushOffset(slot uint32, counter uint64) int64 {
	return (firstFlushBlock + 2*int64(slot) + int64(counter%2)) * block.BlockSize
}

// encode fills b, one block.
func (f *flushRecord) encode(b []byte) {
	le := binary.LittleEndian
	clear(b)
	out := le.AppendUint32(b[:0], flushMagic)
	out = le.AppendUint32(out, flushVersion)
	out = append(out, f.replica.ID[:]...)
	out = le.AppendUint64(out, f.counter)
	out = le.AppendUint64(out, uint64(f.number.Epoch))
	out = le.AppendUint64(out, f.number.N)
	out = le.AppendUint32(out, uint32(len(f.confirmed)))
	for _, c := range f.confirmed {
		out = append(out, c.Replica.ID[:]...)
		out = le.AppendUint64(out, uint64(c.Flush.Epoch))
		out = le.AppendUint64(out, c.Flush.N)
	}
	le.PutUint32(b[flushSumOffset:], block.Checksum(b[:flushSumOffset]))
}

// decodeFlush reads one block of a slot.
func decodeFlush(b []byte) (*flushRecord, error) {
	if len(b) != block.BlockSize || binary.LittleEndian.Uint32(b[flushSumOffset:]) != block.Checksum(b[:flushSumOffset]) {
		return nil, fmt.Errorf("decode flush record: checksum: %w", block.ErrCorrupt)
	}
	d := decoder{rest: b[:flushSumOffset]}
	if magic, version := d.u32(), d.u32(); magic != flushMagic {
		return nil, fmt.Errorf("decode flush record at byte 0: %w", block.ErrCorrupt)
	} else if version != flushVersion {
		return nil, versionError(version)
	}
	f := &flushRecord{}
	f.replica.ID = d.id()
	f.counter = d.u64()
	f.number = block.FlushNumber{Epoch: block.Epoch(d.u64()), N: d.u64()}
	n := d.u32()
	if n > maxConfirmed {
		return nil, fmt.Errorf("decode flush record at byte %d: %d confirmed: %w", d.at-4, n, block.ErrCorrupt)
	}
	for range n {
		var c block.Confirmed
		c.Replica.ID = d.id()
		c.Flush = block.FlushNumber{Epoch: block.Epoch(d.u64()), N: d.u64()}
		f.confirmed = append(f.confirmed, c)
	}
	return f, nil
}

// confirm records the higher of the known number and c's.
func (f *flushRecord) confirm(c block.Confirmed) (changed bool) {
	for i := range f.confirmed {
		if f.confirmed[i].Replica == c.Replica {
			if !f.confirmed[i].Flush.Less(c.Flush) {
				return false
			}
			f.confirmed[i].Flush = c.Flush
			return true
		}
	}
	f.confirmed = append(f.confirmed, c)
	return true
}
