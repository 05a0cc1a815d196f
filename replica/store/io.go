package store

import (
	"crypto/sha256"
	"errors"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// stage is what a piece's operation on the device is for.
type stage uint8

const (
	stageNone stage = iota
	// stageRead reads for Read and Hash.
	stageRead
	// stageHead and stageTail read a block of which a Write or Zero changes only
	// a part.
	stageHead
	stageTail
	// stageWrite writes the data of a Write.
	stageWrite
	// stageHeadZero and stageTailZero write a block a part of which was zeroed.
	stageHeadZero
	stageTailZero
	// stageDoubt, stageMend and stageMendSync read, write and sync for a Repair.
	stageDoubt
	stageMend
	stageMendSync
)

// submit hands p's operation on the blocks from first on to the device. They lie
// side by side there, from block at on.
func (s *Store) submit(p *piece, stage stage, kind vfs.IOKind, first int, at int64, data []byte) {
	p.stage = stage
	p.first = first
	p.io.Kind = kind
	p.io.Offset = at * block.BlockSize
	p.io.Length = int64(len(data))
	p.io.Data = data
	p.io.Err = nil
	p.io.Submitting = s.turn
	s.options.Device.Submit(&p.io)
}

// ioDone is called by the device. What needs no lock is done first.
func (s *Store) ioDone(p *piece) {
	if p.io.Err == nil {
		switch p.stage {
		case stageWrite, stageHeadZero, stageTailZero:
			p.sumWritten()
		case stageRead:
			p.sumRead()
			if p.left == 0 && p.task.op.Kind == Hash {
				p.result().Sum = sha256.Sum256(p.bounce.Data)
			}
		case stageHead, stageTail:
			p.sums[p.first] = block.Checksum(p.io.Data)
		}
	}
	t := p.io.Ending
	if !s.enter() {
		return
	}
	s.turn = t
	defer s.unlock()
	switch p.stage {
	case stageRead:
		s.readDone(p)
	case stageHead, stageTail:
		s.edgeRead(p)
	case stageWrite:
		s.writeDone(p)
	case stageHeadZero, stageTailZero:
		s.edgeWritten(p)
	case stageDoubt:
		s.doubted(p)
	case stageMend:
		s.mended(p)
	case stageMendSync:
		s.mendSynced(p)
	}
}

// sumWritten has the checksums of what was written from who sent it, if it could.
func (p *piece) sumWritten() {
	if sums := p.givenSums(); sums != nil {
		copy(p.sums[p.first:], sums)
		return
	}
	for at := 0; at < len(p.io.Data); at += block.BlockSize {
		p.sums[p.first+at/block.BlockSize] = block.Checksum(p.io.Data[at : at+block.BlockSize])
	}
}

// givenSums are those that came with what was written; nil if there are none, or if the
// blocks of the buffer are not those of the volume, so that p has its own.
func (p *piece) givenSums() []uint32 {
	if p.bounce != nil || p.task.op.Kind != Write {
		return nil
	}
	sums := p.task.op.Buf.Sums()
	if sums == nil {
		return nil
	}
	return sums[p.inBuffer(p.first*block.BlockSize)/block.BlockSize:][:len(p.io.Data)/block.BlockSize]
}

// sumRead computes the checksums of what was read and blanks the blocks that
// hold no data of this volume.
func (p *piece) sumRead() {
	for at := 0; at < len(p.io.Data); at += block.BlockSize {
		b := p.first + at/block.BlockSize
		data := p.io.Data[at : at+block.BlockSize]
		if p.state.data&(1<<b) == 0 {
			clear(data)
		} else {
			p.sums[b] = block.Checksum(data)
		}
	}
}

// dataRange bounds, in bytes of the extent, the blocks of mask.
func dataRange(mask uint16) (from, to int) {
	return bits.TrailingZeros16(mask) * block.BlockSize, (16 - bits.LeadingZeros16(mask)) * block.BlockSize
}

// inBuffer is where byte at of p's extent lies in the Op's buffer.
func (p *piece) inBuffer(at int) int64 { return p.start() + int64(at) - p.task.op.Offset }

// payload is the part of the Op's buffer that belongs to p.
func (p *piece) payload() []byte {
	at := p.inBuffer(p.from)
	return p.task.op.Buf.Data[at : at+int64(p.to-p.from)]
}

// badBlocks remembers the lowest bad block of the task.
func (s *Store) badBlocks(p *piece, bad uint16) {
	at := p.start() + int64(bits.TrailingZeros16(bad))*block.BlockSize
	if t := p.task; t.err == nil || !errors.Is(t.err, block.ErrChecksum) || at < t.bad {
		t.bad = at
	}
}

// zeroExtentSum is the SHA-256 of an extent without data.
func zeroExtentSum() [32]byte { return sha256.Sum256(make([]byte, block.ExtentSize)) }
