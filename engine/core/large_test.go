package core

import (
	"runtime"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestLargestVolume serves 64 TiB at their far end, with a replica that comes back
// there: it takes what was written meanwhile, and is admitted. What the engine holds
// follows from what is written, not from the size.
func TestLargestVolume(t *testing.T) {
	const end = int64(block.MaxVolumeSize)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var missed block.Regions
	missed.Add(block.Region(block.RegionCount(end) - 1))
	s := beginServing(t, scene{members: "A", absent: "B", size: end, before: func(s *script) {
		s.replica("A").dirty = append(s.replica("A").dirty, block.DirtySet{Replica: replicaID(s.index("B")), Removal: 10, Regions: missed})
	}})
	t.Logf("a volume of one member: %d KiB", (heap()-before)>>10)
	s.write(1, 'w', end-4*kib, 4*kib)
	s.settle()
	s.zero(2, end-64*kib, 32*kib)
	s.flush(3)
	s.read(4, end-4*kib, 4*kib)
	s.settle()
	s.expectAmong("done 1", "done 2", "done 3", "done 4 'w'")
	s.write(5, 'x', end-4*kib, 8*kib)
	s.settle()
	s.expectAmong("done 5: invalid argument")
	s.wake("B")
	s.settle()
	t.Logf("with a target: %d KiB", (heap()-before)>>10)
	s.pass(time.Second)
	s.settle()
	if s.view.InSync() != 2 || s.content("B", end-4*kib, 4*kib) != "'w'" {
		t.Fatalf("%d in sync, B has %s", s.view.InSync(), s.content("B", end-4*kib, 4*kib))
	}
	s.cut(1)
	s.settle()
	s.expectAmong("cut S1")
	// A table with a few bytes for each of 4 Mi regions would show.
	if held := heap() - before; held > 4<<20 {
		t.Errorf("%d bytes are held for one volume", held)
	}
	runtime.KeepAlive(s)
}
