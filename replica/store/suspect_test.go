package store

import (
	"bytes"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestSuspectTakenDuringRead takes a suspect checksum as found, and the region out of
// the log, while another read of the same block is under way: that finds the block
// right, whatever it was when it began.
func TestSuspectTakenDuringRead(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(block.BlockSize, 1))
	g.flush(r)
	place := r.pages[0].entries[0].at(0)
	g.powerLoss()
	r = g.replica(1)
	g.device.Flip(place*block.BlockSize, 1)
	g.must(r, &Op{Kind: Hash, Length: block.ExtentSize}) // the page is in memory

	slow := &Op{Kind: Read, Length: block.BlockSize, Flags: block.FlagAcceptSuspect, Buf: block.NewBuffer(block.BlockSize), Done: func(*Op) {}}
	r.Submit(slow)
	if n := g.steps.Pending(); n != 1 {
		t.Fatalf("%d jobs of one read", n)
	}
	for _, op := range []*Op{
		{Kind: Read, Length: block.BlockSize, Flags: block.FlagAcceptSuspect, Buf: block.NewBuffer(block.BlockSize)},
		{Kind: Update, Meta: &block.Update{ClearLog: block.RegionsOf(0)}},
	} {
		op.Done = func(*Op) {}
		r.Submit(op)
		for g.steps.Pending() > 1 {
			g.steps.Step(1)
		}
		if op.Err != nil {
			t.Fatal(op.Err)
		}
	}
	if r.Log().Has(0) {
		t.Fatal("the region is in the log")
	}
	g.settle()
	if want := append([]byte{3}, fill(block.BlockSize-1, 1)...); slow.Err != nil || !bytes.Equal(slow.Buf.Data, want) {
		t.Fatalf("read that was under way: %v, %x", slow.Err, slow.Buf.Data[:8])
	}
}
