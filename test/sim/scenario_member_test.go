package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// copyDivergent: A has a write that B has not. While the repair of its chunk waits
// for an answer of A, there is time to copy the chunk to C, which would outlive A
// with A's bytes when only B is left.
func copyDivergent(s *scene) {
	const chunk = int64(block.RegionSize/block.ChunkSize) - 1 // the last of region 0 to be repaired
	offset := chunk * block.ChunkSize
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.write(offset, block.BlockSize)
	s.flush()
	s.kill(2)
	s.inSync(0, 1)
	s.wait(4 * second)
	s.cut(3, 1, true)
	s.begin(core.WriteRequest, offset, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(3)
	s.cut(3, 1, false)
	held := false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		if held || c.to.index != 0 || req.Op != block.OpHash || req.Offset != offset {
			return true
		}
		held = true
		return false
	}
	s.restart(2)
	s.until("the repair of the chunk", func() bool { return held })
	s.wait(400 * millisecond)
	s.power(0)
	s.inSync(1, 2)
	s.rest()
}

// lateAdmission: an admission is lost on its way, its outcome is settled by a
// no-op, and the replica falls behind. Then the admission arrives.
func lateAdmission(s *scene) {
	s.write(0, block.ExtentSize)
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.restart(2)
	var late func()
	s.options.Plant.effect = func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectPropose || len(ef.Proposal.Admit) == 0 || late != nil {
			return true
		}
		p := ef.Proposal
		late = func() { s.truth.propose(h, p) }
		s.loop.after(h.process, proposeTimeout, func() { h.step(core.Event{Kind: core.EventOutcome, Proposal: p}) })
		return false
	}
	s.until("a proposed admission", func() bool { return late != nil })
	s.kill(2)
	w := s.write(0, block.ExtentSize)
	late()
	s.wait(20 * millisecond)
	s.v.target = s.nodes[2]
	s.restart(2)
	s.wait(500 * millisecond)
	s.serving()
	s.want(s.read(0), value(w.id))
	s.restart(1)
	s.rest()
}

// waitForMemory: of three members two have lost their memory, and the third, which
// has not, is back a second after them. Nothing was flushed.
func waitForMemory(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	w := s.write(0, block.ExtentSize)
	s.kill(2)
	s.killEngine(3)
	s.power(0)
	s.power(1)
	s.restart(0, 1)
	s.wait(second)
	s.restart(2)
	s.wait(500 * millisecond)
	s.serving()
	s.want(s.read(0), value(w.id))
	s.rest()
}

// slowTarget: clients write faster than a target can. What waits for it is bounded.
func slowTarget(s *scene) {
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.nodes[2].storage.drive.slow = 1000
	s.restart(2)
	s.until("a target", func() bool { return s.v.current.core.Status().Targets != nil })
	for i := range int64(2 * queueMax) {
		s.write(block.RegionSize+i%32*block.BlockSize, block.BlockSize)
	}
	s.nodes[2].storage.drive.slow = 0
	s.restart(1)
	s.rest()
}

// rotOfLast: nobody has the bytes that a client reads. It is told, and others go on.
func rotOfLast(s *scene) {
	s.write(0, block.BlockSize)
	other := s.write(block.ExtentSize, block.BlockSize)
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.flush()
	s.wait(4 * second)
	s.rot(0, 1)
	if op := s.end(s.begin(core.ReadRequest, 0, block.BlockSize)); op.outcome == succeeded {
		s.t.Fatalf("%v succeeded although nobody has the block", op)
	}
	s.want(s.read(block.ExtentSize), value(other.id))
	w := s.write(0, block.BlockSize)
	s.want(s.read(0), value(w.id))
	s.restart(1, 2)
	s.rest()
}
