package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// leaseMargin: as lost-removal, with a clock under E1 that is as slow as clocks may be
// and is held up once, and one under E2 that is as fast. E2 opens B right behind the
// last ping that gave E1 its lease.
func leaseMargin(s *scene) {
	s.drift(0, -driftMax)
	s.drift(3, driftMax)
	first := removedUnheard(s)
	opening := false
	release := s.hold(func(c *conn, req *block.Request) bool {
		held := c.engine != first && req.Op == block.OpOpen
		opening = opening || held
		return held
	})
	s.v.target = s.nodes[3]
	s.until("the next engine's opening", func() bool { return opening })
	leased := false
	s.options.Plant.event = func(h *host, ev *core.Event) bool {
		leased = leased || h == first && ev.Kind == core.EventReply && ev.Reply.Op == block.OpPing &&
			ev.Replica == s.v.replicas[1]
		return true
	}
	s.until("a ping of the old engine", func() bool { return leased })
	s.options.Plant.event = nil
	s.cutOff(0)
	release()
	first.process.paused = true
	first.node.clock.stop(s.loop.now, stopMax)
	s.wait(stopMax)
	s.loop.resume(first.process)
	readBeside(s, first)
	s.restart(2)
	s.rest()
}

// forcedDetach: a write waits for a removal that Raft cannot commit. A forced detach
// fails it all the same.
func forcedDetach(s *scene) {
	s.write(0, block.BlockSize)
	s.truth.quorum = false
	s.kill(1)
	w := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(3 * second)
	if w.outcome != pending {
		s.t.Fatalf("%v was answered without a quorum", w)
	}
	s.v.current.step(core.Event{Kind: core.EventAbort})
	s.until("an end of what was pending", func() bool { return w.outcome != pending })
	if w.outcome == succeeded {
		s.t.Fatalf("%v succeeded", w)
	}
	s.truth.restore()
	s.restart(1)
	s.wait(500 * millisecond)
	s.serving()
	s.read(0)
	s.rest()
}

// queuedForTarget: U and V wait for C, a sync target, in this order. W, over V, finds no
// room there and is missed; its chunk is copied. V must not come behind the copy.
func queuedForTarget(s *scene) {
	s.options.Limits.TargetWindow = 2
	s.killEngine(0)
	s.wait(500 * millisecond)
	s.serving()
	s.kill(2)
	s.inSync(0, 1)
	s.write(0, block.ExtentSize)
	flushes, copied := false, false
	release := s.hold(func(c *conn, req *block.Request) bool {
		if c.to.index != 2 {
			return false
		}
		copied = copied || req.Op == block.OpWrite && req.Flags&block.FlagResync != 0 && req.Offset >= block.ChunkSize
		flushes = flushes || req.Op == block.OpFlush
		return req.Op == block.OpFlush || req.Op == block.OpWrite && req.Flags&block.FlagResync == 0
	})
	s.restart(2)
	s.until("the flush of a target", func() bool { return flushes })
	s.write(block.ChunkSize-block.BlockSize, block.BlockSize)
	s.write(block.ChunkSize-block.BlockSize, 2*block.BlockSize)
	w := s.write(block.ChunkSize, block.BlockSize)
	s.until("a copy of what was missed", func() bool { return copied })
	s.wait(5 * millisecond)
	release()
	s.inSync(0, 1, 2)
	s.rest()
	s.want(s.read(block.ChunkSize), value(w.id))
}

// copiesDiffer: B holds other bytes than A and C, and all verify. When the place is
// looked at, because A has rot beside it, that is told, and nobody's copy is chosen.
func copiesDiffer(s *scene) {
	s.write(0, 2*block.ExtentSize)
	s.flush()
	s.wait(4 * second) // the logs are cleared
	other := s.scribble(1, block.ExtentSize)
	s.rot(0, 0)
	told := false
	s.options.Plant.effect = func(_ *host, ef *core.Effect) bool {
		told = told || ef.Kind == core.EffectNotice && ef.Notice.Kind == core.NoticeDiffer &&
			ef.Notice.Replica == s.v.replicas[1] && ef.Notice.Offset == block.ExtentSize
		return true
	}
	s.read(0)
	s.until("a word about copies that differ", func() bool { return told })
	s.wait(second)
	got, err := s.readReplica(s.v.replicas[1], block.SnapshotID{}, block.ExtentSize, block.SectorSize)
	if err != nil || string(got) != string(other) {
		s.t.Fatalf("a copy that differed was made equal: %v", err)
	}
	s.write(block.ExtentSize, block.BlockSize)
	s.rest()
}

// scribble writes a sector into a node's replica, past its door, and returns it.
func (s *scene) scribble(node int, offset int64) []byte {
	s.t.Helper()
	r, err := s.nodes[node].storage.store.Replica(s.v.replicas[node])
	if err != nil {
		s.t.Fatal(err)
	}
	buf := block.NewBuffer(block.SectorSize)
	fill(buf.Data, s.v.tag, 1<<40, offset)
	kept := append([]byte(nil), buf.Data...)
	s.submit(r, &store.Op{Kind: store.Write, Offset: offset, Length: block.SectorSize, Buf: buf})
	return kept
}

