package store

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// layersRig is a store whose replica has three cuts of which a resync writes the
// layers. Extent 0 changed between the first two.
func layersRig(t *testing.T) (*rig, *Replica) {
	t.Helper()
	g := newRig(t)
	r := g.create(1, testSize)
	g.targetCut(r, 1)
	g.write(r, 0, fill(block.ExtentSize, 1))
	g.targetCut(r, 2)
	g.targetCut(r, 3)
	g.flush(r)
	return g, r
}

func (g *rig) targetCut(r *Replica, n byte) {
	g.t.Helper()
	g.update(r, &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(n), Epoch: 1, Target: true}}})
}

func layerOp(n byte, offset int64, data []byte) *Op {
	op := writeOp(offset, data)
	op.Snapshot, op.Flags, op.Done = snapshotID(n), block.FlagResync, func(*Op) {}
	return op
}

// TestLayerWriteAboveDroppedCut writes a layer at each moment of the dropping of the
// cut below: nothing may be kept for that any more.
func TestLayerWriteAboveDroppedCut(t *testing.T) {
	for moment, more := 0, true; more; moment++ {
		g, r := layersRig(t)
		r.Submit(&Op{Kind: Update, Meta: &block.Update{DropCuts: []block.SnapshotID{snapshotID(2)}}, Done: func(*Op) {}})
		for range moment {
			if more = g.steps.Pending() > 0; more {
				g.steps.Step(0)
			}
		}
		g.must(r, layerOp(3, 0, fill(block.ExtentSize, 2)))
		g.flush(r)
		g.check()
		g.expectCut(r, 1, 0, make([]byte, block.ExtentSize))
		g.expectCut(r, 3, 0, fill(block.ExtentSize, 2))
		g.expect(r, 0, fill(block.ExtentSize, 2))
		if used := r.Used(); used != block.ExtentSize {
			t.Fatalf("moment %d: %d bytes used, want %d", moment, used, block.ExtentSize)
		}
	}
}

// TestLayerWriteOfEndingCut drops a cut, or makes it valid, while its layer is
// written: a write that ends too late changes nothing.
func TestLayerWriteOfEndingCut(t *testing.T) {
	for _, end := range []struct {
		name    string
		update  block.Update
		refused error
	}{
		{"dropped", block.Update{DropCuts: []block.SnapshotID{snapshotID(2)}}, block.ErrNotFound},
		{"valid", block.Update{ValidCuts: []block.SnapshotID{snapshotID(2)}}, block.ErrInvalid},
	} {
		t.Run(end.name, func(t *testing.T) {
			const seeds = 100
			refused := 0
			for seed := range uint64(seeds) {
				if endLayer(t, seed, end.update, end.refused) {
					refused++
				}
			}
			if refused == 0 || refused == seeds {
				t.Fatalf("%d of %d layer writes were refused", refused, seeds)
			}
		})
	}
}

// endLayer reports whether a layer write that was under way at an update was
// refused.
func endLayer(t *testing.T, seed uint64, u block.Update, refusal error) bool {
	t.Helper()
	g, r := layersRig(t)
	random := rand.New(rand.NewPCG(seed, 1))
	at, before, after := int64(0), fill(block.ExtentSize, 1), fill(block.ExtentSize, 2)
	if seed%2 == 0 {
		at, before = block.ExtentSize, make([]byte, block.ExtentSize)
	}
	write := layerOp(2, at, after)
	r.Submit(write)
	r.Submit(&Op{Kind: Update, Meta: &u, Done: func(*Op) {}})
	for n := g.steps.Pending(); n > 0; n = g.steps.Pending() {
		g.steps.Step(random.IntN(n))
	}
	g.flush(r)
	g.check()
	want := after
	refused := errors.Is(write.Err, refusal)
	if refused {
		want = before
	} else if write.Err != nil {
		t.Fatal(write.Err)
	}
	g.expectCut(r, 3, at, want)
	g.expect(r, at, want)
	return refused
}
