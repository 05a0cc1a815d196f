package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// TestScenarioOfRules replays what only one clause of a rule stands against, by
// name, so that test/canaries can take that clause away.
func TestScenarioOfRules(t *testing.T) {
	for _, sc := range []struct {
		name string
		play func(s *scene)
	}{
		{"rollback-restart", rollbackRestart},
		{"rollback-holder", rollbackHolder},
		{"rollback-soon", rollbackSoon},
		{"rollback-soon-durable", rollbackSoonDurable},
		{"last-disk-fails", lastDiskFails},
		{"trim-of-full", trimOfFull},
		{"old-session", oldSession},
		{"target-drop-compared", targetDropCompared},
		{"takeover-equal", takeoverEqual},
		{"admission-unflushed", admissionUnflushed},
		{"repair-lost", repairLost},
		{"lease-margin", leaseMargin},
		{"forced-detach", forcedDetach},
		{"queued-for-target", queuedForTarget},
		{"copies-differ", copiesDiffer},
		{"divergent-leaves", divergentLeaves},
		{"repaired-alone", repairedAlone},
		{"written-during-flush", writtenDuringFlush},
		{"missed-then-cleared", missedThenCleared},
		{"higher-view", higherView},
	} {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 3; seed++ {
				sc.play(newScene(t, seed))
			}
		})
	}
}

// saveAndGoOn leaves B up to date, and returns what its disk was before the write
// that it returns, too. No log names that write any more.
func saveAndGoOn(s *scene) (*image, *operation) {
	s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	old := s.nodes[1].storage.photograph()
	s.inSync(0, 1, 2)
	w := s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.flush()
	s.wait(4 * second)
	return old, w
}

// rollbackRestart: B's disk is put back, and comes back to an engine that has not
// seen its flushes. The other members must have been told.
func rollbackRestart(s *scene) {
	old, w := saveAndGoOn(s)
	s.power(1)
	s.inSync(0, 2)
	s.wait(100 * millisecond) // its dirty set is stored
	s.killEngine(0)
	s.wait(500 * millisecond)
	s.serving()
	s.nodes[1].storage.putBack(old)
	s.restart(1)
	s.rest()
	s.want(s.read(2*block.RegionSize), value(w.id))
}

// rollbackHolder: B's disk is put back, takes a flush while it is resynced, and so
// looks current. Then A dies, and the engine with it. That B lacks nearly
// everything must be known to C, too.
func rollbackHolder(s *scene) {
	old, w := saveAndGoOn(s)
	s.power(1)
	s.inSync(0, 2)
	s.nodes[1].storage.putBack(old)
	hashed, flushed := false, false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		hashed = hashed || c.to.index == 1 && req.Op == block.OpHash
		flushed = flushed || c.to.index == 1 && req.Op == block.OpFlush
		return true
	}
	s.restart(1)
	s.until("a resync", func() bool { return hashed })
	s.begin(core.FlushRequest, 0, 0)
	s.until("a flush of the disk that was put back", func() bool { return flushed })
	s.wait(2 * millisecond)
	s.v.target = s.nodes[2]
	s.kill(0)
	s.wait(500 * millisecond)
	s.serving()
	s.inSync(1, 2)
	s.want(s.read(2*block.RegionSize), value(w.id))
	s.rest()
}

// rollbackSoon: B's disk is put back by less than flushes may share a number for. What
// it lacks is in no log of the image, so the number of that flush must be a new one.
func rollbackSoon(s *scene) {
	putBackSoon(s, func() *operation {
		w := s.write(2*block.RegionSize, block.ExtentSize)
		s.flush()
		s.flush()
		return w
	})
}

// rollbackSoonDurable: as before, and what it lacks are durable writes. The first needs
// a new number, the second must tell the others of it.
func rollbackSoonDurable(s *scene) {
	putBackSoon(s, func() *operation {
		s.writeDurably(2*block.RegionSize, block.ExtentSize)
		return s.writeDurably(2*block.RegionSize, block.ExtentSize)
	})
}

// putBackSoon has B lack what change did, and its disk's image name that nowhere.
func putBackSoon(s *scene, change func() *operation) {
	s.options.Timing.NumberGap = 1000 * second
	s.killEngine(0)
	s.serving()
	s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	s.flush() // tells the others of the number of the one that cleared the logs
	old := s.nodes[1].storage.atRest()
	w := change()
	s.killEngine(0)
	s.power(1)
	s.nodes[1].storage.putBack(old)
	left := s.paths.counts["disk that was put back leaves"]
	s.restart(1)
	s.wait(500 * millisecond)
	s.serving()
	if s.paths.counts["disk that was put back leaves"] == left {
		s.t.Fatal("a disk that was put back stayed in sync")
	}
	s.want(s.read(2*block.RegionSize), value(w.id))
	s.rest()
}

// lastDiskFails: a sync of the last member's disk fails. It takes nothing more, and
// serves what it has.
func lastDiskFails(s *scene) {
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	w := s.write(0, block.BlockSize)
	s.flush()
	s.nodes[0].storage.drive.syncFails = 1
	f := s.begin(core.FlushRequest, 0, 0)
	s.wait(second)
	for range 100 {
		s.want(s.read(0), value(w.id))
	}
	if f.outcome == succeeded {
		s.t.Fatalf("%v succeeded although the sync failed", f)
	}
	s.rest()
	s.want(s.read(0), value(w.id))
}

