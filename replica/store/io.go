package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
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
)

// submit hands p's operation on [from, from+len(data)) of its extent to the
// device.
func (s *Store) submit(p *piece, stage stage, kind vfs.IOKind, from int, data []byte) {
	p.stage = stage
	p.io.Kind = kind
	p.io.Offset = int64(p.entry().extent)*block.ExtentSize + int64(from)
	p.io.Length = int64(len(data))
	p.io.Data = data
	p.io.Err = nil
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
			if p.task.op.Kind == Hash {
				p.result().Sum = sha256.Sum256(p.bounce.Data)
			}
		case stageHead, stageTail:
			p.sums[p.ioBlock()] = checksum(p.io.Data)
		}
	}
	s.mu.Lock()
	if s.abandoned {
		s.mu.Unlock()
		return
	}
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
	}
}

// ioBlock is the first block of the extent that p's operation touches.
func (p *piece) ioBlock() int {
	return int(p.io.Offset % block.ExtentSize / block.BlockSize)
}

func (p *piece) sumWritten() {
	first := p.ioBlock()
	for at := 0; at < len(p.io.Data); at += block.BlockSize {
		p.sums[first+at/block.BlockSize] = checksum(p.io.Data[at : at+block.BlockSize])
	}
}

// sumRead computes the checksums of what was read and blanks the blocks that
// hold no data of this volume.
func (p *piece) sumRead() {
	first := p.ioBlock()
	for at := 0; at < len(p.io.Data); at += block.BlockSize {
		b := first + at/block.BlockSize
		data := p.io.Data[at : at+block.BlockSize]
		if p.state.data&(1<<b) == 0 {
			clear(data)
		} else {
			p.sums[b] = checksum(data)
		}
	}
}

// dataRange bounds, in bytes of the extent, the blocks of mask.
func dataRange(mask uint16) (from, to int) {
	return bits.TrailingZeros16(mask) * block.BlockSize, (16 - bits.LeadingZeros16(mask)) * block.BlockSize
}

// startRead reads the blocks of the piece that have data. It reads into the
// caller's buffer where the piece is made of whole blocks.
func (s *Store) startRead(p *piece) {
	out := p.payload()
	present := p.state.data & p.mask
	if present == 0 {
		clear(out)
		s.pieceDone(p, nil)
		return
	}
	from, to := dataRange(present)
	if from < p.from || to > p.to || p.task.op.Offset%block.BlockSize != 0 {
		p.bounce = block.NewBuffer(to - from)
		s.submit(p, stageRead, vfs.Read, from, p.bounce.Data)
		return
	}
	clear(out[:from-p.from])
	clear(out[to-p.from:])
	s.submit(p, stageRead, vfs.Read, from, out[from-p.from:to-p.from])
}

// payload is the part of the Op's buffer that belongs to p.
func (p *piece) payload() []byte {
	at := p.start() + int64(p.from) - p.task.op.Offset
	return p.task.op.Buf.Data[at : at+int64(p.to-p.from)]
}

func (s *Store) readDone(p *piece) {
	t := p.task
	if t.op.Kind == Hash {
		s.hashDone(p)
		return
	}
	if p.io.Err != nil {
		clear(p.payload())
		s.pieceDone(p, p.io.Err)
		return
	}
	bad := p.mismatches()
	if bad != 0 {
		p.acceptSuspect(&bad)
	}
	if bad != 0 {
		s.badBlocks(p, bad)
		clear(p.payload())
		s.pieceDone(p, fmt.Errorf("block at %d: %w", t.bad, block.ErrChecksum))
		return
	}
	if p.bounce != nil {
		p.copyOut()
	}
	s.pieceDone(p, nil)
}

// copyOut moves what was read to the caller's buffer.
func (p *piece) copyOut() {
	out := p.payload()
	clear(out)
	from := p.ioBlock() * block.BlockSize
	if from >= p.from {
		copy(out[from-p.from:], p.bounce.Data)
	} else {
		copy(out, p.bounce.Data[p.from-from:])
	}
}

// mismatches are the blocks that p read whose checksums are not those of the
// map.
func (p *piece) mismatches() (bad uint16) {
	first := p.ioBlock()
	for b := first; b < first+len(p.io.Data)/block.BlockSize; b++ {
		if p.state.data&(1<<b) != 0 && p.sums[b] != p.state.sums[b] {
			bad |= 1 << b
		}
	}
	return bad
}

