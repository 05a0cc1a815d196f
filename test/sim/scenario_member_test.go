package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// copyDivergent: A has a write that B has not. While the repair of its chunk waits
// for an answer of A, there is time to copy the chunk to C, which would outlive A
// with A's bytes when only B is left.
func copyDivergent(s *scene) {
	// In the last chunk of its region, so that the others are repaired by then.
	const chunk, offset = block.RegionSize - block.ChunkSize, block.RegionSize - block.ExtentSize
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
	held, copied := false, false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		copied = copied || c.to.index == 2 && req.Op == block.OpWrite && req.Offset == offset
		if held || c.to.index != 0 || req.Op != block.OpHash || req.Offset != chunk {
			return true
		}
		held = true
		return false
	}
	s.restart(2)
	s.until("the repair of the chunk", func() bool { return held })
	for range 100 {
		if s.wait(millisecond); copied {
			break
		}
	}
	s.wait(2 * millisecond) // the end of the copy
	s.kill(0)
	s.inSync(1, 2)
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