// trimOfFull: on disks that are full a write waits, and a trim does not.
func trimOfFull(s *scene) {
	s.write(0, 4*block.ExtentSize)
	s.flush()
	for _, n := range s.nodes[:3] {
		n.storage.full(true)
	}
	var ops []*operation
	for i := range int64(8) {
		ops = append(ops, s.begin(core.WriteRequest, block.RegionSize+i*block.ExtentSize, block.ExtentSize))
	}
	s.wait(2 * second)
	last := ops[len(ops)-1]
	if last.outcome != pending {
		s.t.Fatalf("%v found room on a full disk", last)
	}
	s.want(s.read(0), value(1))
	z := s.end(s.begin(core.ZeroRequest, 0, 8*block.ExtentSize))
	s.want(s.read(0), z.shown())
	for _, n := range s.nodes[:3] {
		n.storage.full(false)
	}
	for _, op := range ops {
		s.end(op)
	}
	s.rest()
}

// oldSession: a write of E1 is on its way to B when E2 takes over and writes the same
// block. It arrives at last, through the session that E1 still has.
func oldSession(s *scene) {
	s.write(0, block.BlockSize)
	s.network.slow[[2]int{0, 1}] = 500 * millisecond
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.move(s.v, s.nodes[3], false)
	s.wait(20 * millisecond)
	s.serving()
	w := s.write(0, block.BlockSize)
	s.wait(2 * second)
	s.want(s.read(0), value(w.id))
	s.rest()
	s.want(s.read(0), value(w.id))
}

// forgetful replaces the engine by one that has not seen what was written while replicas
// were away: it compares, where the old one would have copied.
func (s *scene) forgetful() {
	s.killEngine(0)
	s.wait(500 * millisecond)
	s.serving()
}

// targetDropCompared: a region of C's dirty set turns out to be equal, so that C's own
// log does not name it, and leaves the set. Then a write to it misses C as its session
// dies, and the engine with it: only the members' logs know.
func targetDropCompared(s *scene) {
	s.kill(2)
	s.inSync(0, 1)
	s.end(s.begin(core.ZeroRequest, block.RegionSize, block.ExtentSize))
	s.forgetful()
	cleared := false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		cleared = cleared || c.to.index == 0 && req.Op == block.OpUpdate && len(req.Update.ClearDirty) > 0
		return true
	}
	s.restart(2)
	s.until("a dirty set that shrinks", func() bool { return cleared })
	s.cut(0, 2, true)
	s.cut(2, 0, true)
	w := s.write(block.RegionSize, block.BlockSize)
	s.killEngine(0)
	s.wait(100 * millisecond)
	s.rest()
	s.want(s.read(block.RegionSize), value(w.id))
}

// takeoverEqual: B never had X, which C has and A has trimmed alone. B is found equal to
// A and admitted, and A dies with the engine. Nothing but what B took over says that C
// lacks the trim.
func takeoverEqual(s *scene) {
	s.cut(0, 1, true)
	s.inSync(0, 2)
	s.write(block.RegionSize, block.BlockSize)
	s.flush()
	s.wait(4 * second) // the logs are cleared
	s.kill(2)
	s.inSync(0)
	s.wait(20 * millisecond) // its dirty set is stored
	z := s.end(s.begin(core.ZeroRequest, block.RegionSize, block.ExtentSize))
	s.forgetful()
	s.cut(0, 1, false)
	s.inSync(0, 1) // before the logs are cleared
	s.v.target = s.nodes[3]
	s.kill(0)
	s.wait(500 * millisecond)
	s.serving()
	s.inSync(1)
	s.restart(2)
	s.inSync(1, 2)
	s.want(s.read(block.RegionSize), z.shown())
	s.rest()
}

// admissionUnflushed: C has everything, and the flush that would make it durable there
// does not reach it. It is not admitted.
func admissionUnflushed(s *scene) {
	s.kill(2)
	s.inSync(0, 1)
	s.write(0, block.ExtentSize)
	cleared, hold := false, true
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		switch {
		case req.Op == block.OpUpdate && len(req.Update.ClearDirty) > 0:
			cleared = true
		case c.to.index == 2 && req.Op == block.OpOpen:
			cleared = false
		}
		return !hold || !cleared || c.to.index != 2 || req.Op != block.OpFlush
	}
	s.restart(2)
	s.wait(3 * second)
	if view := s.truth.view(s.v.id); view.Member(s.v.replicas[2]).InSync {
		s.t.Fatal("C was admitted, and has not flushed what it got last")
	}
	hold = false
	s.rest()
}

// repairLost: a write is on A alone when the engine dies, and is repaired. Then all
// members are gone at once, and B has lost what the repair brought. They are back before
// Raft could remove anybody, and B must not pass for one that has everything.
func repairLost(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.write(0, block.BlockSize)
	s.flush()
	s.wait(4 * second)
	s.cut(3, 1, true)
	s.cut(3, 2, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(3)
	s.cut(3, 1, false)
	s.cut(3, 2, false)
	s.wait(500 * millisecond)
	s.serving()
	got := s.read(0)
	s.truth.quorum = false
	s.kill(0)
	s.power(1)
	s.kill(2)
	s.breakLinks(1)
	s.restart(0, 1, 2)
	s.wait(300 * millisecond)
	s.truth.restore()
	s.wait(second)
	s.want(s.read(0), got)
	s.rest()
	s.want(s.read(0), got)
}
