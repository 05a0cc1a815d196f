package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// takeCuts takes n cuts and flushes.
func takeCuts(b *testing.B, r *Replica, first, n int) {
	b.Helper()
	for i := range n {
		u := &block.Update{Cuts: []block.CutRequest{{Snapshot: manyName(first + i), Epoch: 1}}}
		if err := wait(r, &Op{Kind: Update, Meta: u}); err != nil {
			b.Fatal(err)
		}
	}
	if err := wait(r, &Op{Kind: Flush}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCut takes cuts of a full replica, one after the other.
func BenchmarkCut(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		r, n := benchStore(b, onDisk, true), 0
		load(b, r, 1, func(op *Op) {
			buf, done := op.Buf, op.Done
			*op = Op{Kind: Update, Buf: buf, Done: done, Meta: &block.Update{Cuts: []block.CutRequest{{Snapshot: manyName(n), Epoch: 1}}}}
			if n++; n > 1 {
				op.Meta.DropCuts = []block.SnapshotID{manyName(n - 2)}
			}
		})
	})
}

// BenchmarkCutOfSize takes cuts of replicas that were written at their end and keep a
// dirty set of everything. Clients wait for it, so its time must not follow the size.
func BenchmarkCutOfSize(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int64
	}{{"1GiB", 1 << 30}, {"1TiB", 1 << 40}, {"64TiB", block.MaxVolumeSize}} {
		b.Run(size.name, func(b *testing.B) {
			s := benchStore(b, false, false).store
			if err := s.Create(ReplicaSpec{Replica: replicaID(2), Volume: block.VolumeID{ID: testID(3)}, Size: size.bytes}); err != nil {
				b.Fatal(err)
			}
			r, err := s.Replica(replicaID(2))
			if err != nil {
				b.Fatal(err)
			}
			must := func(op *Op) {
				if err := wait(r, op); err != nil {
					b.Fatal(err)
				}
			}
			must(writeOp(size.bytes-block.ExtentSize, fill(block.ExtentSize, 1)))
			must(&Op{Kind: Update, Meta: &block.Update{SetDirty: []block.DirtySet{{Replica: replicaID(3), Removal: 7, Regions: block.AllRegions(size.bytes)}}}})
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				must(&Op{Kind: Update, Meta: &block.Update{Cuts: []block.CutRequest{{Snapshot: manyName(n), Epoch: 1}}}})
				b.StopTimer()
				must(&Op{Kind: Update, Meta: &block.Update{DropCuts: []block.SnapshotID{manyName(n)}}})
				awaitPruned(s)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkFirstWriteAfterCut4K writes blocks that a cut has, each for the first
// time; when all are written, another cut is taken and the one before dropped.
func BenchmarkFirstWriteAfterCut4K(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		r := benchStore(b, onDisk, true)
		takeCuts(b, r, 0, 1)
		// A twentieth of the blocks, so that what is dropped has room.
		const blocks = benchSize / block.BlockSize / 20
		n, cut := 0, 1
		load(b, r, 16, func(op *Op) {
			if n++; n%blocks == 0 {
				buf, done := op.Buf, op.Done
				*op = Op{Kind: Update, Buf: buf, Done: done, Meta: &block.Update{
					Cuts:     []block.CutRequest{{Snapshot: manyName(cut), Epoch: 1}},
					DropCuts: []block.SnapshotID{manyName(cut - 1)},
				}}
				cut++
				return
			}
			op.Kind, op.Length, op.Meta = Write, block.BlockSize, nil
			op.Offset = int64(n%blocks) * 20 * block.BlockSize
			op.Buf.Data = op.Buf.Data[:block.BlockSize]
		})
	})
}

// BenchmarkReadCuts4K reads the head at random with 1 cut and with 1,000, each of
// which changed something, and a map that does not fit the cache.
func BenchmarkReadCuts4K(b *testing.B) {
	for _, cuts := range []int{1, 1000} {
		b.Run(fmt.Sprint(cuts), func(b *testing.B) {
			r := benchStore(b, false, true)
			r.store.options.CacheSize = 4 * pageBytes
			random := rand.New(rand.NewPCG(1, 3))
			for n := range cuts {
				takeCuts(b, r, n, 1)
				for range 4000 / cuts {
					at := random.Int64N(benchSize/block.BlockSize) * block.BlockSize
					if err := wait(r, writeOp(at, fill(block.BlockSize, byte(n)))); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := wait(r, &Op{Kind: Flush}); err != nil {
				b.Fatal(err)
			}
			load(b, r, 16, random4K(Read))
		})
	}
}

// BenchmarkDropCut drops cuts with 100 changed blocks each, and waits until what
// they held is free.
func BenchmarkDropCut(b *testing.B) {
	r := benchStore(b, false, true)
	random := rand.New(rand.NewPCG(1, 3))
	b.ReportAllocs()
	for n := range b.N {
		b.StopTimer()
		takeCuts(b, r, n, 1)
		for range 100 {
			at := random.Int64N(benchSize/block.ExtentSize/4) * 4 * block.ExtentSize
			if err := wait(r, writeOp(at, fill(block.BlockSize, byte(n)))); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if err := wait(r, &Op{Kind: Update, Meta: &block.Update{DropCuts: []block.SnapshotID{manyName(n)}}}); err != nil {
			b.Fatal(err)
		}
		awaitPruned(r.store)
	}
}
