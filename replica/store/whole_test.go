package store

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestWholeExtentAboveACut: an entry whose whole extent a cut holds, too, and that was
// given another one for what is written next, has that found first: else it would ask
// for more places each time, and take small ones for a whole extent.
func TestWholeExtentAboveACut(t *testing.T) {
	e := &entryState{}
	e.add(0xffff, placementOwned, 3*block.BlocksPerExtent)
	if w := e.whole(); w.extent() != 3 {
		t.Fatalf("found extent %d", w.extent())
	}
	e.add(0, placementOwned, 7*block.BlocksPerExtent)
	if w := e.whole(); w.extent() != 7 || w.mask() != 0 {
		t.Fatalf("found extent %d with mask %#x", w.extent(), w.mask())
	}
}

// TestTwoWholesEmptied trims the last blocks of both whole extents of an entry, one
// of which was left by a dropped cut, while another block is written: neither is
// lost.
func TestTwoWholesEmptied(t *testing.T) {
	for _, flush := range []bool{false, true} {
		g := newRig(t)
		r := g.create(1, testSize)
		g.write(r, 0, fill(block.ExtentSize, 1))
		g.cut(r, 1)
		for _, b := range []int64{2, 4, 6, 8, 10} {
			g.write(r, b*block.BlockSize, fill(block.BlockSize, 2))
		}
		g.dropCut(r, 1)
		for _, b := range []int64{0, 1, 3, 5, 7, 11, 12, 13, 14, 15} {
			g.zero(r, b*block.BlockSize, block.BlockSize)
		}
		g.flush(r)
		if used := r.Used(); used != 2*block.ExtentSize+4*block.BlockSize {
			t.Fatalf("%d bytes used, want two extents and four blocks", used)
		}
		ops := []*Op{writeOp(2*block.BlockSize, fill(block.BlockSize, 3)), {Kind: Zero, Offset: 9 * block.BlockSize, Length: 2 * block.BlockSize}}
		if flush {
			ops = append(ops, &Op{Kind: Flush})
		}
		for _, op := range ops {
			op.Done = func(*Op) {}
			r.Submit(op)
		}
		g.settle()
		if !flush {
			g.flush(r)
		}
		g.check()
		g.powerLoss()
		r = g.replica(1)
		g.check()
		if used := r.Used(); used != 4*block.BlockSize {
			t.Fatalf("flush %v: %d bytes used, want four blocks", flush, used)
		}
	}
}
