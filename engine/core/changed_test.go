package core

import (
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
	if got := s.chunks(0, 32*mib); got != 1<<4|1<<5 {
		t.Errorf("region 0 differs in chunks %x", got)
	}
	s.logged.Add(1)
	if got := s.chunks(1, 17*mib); got != 1 {
		t.Errorf("of a logged region of one chunk differ %x", got)
	}
	for r := range int64(changedRegionsMax) {
		s.add(block.Span{Offset: (r + 2) * block.RegionSize, Length: 1})
	}
	if _, known := s.extents(4); known || len(s.regions) > 0 {
		t.Error("more is remembered than there is room for")
	}
}
