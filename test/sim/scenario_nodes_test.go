package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// TestScenarioOfNodes replays what random runs meet too seldom, by name, for what
// test/canaries takes away.
func TestScenarioOfNodes(t *testing.T) {
	for _, sc := range []struct {
		name string
		play func(s *scene)
	}{
		{"late-replies", lateReplies},
		{"under-way", underWay},
	} {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 3; seed++ {
				sc.play(newScene(t, seed))
			}
		})
	}
}

// lateReplies: reads are under way when every connection ends. Their answers come
// when the next sessions have long asked for something else in the same places.
func lateReplies(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	const places = 12
	for i := range int64(places) {
		s.write(i*block.BlockSize, block.BlockSize)
	}
	s.flush()
	s.network.lingers = 100
	for _, n := range s.nodes[:3] {
		n.storage.drive.slow = 40
	}
	ask := func(from int64) {
		for i := range int64(places) {
			s.begin(core.ReadRequest, (from+i)%places*block.BlockSize, block.SectorSize)
		}
	}
	for range 5 {
		ask(0)
		s.wait(2 * millisecond)
		for i := range s.nodes[:3] {
			s.breakLinks(i)
		}
		for from := range int64(100) {
			s.wait(10 * millisecond)
			if len(s.v.current.client.order) < places {
				ask(from)
			}
		}
	}
	s.rest()
}

// underWay: a write does not get to B, which leaves for it, and comes back to the same
// engine. It is copied although nobody wrote there afterwards.
func underWay(s *scene) {
	s.write(0, block.BlockSize)
	s.flush()
	s.wait(4 * second) // nothing is left in the logs
	s.cut(0, 1, true)
	w := s.begin(core.WriteRequest, 8*block.ExtentSize, block.BlockSize)
	s.inSync(0, 2)
	s.end(w)
	s.cut(0, 1, false)
	s.rest()
}
