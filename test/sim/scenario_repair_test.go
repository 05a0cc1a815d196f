package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// hold keeps back the messages that reach a replica and match, until release.
func (s *scene) hold(match func(c *conn, req *block.Request) bool) (release func()) {
	var held []func()
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		if !match(c, req) {
			return true
		}
		kept := *req
		if kept.Buf != nil {
			kept.Buf.Retain()
		}
		held = append(held, func() { c.accept.Handle(kept, nil) })
		return false
	}
	return func() {
		s.options.Plant.request = nil
		for _, deliver := range held {
			deliver()
		}
	}
}

// leftAlone writes something that only one replica gets before the engine on node 3
// dies, and starts the next one on a node.
func leftAlone(s *scene, offset int64, with, next int) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.write(offset, block.BlockSize)
	s.flush()
	for i := range 3 {
		s.cut(3, i, i != with)
	}
	s.begin(core.WriteRequest, offset, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(next)
	for i := range 3 {
		s.cut(3, i, false)
	}
}

// readBeforeEqual: a write is on B alone, beside which the next engine runs; repairs
// bring what A has to all. A read that did not wait for them would show what is gone
// a moment later.
func readBeforeEqual(s *scene) {
	const last = block.RegionSize - block.BlockSize // its chunk is not the first to be repaired
	leftAlone(s, last, 1, 1)
	release := s.hold(func(_ *conn, req *block.Request) bool { return req.Op == block.OpHash })
	s.wait(500 * millisecond)
	s.serving()
	early := s.begin(core.ReadRequest, last, block.BlockSize)
	s.wait(50 * millisecond)
	release()
	s.end(early)
	s.read(last)
	s.rest()
}

// clearDivergent: a write is on A alone when the engine dies. A flush finishes on
// all before the repair: the region stays in the logs.
func clearDivergent(s *scene) {
	leftAlone(s, 0, 0, 3)
	release := s.hold(func(_ *conn, req *block.Request) bool { return req.Op == block.OpHash })
	s.wait(500 * millisecond)
	s.serving()
	if f := s.flush(); f.outcome != succeeded {
		s.t.Fatalf("%v did not succeed", f)
	}
	for i := range 3 {
		r, err := s.nodes[i].storage.store.Replica(s.v.replicas[i])
		if err != nil {
			s.t.Fatal(err)
		}
		if log := r.Log(); !log.Has(0) && i == 0 {
			s.t.Fatalf("replica %d has forgotten a region that is divergent", i)
		}
	}
	release()
	s.killEngine(3)
	s.wait(500 * millisecond)
	s.serving()
	s.read(0)
	s.rest()
}

// repairTarget: C, a target, has copied a region from B, beside which the engine
// runs. The engine dies with a write in flight that only B has; the next one
// repairs the region from A. C gets that, too.
func repairTarget(s *scene) {
	s.v.target = s.nodes[1]
	s.wait(500 * millisecond)
	s.serving()
	s.kill(2)
	s.inSync(0, 1)
	for r := range int64(3) {
		s.write(r*block.RegionSize, 2*block.ExtentSize)
	}
	s.restart(2)
	copied := false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		copied = copied || c.to.index == 2 && req.Op == block.OpWrite && req.Flags&block.FlagResync != 0
		return true
	}
	s.until("a copy to the target", func() bool { return copied })
	s.wait(2 * millisecond)
	s.cut(1, 0, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(2 * millisecond)
	s.killEngine(1)
	s.cut(1, 0, false)
	s.wait(200 * millisecond)
	s.serving()
	got := s.read(0)
	s.inSync(0, 1, 2)
	s.kill(0)
	s.kill(1)
	s.v.target = s.nodes[3]
	s.inSync(2)
	s.serving()
	s.want(s.read(0), got)
	s.restart(0, 1)
	s.rest()
}