// submit carries out an operation of a replica past its door.
func (s *scene) submit(r *store.Replica, op *store.Op) {
	s.t.Helper()
	done := false
	op.Done = func(*store.Op) { done = true }
	r.Submit(op)
	s.until("an operation past the door", func() bool { return done })
	if op.Err != nil {
		s.t.Fatal(op.Err)
	}
}

// higherView: B holds a view above that of Raft, as after Raft's state was put back.
// Nobody serves the volume until somebody has looked at it.
func higherView(s *scene) {
	s.write(0, block.BlockSize)
	r, err := s.nodes[1].storage.store.Replica(s.v.replicas[1])
	if err != nil {
		s.t.Fatal(err)
	}
	view := s.truth.view(s.v.id)
	view.Epoch += 1000
	s.killEngine(3)
	s.submit(r, &store.Op{Kind: store.Update, Meta: &block.Update{View: &view}})
	s.wait(5 * second)
	if c := s.v.current; c.epoch < 10 || c.serving {
		s.t.Fatalf("%v serves: %v, beside a member that knows a higher view", c, c.serving)
	}
}

// divergentLeaves: a write is on A and B when the engine dies, and C leaves before its
// chunk was compared. A and B turn out to be equal, so that no repair says what C lacks,
// and its own log does not name it.
func divergentLeaves(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.write(0, block.BlockSize)
	s.flush()
	s.wait(4 * second) // the logs are cleared
	s.cut(3, 2, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(3)
	s.cut(3, 2, false)
	release := s.hold(func(c *conn, req *block.Request) bool { return req.Op == block.OpHash && c.to.index != 2 })
	s.wait(500 * millisecond)
	s.serving()
	s.kill(2)
	s.inSync(0, 1)
	s.wait(50 * millisecond) // the engine has heard that the third has left
	release()
	s.until("the comparison of the members", func() bool { return s.v.current.core.Status().Divergent == 0 })
	s.restart(2)
	s.rest()
}

// repairedAlone: a write is on A alone when the engine dies. The next one, beside A,
// dies with it before its repair has reached the others. What it let be read stays.
func repairedAlone(s *scene) {
	leftAlone(s, 0, 0, 0)
	repaired := false
	s.options.Plant.effect = func(_ *host, ef *core.Effect) bool {
		if ef.Kind == core.EffectSend && ef.Request.Op == block.OpWrite && ef.Replica != s.v.replicas[0] {
			repaired = true
			s.cut(0, 1, true)
			s.cut(0, 2, true)
		}
		return true
	}
	s.until("a repair", func() bool { return repaired })
	s.options.Plant.effect = nil
	early := s.begin(core.ReadRequest, 0, block.SectorSize)
	s.wait(20 * millisecond)
	s.v.target = s.nodes[3]
	s.kill(0)
	s.cut(0, 1, false)
	s.cut(0, 2, false)
	s.wait(500 * millisecond)
	s.serving()
	if got := s.read(0); early.outcome == succeeded {
		s.want(got, early.read[0])
	}
	s.restart(0)
	s.rest()
}

// writtenDuringFlush: a write ends while the flush runs after which the logs are
// emptied. Its region stays in them, because B, which loses its power, loses the write.
func writtenDuringFlush(s *scene) {
	s.options.Limits.LogRegions = 1
	s.killEngine(3)
	s.wait(500 * millisecond)
	s.serving()
	flushing := false
	release := s.hold(func(c *conn, req *block.Request) bool {
		held := c.to.index == 2 && req.Op == block.OpFlush
		flushing = flushing || held
		return held
	})
	s.write(0, block.BlockSize)
	s.write(block.RegionSize, block.BlockSize)
	s.until("a flush of the engine's own", func() bool { return flushing })
	s.wait(30 * millisecond) // B has finished it
	w := s.write(0, block.BlockSize)
	release()
	s.until("logs that are emptied", func() bool { return s.v.current.core.Status().LogRegions <= 1 })
	s.truth.quorum = false // nobody is removed before B is back
	s.power(1)
	s.breakLinks(1)
	s.restart(1)
	s.wait(300 * millisecond)
	s.truth.restore()
	s.rest()
	s.want(s.read(0), value(w.id))
}

// missedThenCleared: C, a sync target, misses a write, for which its window has no room.
// The members' logs are emptied and the engine dies: that C lacks it has become durable
// before.
func missedThenCleared(s *scene) {
	s.options.Limits.LogRegions, s.options.Limits.TargetWindow = 1, 1
	s.killEngine(3)
	s.wait(500 * millisecond)
	s.serving()
	s.kill(2)
	s.inSync(0, 1)
	s.write(0, block.BlockSize)
	held := false
	s.hold(func(c *conn, req *block.Request) bool {
		// What it stores before it is sent the first write goes through.
		holds := c.to.index == 2 && req.Op != block.OpOpen && req.Op != block.OpPing && req.Op != block.OpUpdate
		held = held || holds
		return holds
	})
	s.restart(2)
	s.until("a target", func() bool { return held })
	s.write(2*block.RegionSize, block.BlockSize)
	w := s.write(block.RegionSize, block.BlockSize)
	s.until("logs that are emptied", func() bool { return s.v.current.core.Status().LogRegions <= 1 })
	s.killEngine(3)
	s.options.Plant.request = nil
	s.rest()
	s.want(s.read(block.RegionSize), value(w.id))
}
