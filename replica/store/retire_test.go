package store

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestDeletedWithRequestsUnderWay deletes a replica of which a clone shows a cut, while it
// is written, zeroed and hashed, at random moments. What a request says that succeeds is
// true, and in the end the disk has what the clone shows and nothing else.
func TestDeletedWithRequestsUnderWay(t *testing.T) {
	const mib = 1 << 20
	succeeded := 0
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		g := newRig(t)
		r := g.create(1, 16*mib)
		g.write(r, 0, fill(256<<10, 1))
		g.cut(r, 1)
		g.flush(r)
		if err := g.store.Clone(CloneSpec{
			ReplicaSpec: ReplicaSpec{Replica: replicaID(2), Volume: block.VolumeID{ID: testID(102)}, Size: 16 * mib},
			Source:      replicaID(1), Snapshot: snapshotID(1),
		}); err != nil {
			t.Fatal(err)
		}
		g.write(r, 128<<10, fill(256<<10, 2))
		g.write(r, 3*mib, fill(256<<10, 2))
		g.cut(r, 2)
		g.flush(r)
		hash := &Op{Kind: Hash, Snapshot: snapshotID(2), Length: 4 * mib}
		g.must(r, hash)
		want := slices.Clone(hash.Hashes)

		ops := []*Op{
			{Kind: Hash, Snapshot: snapshotID(2), Length: 4 * mib},
			{Kind: Zero, Offset: 2 * mib, Length: 9 * mib},
			writeOp(0, fill(512<<10, 3)),
			writeOp(3*mib, fill(512<<10, 3)),
			{Kind: Flush},
		}
		random.Shuffle(len(ops), func(i, k int) { ops[i], ops[k] = ops[k], ops[i] })
		left := len(ops)
		for _, op := range ops {
			op.Done = func(*Op) { left-- }
			r.Submit(op)
		}
		step := func() bool {
			n := g.steps.Pending()
			if n > 0 {
				g.steps.Step(random.IntN(n))
			}
			return n > 0
		}
		for range random.IntN(40) {
			step()
		}
		if err := g.store.Delete(replicaID(1)); err != nil {
			t.Fatal(err)
		}
		for step() {
		}
		if left > 0 {
			t.Fatalf("seed %d: %d requests do not end", seed, left)
		}
		for _, op := range ops {
			if op.Kind == Hash && op.Err == nil {
				succeeded++
				if !slices.Equal(op.Hashes, want) {
					t.Fatalf("seed %d: the cut has other hashes while its replica is deleted", seed)
				}
			}
		}
		if used := g.store.Space().Used; used != 256<<10 {
			t.Fatalf("seed %d: %d KiB are used, and the clone shows 256", seed, used>>10)
		}
		g.check()
		clone := g.replica(2)
		g.expect(clone, 0, slices.Concat(fill(256<<10, 1), fill(256<<10, 0)))
		if err := g.store.Delete(replicaID(2)); err != nil {
			t.Fatal(err)
		}
		g.settle()
		if used := g.store.Space().Used; used != 0 {
			t.Fatalf("seed %d: %d KiB are used by nobody", seed, used>>10)
		}
		g.check()
	}
	t.Logf("%d hashes of a deleted replica's cut were taken", succeeded)
}
