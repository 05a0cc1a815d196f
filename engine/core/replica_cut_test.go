package core

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// fakeCut is a cut of a replica: its blocks are those of the head at that moment.
type fakeCut struct {
	block.Cut
	target bool
	blocks map[int64][]byte
	bad    map[int64]bool
}

func snapshotID(n byte) block.SnapshotID { return block.SnapshotID{ID: block.ID{6: n}} }

func (r *replica) cut(id block.SnapshotID) *fakeCut {
	for _, c := range r.cuts {
		if c.Snapshot == id {
			return c
		}
	}
	return nil
}

// take keeps the head as it is; one that is there stays as it is.
func (r *replica) take(id block.SnapshotID, epoch block.Epoch, target bool) {
	if c := r.cut(id); c != nil {
		c.target = c.target || target && !c.Valid
	} else {
		r.cuts = append(r.cuts, &fakeCut{
			Cut:    block.Cut{Snapshot: id, Epoch: epoch, Size: r.size, Kept: id == block.KeptHead},
			target: target, blocks: maps.Clone(r.blocks), bad: map[int64]bool{},
		})
	}
}

func (r *replica) updateCuts(u *block.Update) {
	if u.KeepHead {
		r.take(block.KeptHead, r.fence.Epoch, true)
	}
	for _, c := range u.Cuts {
		r.take(c.Snapshot, c.Epoch, c.Target)
	}
	for _, id := range u.ValidCuts {
		if c := r.cut(id); c != nil {
			c.Valid = true
		}
	}
	r.cuts = slices.DeleteFunc(r.cuts, func(c *fakeCut) bool { return slices.Contains(u.DropCuts, c.Snapshot) })
	r.size = max(r.size, u.Grow)
}

// layer carries a request on a cut out.
func (r *replica) layer(req *block.Request, rep *block.Reply) error {
	c := r.cut(req.Snapshot)
	span := req.Span()
	switch {
	case c == nil:
		return block.ErrNotFound
	case span.End() > c.Size && req.Op != block.OpChanged:
		return fmt.Errorf("range beyond the cut: %w", block.ErrInvalid)
	}
	data := make([]byte, span.Length)
	switch req.Op {
	case block.OpChanged:
		rep.Buf = r.buffers.take(block.ChangedBytes(span.Length))
		clear(rep.Buf.Data)
		for b := range blocksOf(span) {
			if !sameBlock(c.blocks[b], r.blocks[b]) {
				e := (b*block.BlockSize - span.Offset) / block.ExtentSize
				rep.Buf.Data[e/8] |= 1 << uint(e%8)
			}
		}
	case block.OpRead:
		for b := range blocksOf(span) {
			if c.bad[b] {
				return block.ErrChecksum
			}
		}
		rep.Buf = r.buffers.take(int(span.Length))
		copyBlocks(c.blocks, span, rep.Buf.Data)
	case block.OpHash:
		hashBlocks(c.blocks, c.bad, nil, span, rep)
		rep.Next = r.next(c, span)
		return r.leaveOut(req.Since, c.blocks, span, rep)
	default:
		if req.Flags&block.FlagRepair != 0 {
			return r.repair(c, span, req.Buf.Data)
		}
		if c.Valid {
			return fmt.Errorf("write to a valid cut: %w", block.ErrInvalid)
		}
		if req.Buf != nil {
			copy(data, req.Buf.Data)
		}
		r.writeLayer(c, span, data)
	}
	return nil
}

// next is the first cut above one that does not share each block of a span with it.
func (r *replica) next(c *fakeCut, span block.Span) block.SnapshotID {
	for _, higher := range r.cuts[slices.Index(r.cuts, c)+1:] {
		for b := range blocksOf(span) {
			if higher.Valid && !sameBlock(c.blocks[b], higher.blocks[b]) {
				return higher.Snapshot
			}
		}
	}
	return block.SnapshotID{}
}

// repair gives a cut back blocks that are damaged. Whoever shares them has them back.
func (r *replica) repair(c *fakeCut, span block.Span, data []byte) error {
	if !c.Valid {
		return fmt.Errorf("repair of a cut that is not valid: %w", block.ErrInvalid)
	}
	has := make([]byte, span.Length)
	copyBlocks(c.blocks, span, has)
	if !bytes.Equal(has, data) {
		return fmt.Errorf("repair with other bytes: %w", block.ErrChecksum)
	}
	for b := range blocksOf(span) {
		for _, o := range r.cuts {
			if sameBlock(o.blocks[b], c.blocks[b]) {
				delete(o.bad, b)
			}
		}
		if sameBlock(r.blocks[b], c.blocks[b]) {
			delete(r.bad, b)
		}
	}
	return nil
}

// leaveOut blanks the sums of extents that a cut shares with what was hashed.
func (r *replica) leaveOut(since block.SnapshotID, blocks map[int64][]byte, span block.Span, rep *block.Reply) error {
	if since.IsZero() {
		return nil
	}
	c := r.cut(since)
	if c == nil {
		return block.ErrNotFound
	}
	for e := range rep.Hashes {
		first := span.Offset + int64(e)*block.ExtentSize
		shared := true
		for b := range blocksOf(block.Span{Offset: first, Length: block.ExtentSize}) {
			shared = shared && sameBlock(c.blocks[b], blocks[b])
		}
		if shared {
			rep.Hashes[e] = block.ExtentHash{}
		}
	}
	return nil
}

// writeLayer gives a cut other bytes, and with it whatever inherits them from it.
func (r *replica) writeLayer(c *fakeCut, span block.Span, data []byte) {
	for g := range regionsOf(span) {
		r.log.Add(g)
	}
	above := r.cuts[slices.Index(r.cuts, c)+1:]
	for b := range blocksOf(span) {
		at := b*block.BlockSize - span.Offset
		now := slices.Clone(data[at:min(at+block.BlockSize, span.Length)])
		now = append(now, make([]byte, block.BlockSize-len(now))...)
		old := c.blocks[b]
		c.blocks[b] = now
		delete(c.bad, b)
		inherited := true
		for _, higher := range above {
			if inherited = inherited && sameBlock(higher.blocks[b], old); inherited {
				higher.blocks[b] = now
			}
		}
		if inherited && sameBlock(r.blocks[b], old) {
			if _, ok := r.undo[b]; !ok {
				r.undo[b] = old
			}
			r.blocks[b] = now
		}
	}
}

// sameBlock reports whether two layers share a block.
func sameBlock(a, b []byte) bool {
	return len(a) == 0 && len(b) == 0 || len(a) > 0 && len(b) > 0 && &a[0] == &b[0]
}

// tear gives a block of the head, and the cuts that share it and were not flushed, what
// a loss of power has left of it.
func (r *replica) tear(b int64, left []byte) {
	for _, c := range r.cuts {
		if !c.Valid && sameBlock(c.blocks[b], r.blocks[b]) {
			c.blocks[b] = left
		}
	}
	r.blocks[b] = left
}
