package core

import (
	"math/bits"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// leaving is a volume whose second member has gone, 'a' written before and 'w' at
// 3 MiB after. Its own log names the region only if logged is set.
func leaving(t testing.TB, logged bool) *script {
	t.Helper()
	s := beginServing(t, scene{members: "A B", size: 16 * mib})
	s.write(1, 'a', 0, 4*kib)
	s.settle()
	if !logged {
		s.await("A: flush", time.Minute)
		s.settle()
		if !s.replica("B").log.Empty() {
			t.Fatalf("B logs %v", s.replica("B").log)
		}
	}
	s.lose("B")
	s.silent = bit(1)
	s.settle()
	s.write(2, 'w', 3*mib, 4*kib)
	s.settle()
	s.expectAmong("lost B: unavailable", "done 2")
	s.silent = 0
	s.wake("B")
	s.pass(10 * time.Second)
	return s
}

// Who missed a write and nothing else is given that, and nothing is compared.
func TestResyncOfWhatWasWrittenMeanwhile(t *testing.T) {
	s := leaving(t, false)
	s.settle()
	s.expectAmong("resync B 1M", "A: read 3M+64K resync", "admitted B, 64K copied")
	if got := s.content("B", 3*mib, 4*kib); got != "'w'" {
		t.Errorf("B has %s", got)
	}
}

// A region in the log of who comes back may lack what was acknowledged: it is
// compared as a whole.
func TestResyncOfALoggedRegionCompares(t *testing.T) {
	s := leaving(t, true)
	s.settle()
	s.expectAmong("resync B 16M", "A: hash 0+1M", "A: hash 3M+1M", "admitted B, 64K copied")
}

func TestChangesRemember(t *testing.T) {
	s := changes{kept: true}
	s.add(block.Span{Offset: 5*mib - 4*kib, Length: 8 * kib})
	s.add(block.Span{Offset: 16 * mib, Length: 1})
	for _, want := range []struct {
		chunk   int64
		extents uint16
	}{{3, 0}, {4, 1 << 15}, {5, 1}, {6, 0}, {16, 1}, {17, 0}, {32, 0}} {
		if got, known := s.extents(want.chunk); got != want.extents || !known {
			t.Errorf("chunk %d: extents %x, known %v; want %x", want.chunk, got, known, want.extents)
		}
	}
	if got := s.regions[0].differ(); got != 1<<4|1<<5 {
		t.Errorf("region 0 differs in chunks %x", got)
	}
	for r := range int64(changedRegionsMax) {
		s.add(block.Span{Offset: (r + 2) * block.RegionSize, Length: 1})
	}
	if _, known := s.extents(4); known || len(s.regions) > 0 {
		t.Error("more is remembered than there is room for")
	}
}

// TestPlan: of the regions that a target misses, it is compared where something may have
// changed, in those that its logs have named as a whole, and in the others not at all.
func TestPlan(t *testing.T) {
	c := &Core{view: block.View{Size: 65 * mib}, peers: []peer{{target: &target{missing: block.RegionsOf(0, 1, 3, 4)}}}}
	p := &c.peers[0]
	p.changed.kept = true
	p.changed.add(block.Span{Offset: 17 * mib, Length: 2 * mib}) // of region 1
	p.changed.add(block.Span{Offset: 33 * mib, Length: mib})     // of one that it has
	p.changed.add(block.Span{Offset: 50 * mib, Length: mib})     // of one that was logged
	p.changed.logged = block.RegionsOf(2, 3, 4)
	expect := func(want map[block.Region]uint16, compared ...block.Region) {
		t.Helper()
		c.planResync(0)
		n := 0
		for r := range block.Region(6) {
			if got := p.target.todo.in(r); got != want[r] {
				t.Errorf("of region %d chunks %x are compared, want %x", r, got, want[r])
			}
			n += bits.OnesCount16(want[r])
		}
		if p.target.todo.count != n || !slices.Equal(p.target.compared, block.RegionsOf(compared...)) {
			t.Errorf("%d chunks are compared, want %d; regions %v are not", p.target.todo.count, n, p.target.compared)
		}
	}
	expect(map[block.Region]uint16{1: 6, 3: allChunks, 4: 1}, 0)
	p.changed = changes{}
	expect(map[block.Region]uint16{0: allChunks, 1: allChunks, 3: allChunks, 4: 1})
}
