package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestScenarioDoubts: what was doubted once.
func TestScenarioDoubts(t *testing.T) {
	for _, sc := range []struct {
		name string
		play func(s *scene)
	}{
		{"suspect-merge", suspectMerge},
		{"suspect-read", suspectRead},
		{"suspect-merge-later", suspectMergeLater},
		{"rot-of-all", rotOfAll},
		{"slow-target", slowTarget},
	} {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 3; seed++ {
				sc.play(newScene(t, seed))
			}
		})
	}
}

// suspicious restarts all replicas under an engine that goes on, with a region in
// their logs, and lets a sector of node 0 rot while they are away.
func suspicious(s *scene) *operation {
	s.v.target = s.nodes[3]
	s.wait(second)
	s.serving()
	w := s.write(0, 2*block.BlockSize)
	s.flush()
	for i := range 3 {
		s.kill(i)
	}
	s.rot(0, 1)
	s.restart(0, 1, 2)
	return w
}

// suspectMerge: a write of a part of a block whose other part rotted while the
// checksums of its region were in doubt. Others have the block: it is theirs.
func suspectMerge(s *scene) {
	w := suspicious(s)
	s.write(0, block.SectorSize)
	s.flush()
	s.want(s.read(block.SectorSize), value(w.id))
	s.rest()
}

// suspectRead: the same block is read.
func suspectRead(s *scene) {
	w := suspicious(s)
	s.want(s.read(block.SectorSize), value(w.id))
	s.rest()
	s.want(s.read(block.SectorSize), value(w.id))
}

// suspectMergeLater: the block rots after the members were compared, in a region
// that is in use and so stays in the logs.
func suspectMergeLater(s *scene) {
	w := s.write(0, 2*block.BlockSize)
	s.flush()
	for i := range 3 {
		s.kill(i)
	}
	s.restart(0, 1, 2)
	s.wait(200 * millisecond)
	s.serving()
	s.until("the comparison of the members", func() bool { return s.v.current.core.Status().Divergent == 0 })
	s.write(8*block.BlockSize, block.BlockSize)
	s.rot(0, 1)
	s.write(0, block.SectorSize)
	s.flush()
	s.want(s.read(block.SectorSize), value(w.id))
	s.inSync(0, 1, 2)
	s.rest()
}

// rotOfAll: nobody has the other part of a block. The write of a part of it fails,
// and the members remain members.
func rotOfAll(s *scene) {
	s.write(0, 2*block.BlockSize)
	s.flush()
	s.wait(4 * second)
	for i := range 3 {
		s.rot(i, 1)
	}
	// It begins in the block that is lost and ends in another extent.
	w := s.write(0, block.ExtentSize+block.BlockSize-block.SectorSize)
	if w.outcome != succeeded {
		s.t.Fatalf("%v failed though it brings the block whole", w)
	}
	s.flush()
	for i := range 3 {
		s.rot(i, 0)
	}
	w = s.write(block.SectorSize, block.ExtentSize)
	if w.outcome == succeeded {
		s.t.Fatalf("%v succeeded though nobody has the block", w)
	}
	s.inSync(0, 1, 2)
	s.write(0, block.BlockSize)
	s.rest()
}

// resyncs reports whether a target gets writes: it holds the cuts that it lacked.
func (s *scene) resyncs() bool {
	for _, t := range s.v.current.core.Status().Targets {
		if t.Remaining > 0 {
			return true
		}
	}
	return false
}

// slowTarget: a sync target is sent writes and answers none, for less than what ends
// its session. What waits for it is bounded; what it misses is brought by the resync.
func slowTarget(s *scene) {
	s.kill(1)
	s.inSync(0, 2)
	for r := range int64(3) {
		s.write(r*block.RegionSize, block.ExtentSize)
	}
	s.restart(1)
	s.until("a target", s.resyncs)
	s.cut(0, 1, true)
	for n := range int64(600) {
		s.write(n%32*block.ExtentSize, block.SectorSize)
	}
	s.cut(0, 1, false)
	s.rest()
}
