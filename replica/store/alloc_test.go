// The race detector makes sync.Pool drop what it is given at random, which
// counts as allocations.

//go:build !race

package store

import (
	"log/slog"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// TestHotPathAllocatesNothing holds overwrites, reads and flushes to no
// allocation once they have been warmed up.
func TestHotPathAllocatesNothing(t *testing.T) {
	executor := vfs.NewGoExecutor(2)
	defer executor.Close()
	dev := newRAMDevice(32 << 20)
	o := Options{Dir: pebblevfs.NewMem(), Path: "disk", Device: dev, Executor: executor, Logger: slog.New(slog.DiscardHandler)}
	s := formatRAM(t, o, dev)
	defer s.Close()
	if err := s.Create(ReplicaSpec{Replica: replicaID(1), Volume: block.VolumeID{ID: testID(2)}, Size: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 1)
	op := &Op{Done: func(*Op) { done <- struct{}{} }}
	buf := block.NewBuffer(64 << 10)
	n := uint64(0)
	run := func(kind Kind, offset int64, length int) {
		op.Kind, op.Offset, op.Length, op.Buf = kind, offset, int64(length), buf
		buf.Data = buf.Data[:length]
		if kind == Flush {
			n++
			op.FlushNumber = block.FlushNumber{Epoch: 1, N: n}
		}
		r.Submit(op)
		<-done
		if op.Err != nil {
			t.Fatal(op.Err)
		}
	}
	mix := func() {
		run(Write, 4096*7, 4096)
		run(Write, 512*9, 512)
		run(Read, 4096*7, 4096)
		run(Read, 512*9, 1024)
		run(Flush, 0, 0)
		run(Write, 65536-4096, 8192)
	}
	run(Write, 0, 64<<10)
	run(Write, 64<<10, 64<<10)
	mix()
	if allocs := testing.AllocsPerRun(200, mix); allocs >= 1 {
		t.Fatalf("%v allocations in six requests", allocs)
	}
	// The same above cuts: what the head has written since is overwritten in place.
	for n := range byte(3) {
		op.Meta = &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(n + 1), Epoch: 1}}}
		run(Update, 0, 0)
		mix()
	}
	if allocs := testing.AllocsPerRun(200, mix); allocs >= 1 {
		t.Fatalf("%v allocations in six requests above cuts", allocs)
	}
}
