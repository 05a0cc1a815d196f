package store

import (
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestRoomBetweenOthers fills a disk on which a snapshot has split extents: what it says
// is free can be written to the last block, also where nothing was before, and is read
// after a loss of power.
func TestRoomBetweenOthers(t *testing.T) {
	g := newRig(t)
	r := g.create(1, 1<<30)
	g.device.SetCapacity(g.device.Size())
	const split = 40
	for i := range int64(split) {
		g.write(r, i*block.ExtentSize, fill(block.ExtentSize, 1))
	}
	g.flush(r)
	g.cut(r, 1)
	for i := range int64(split) {
		g.write(r, i*block.ExtentSize, fill(block.BlockSize, 2))
	}
	for i := range int64(split) / 2 {
		g.zero(r, 2*i*block.ExtentSize, block.BlockSize)
	}
	g.flush(r)
	end, err := int64(split*block.ExtentSize), error(nil)
	for {
		if err = g.do(r, writeOp(end, fill(block.BlockSize, 3))); err != nil {
			break
		}
		end += block.ExtentSize
	}
	if free := g.store.Space().Free; !errors.Is(err, block.ErrNoSpace) || free != 0 {
		t.Fatalf("a write to another extent ends with %v, and %d bytes are free", err, free)
	}
	g.flush(r)
	g.check()
	g.powerLoss()
	r = g.replica(1)
	g.check()
	for at := int64(split * block.ExtentSize); at < end; at += block.ExtentSize {
		g.expect(r, at, concat(fill(block.BlockSize, 3), make([]byte, block.ExtentSize-block.BlockSize)))
	}
	for i := range int64(split) {
		g.expectCut(r, 1, i*block.ExtentSize, fill(block.ExtentSize, 1))
	}
	g.zero(r, int64(split*block.ExtentSize), block.ExtentSize)
	g.flush(r)
	g.write(r, end, fill(block.BlockSize, 4))
	g.expect(r, end, fill(block.BlockSize, 4))
}

// TestNothingIsGivenTwice kills a process whose journal does not have the record yet that
// takes a place away from its owner: nobody else may have written to it.
func TestNothingIsGivenTwice(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(block.ExtentSize, 1))
	first := g.store.space.next - 1
	zero, other := &Op{Kind: Zero, Length: block.ExtentSize}, writeOp(block.ExtentSize, fill(block.ExtentSize, 2))
	for _, op := range []*Op{zero, other} {
		op.Done = func(*Op) {}
		r.Submit(op)
		g.store.space.next = first
	}
	if g.steps.Pending() != 2 {
		t.Fatalf("%d jobs are pending, want the record of the zeroing and the data of the write", g.steps.Pending())
	}
	g.steps.Step(1)
	g.kill()
	g.expect(g.replica(1), 0, fill(block.ExtentSize, 1))
	g.check()
}
