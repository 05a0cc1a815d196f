package store

import (
	"bytes"
	"encoding/binary"
	"flag"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

var (
	manyCuts = flag.Int("cuts", 100, "number of cuts of the test of many cuts")
	cutsSeed = flag.Uint64("cuts.seed", 1, "seed of the test of many cuts")
)

// manyName is the snapshot of one of many cuts.
func manyName(n int) block.SnapshotID {
	id := block.SnapshotID{}
	binary.BigEndian.PutUint32(id.ID[:], uint32(n+1))
	return id
}

// TestManyCuts makes many cuts of one replica, each with 100 changes of 4 KiB at
// random places, and drops them in any order meanwhile and after. What a sample of
// them reads is compared with what was written. In the end the replica takes what
// it would have taken without any cut. `make cuts` runs it with 10,000.
func TestManyCuts(t *testing.T) {
	const (
		size    = 64 << 20
		blocks  = size / block.BlockSize
		changes = 100
		// sample is how many cuts are remembered and compared.
		sample = 40
	)
	random := rand.New(rand.NewPCG(*cutsSeed, 5))
	executor := vfs.NewGoExecutor(2)
	t.Cleanup(executor.Close)
	dev := newRAMDevice(1<<30 + int64(*manyCuts)*changes*block.BlockSize)
	s := formatRAM(t, Options{
		Dir: pebblevfs.NewMem(), Path: "disk", Device: dev, Executor: executor, Logger: slog.New(slog.DiscardHandler),
	}, dev)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Create(ReplicaSpec{Replica: replicaID(1), Volume: block.VolumeID{ID: testID(2)}, Size: size}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	do := func(op *Op) {
		t.Helper()
		if err := wait(r, op); err != nil {
			t.Fatal(err)
		}
		if op.Kind == Write {
			op.Buf.Release()
		}
	}
	for at := int64(0); at < size; at += 1 << 20 {
		do(writeOp(at, fill(1<<20, 1)))
	}
	do(&Op{Kind: Flush})
	used := r.Used()
	head := make([]uint32, blocks)
	sampled := map[int][]uint32{}
	var held []int
	began := time.Now()
	drop := func() {
		i := random.IntN(len(held))
		do(&Op{Kind: Update, Meta: &block.Update{DropCuts: []block.SnapshotID{manyName(held[i])}}})
		delete(sampled, held[i])
		held[i] = held[len(held)-1]
		held = held[:len(held)-1]
	}
	for n := range *manyCuts {
		do(&Op{Kind: Update, Meta: &block.Update{Cuts: []block.CutRequest{{Snapshot: manyName(n), Epoch: 1}}}})
		held = append(held, n)
		if random.IntN(*manyCuts) < sample {
			sampled[n] = append([]uint32(nil), head...)
		}
		for i := range changes {
			b := random.IntN(blocks)
			head[b] = uint32(n*changes + i + 1)
			do(writeOp(int64(b)*block.BlockSize, manyBlock(head[b])))
		}
		if random.IntN(3) == 0 {
			drop()
		}
	}
	do(&Op{Kind: Flush})
	t.Logf("%d cuts taken, %d left, %d MiB, after %v", *manyCuts, len(held), r.Used()>>20, time.Since(began).Round(time.Millisecond))
	for n, want := range sampled {
		compareMany(t, r, manyName(n), want)
	}
	for len(held) > 0 {
		drop()
	}
	awaitPruned(s)
	do(&Op{Kind: Flush})
	t.Logf("all dropped after %v", time.Since(began).Round(time.Millisecond))
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	compareMany(t, r, block.SnapshotID{}, head)
	// What was written again lies in slots beside extents with a block left.
	if extra := r.Used() - used; extra > used {
		t.Errorf("%d bytes more than without cuts", extra)
	}
	do(&Op{Kind: Zero, Length: size})
	do(&Op{Kind: Flush})
	if r.Used() != 0 || s.Space().Used != 0 {
		t.Errorf("%d bytes used by nothing, %d on the disk", r.Used(), s.Space().Used)
	}
}

// awaitPruned waits until nothing is being freed any more.
func awaitPruned(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.jobs > 0 || s.inFlight > 0 || s.pruning != nil || len(s.deletions) > 0 {
		s.quiet.Wait()
	}
}

func manyBlock(v uint32) []byte {
	if v == 0 {
		return fill(block.BlockSize, 1)
	}
	return bytes.Repeat(binary.LittleEndian.AppendUint32(nil, v), block.BlockSize/4)
}

func compareMany(t *testing.T, r *Replica, id block.SnapshotID, want []uint32) {
	t.Helper()
	for at := int64(0); at < r.Size(); at += 1 << 20 {
		op := &Op{Kind: Read, Snapshot: id, Offset: at, Length: 1 << 20, Buf: block.NewBuffer(1 << 20)}
		if err := wait(r, op); err != nil {
			t.Fatal(err)
		}
		for i := range 1 << 20 / block.BlockSize {
			b := int(at/block.BlockSize) + i
			if !bytes.Equal(op.Buf.Data[i*block.BlockSize:(i+1)*block.BlockSize], manyBlock(want[b])) {
				t.Fatalf("snapshot %s: block %d is not write %d", id.Short(), b, want[b])
			}
		}
		op.Buf.Release()
	}
}