// acceptSuspect takes the checksums of the bad blocks as found, if the Op allows
// it and they lie in the unflushed set of a reopened store.
func (p *piece) acceptSuspect(bad *uint16) {
	if p.task.op.Flags&block.FlagAcceptSuspect == 0 || !p.page.replica.suspect.Has(p.region()) {
		return
	}
	e := p.entry()
	for b := range block.BlocksPerExtent {
		if *bad&(1<<b) != 0 {
			e.sums[b] = p.sums[b]
		}
	}
	markStale(p.page, e)
	*bad = 0
}

// badBlocks remembers the lowest bad block of the task.
func (s *Store) badBlocks(p *piece, bad uint16) {
	at := p.start() + int64(bits.TrailingZeros16(bad))*block.BlockSize
	if t := p.task; t.err == nil || !errors.Is(t.err, block.ErrChecksum) || at < t.bad {
		t.bad = at
	}
}

// startHash reads a whole extent.
func (s *Store) startHash(p *piece) {
	if p.state.data == 0 {
		p.result().Sum = s.zeroSum
		s.pieceDone(p, nil)
		return
	}
	p.bounce = block.NewBuffer(block.ExtentSize)
	from, to := dataRange(p.state.data)
	clear(p.bounce.Data[:from])
	clear(p.bounce.Data[to:])
	s.submit(p, stageRead, vfs.Read, from, p.bounce.Data[from:to])
}

// result is the place of p's extent in the results of a Hash.
func (p *piece) result() *block.ExtentHash {
	return &p.task.op.Hashes[(p.start()-p.task.op.Offset)/block.ExtentSize]
}

func (s *Store) hashDone(p *piece) {
	if p.io.Err != nil {
		s.pieceDone(p, p.io.Err)
		return
	}
	bad := p.mismatches()
	if p.page.replica.suspect.Has(p.region()) {
		p.result().Suspect = bad
	} else {
		p.result().Bad = bad
	}
	s.pieceDone(p, nil)
}

// startWrite begins with reading the blocks of which the piece writes only a
// part, then writes.
func (s *Store) startWrite(p *piece) {
	if p.from%block.BlockSize == 0 && p.to%block.BlockSize == 0 && p.task.op.Offset%block.BlockSize == 0 {
		s.submit(p, stageWrite, vfs.Write, p.from, p.payload())
		return
	}
	from := p.from &^ (block.BlockSize - 1)
	to := (p.to + block.BlockSize - 1) &^ (block.BlockSize - 1)
	p.bounce = block.NewBuffer(to - from)
	s.writeEdges(p, stageHead)
}

// writeEdges goes on with the edge blocks of a Write from the given stage.
func (s *Store) writeEdges(p *piece, from stage) {
	base := p.from &^ (block.BlockSize - 1)
	if from == stageHead && p.from%block.BlockSize != 0 {
		if s.readEdge(p, stageHead, base, p.bounce.Data[:block.BlockSize]) {
			return
		}
	}
	last := p.to &^ (block.BlockSize - 1)
	if p.to%block.BlockSize != 0 && (last != base || p.from%block.BlockSize == 0) && from <= stageTail {
		if s.readEdge(p, stageTail, last, p.bounce.Data[last-base:]) {
			return
		}
	}
	copy(p.bounce.Data[p.from-base:], p.payload())
	s.submit(p, stageWrite, vfs.Write, base, p.bounce.Data)
}

// readEdge reads the block at byte at of the extent into data; a block without
// data is zeros, and then it reports false.
func (s *Store) readEdge(p *piece, stage stage, at int, data []byte) bool {
	if p.state.data&(1<<(at/block.BlockSize)) == 0 {
		clear(data)
		return false
	}
	s.submit(p, stage, vfs.Read, at, data)
	return true
}

// edgeRead goes on after a partially changed block was read. A block that does
// not match its checksum must not be hidden under a new one.
func (s *Store) edgeRead(p *piece) {
	err := p.io.Err
	if b := p.ioBlock(); err == nil && p.sums[b] != p.state.sums[b] {
		s.badBlocks(p, 1<<b)
		err = fmt.Errorf("block at %d: %w", p.task.bad, block.ErrChecksum)
	}
	switch {
	case err != nil:
		s.pieceDone(p, err)
	case p.task.op.Kind == Zero:
		s.writeZeroEdge(p)
	case p.stage == stageHead:
		s.writeEdges(p, stageTail)
	default:
		s.writeEdges(p, stageWrite)
	}
}

func (s *Store) writeDone(p *piece) {
	if p.io.Err != nil {
		s.writeFailed(p)
		return
	}
	e := p.entry()
	p.storeSums(e)
	if e.data|p.mask != e.data {
		e.data |= p.mask
		s.endJournaled(p)
		return
	}
	s.touched(p)
	s.pieceDone(p, nil)
}

// storeSums makes the checksums of what p wrote those of the map.
func (p *piece) storeSums(e *entry) {
	first := p.ioBlock()
	for b := first; b < first+len(p.io.Data)/block.BlockSize; b++ {
		e.sums[b] = p.sums[b]
	}
	markStale(p.page, e)
}

// touched notes that p's region has data that no sync covers.
func (s *Store) touched(p *piece) {
	r := p.page.replica
	if !r.hasUnsynced {
		r.hasUnsynced = true
		s.unsynced = append(s.unsynced, r)
	}
	r.unsynced.Add(p.region())
}

// endJournaled ends a piece that changed extent or data of its entry.
//
// Rule 8 (having a write): the data is with the operating system already; the
// metadata that names it goes to the journal by write(2), and only then is the write
// answered. So killing the process undoes nothing that was answered.
func (s *Store) endJournaled(p *piece) {
	s.touched(p)
	s.change(p.page, p.index)
	s.record(p)
	if len(s.changed) >= s.options.MaxChanged {
		s.startRound()
	}
}

// writeFailed ends a piece whose write failed. The blocks may now be old, new or
// mixed by sector.
func (s *Store) writeFailed(p *piece) {
	if p.state.data&p.mask != 0 {
		p.page.replica.suspect.Add(p.region())
	}
	if !errors.Is(p.io.Err, block.ErrNoSpace) {
		s.fail(p.io.Err)
	}
	s.pieceDone(p, p.io.Err)
}

// startZero begins a zeroing.
//
// Rule 12 (zeroes): the range reads as zeros, partial blocks at its edges included,
// which are zeroed by writing them; whole blocks leave the map, and what is in no
// map reads as zeros (sumRead), whatever their extent holds. Trims and zeroings are
// the same request, mirrored like writes.
func (s *Store) startZero(p *piece) {
	s.zeroEdges(p, stageHead)
}

func (s *Store) zeroEdges(p *piece, from stage) {
	head := p.from &^ (block.BlockSize - 1)
	if from == stageHead && p.from%block.BlockSize != 0 && s.readZeroEdge(p, stageHead, head) {
		return
	}
	tail := p.to &^ (block.BlockSize - 1)
	if p.to%block.BlockSize != 0 && (tail != head || p.from%block.BlockSize == 0) && from <= stageTail {
		if s.readZeroEdge(p, stageTail, tail) {
			return
		}
	}
	e := p.entry()
	if cleared := e.data & insideMask(p.from, p.to); cleared != 0 {
		e.data &^= cleared
		s.endJournaled(p)
		return
	}
	s.pieceDone(p, nil)
}

func (s *Store) readZeroEdge(p *piece, stage stage, at int) bool {
	if p.bounce == nil {
		p.bounce = block.NewBuffer(block.BlockSize)
	}
	return s.readEdge(p, stage, at, p.bounce.Data)
}

// writeZeroEdge blanks the part of the block just read that p covers.
func (s *Store) writeZeroEdge(p *piece) {
	at := p.ioBlock() * block.BlockSize
	from, to := max(p.from-at, 0), min(p.to-at, block.BlockSize)
	clear(p.bounce.Data[from:to])
	next := stageHeadZero
	if p.stage == stageTail {
		next = stageTailZero
	}
	s.submit(p, next, vfs.Write, at, p.bounce.Data)
}

func (s *Store) edgeWritten(p *piece) {
	if p.io.Err != nil {
		s.writeFailed(p)
		return
	}
	p.storeSums(p.entry())
	s.touched(p)
	if p.stage == stageHeadZero {
		s.zeroEdges(p, stageTail)
		return
	}
	s.zeroEdges(p, stageWrite)
}

// zeroExtentSum is the SHA-256 of an extent without data.
func zeroExtentSum() [32]byte { return sha256.Sum256(make([]byte, block.ExtentSize)) }
