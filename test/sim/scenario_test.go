package sim

import (
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// TestScenario replays the attacks on the design's rules, by name.
func TestScenario(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			const seeds = 3
			for at := range max(sc.points, seeds) {
				s := newSceneOn(t, uint64(1+at%seeds), sc.shape())
				s.point = at
				sc.play(s)
			}
		})
	}
}

// scenario is an attack or another interleaving that was found. It is played with
// three seeds; one with points that many times, each with the blow at another one.
type scenario struct {
	name   string
	play   func(s *scene)
	points int
}

// shape is the size of a scenario's cluster. Replicas move to a fourth disk.
func (sc *scenario) shape() Shape {
	shape := DefaultShape()
	if strings.HasPrefix(sc.name, "replaced") {
		shape.Disks = 4
	}
	return shape
}

func scenarios() []scenario {
	return []scenario{
		{"cut-divergent", cutDivergent, cutDivergentPoints},
		{"cut-unknown", cutUnknown, 3},
		{"absent-deletes", absentDeletes, 0},
		{"cut-during-admission", cutDuringAdmission, cutDuringAdmissionPoints},
		{"cut-lost", cutLost, cutLostPoints},
		{"cut-queued", cutQueued, 0},
		{"cut-unheard", cutUnheard, 0},
		{"cut-taken-back", cutTakenBack, cutTakenBackPoints},
		{"cut-beside-writes", cutBesideWrites, cutBesideWritesPoints},
		{"snapshot-again", snapshotAgain, 0},
		{"size-unasked", sizeUnasked, 0},
		{"borrowed", borrowed, 0},
		{"revert", revert, revertPoints},
		{"revert-then-loss", revertThenLoss, 0},
		{"replaced", replacedScene, replacedPoints},
		{"replaced-grown", replacedGrown, 0},
		{"replaced-reverted", replacedReverted, replacedRevertedPoints},
		{"replaced-yields", replacedYields, 0},
		{"kill-unflushed", killUnflushed, 0},
		{"last-cache-loss", lastCacheLoss, 0},
		{"flush-after-loss", flushAfterLoss, 0},
		{"flush-then-crash", flushThenCrash, 0},
		{"attach-removal", attachRemoval, 0},
		{"target-drop", targetDrop, 0},
		{"foreign-intent", foreignIntent, 0},
		{"holder-returns", holderReturns, 0},
		{"stale-dirty", staleDirty, 0},
		{"admission-unknown", admissionUnknown, 0},
		{"same-epoch", sameEpoch, 0},
		{"sub-block", subBlock, 0},
		{"lease", leaseOfSleeper, 0},
		{"fsync-fails", fsyncFails, 0},
		{"full-disk", fullDisk, 0},
		{"full-source", fullSource, 0},
		{"full-target", fullTarget, 0},
		{"full-targets", fullTargets, 0},
		{"frozen-window", frozenWindow, 0},
		{"write-over-rot", writeOverRot, 0},
		{"lost-removal", lostRemoval, 0},
		{"repair-unlogged", repairUnlogged, 0},
		{"clear-divergent", clearDivergent, 0},
		{"read-before-equal", readBeforeEqual, 0},
		{"clear-but-one", clearButOne, 0},
		{"takeover-logs", takeoverLogs, 0},
		{"admission-queued", admissionQueued, 0},
		{"repair-flip", repairFlip, repairFlipPoints},
		{"read-inflight", readInflight, 4 * readInflightPoints},
		{"rollback", rollback, 0},
		{"rollback-twice", rollbackTwice, 0},
		{"rollback-alone", rollbackAlone, 0},
		{"restart-container", restartContainer, 0},
		{"quorum-lost", quorumLostScene, 0},
		{"copy-divergent", copyDivergent, 0},
		{"logged-and-written", loggedAndWritten, 0},
		{"half-copy", halfCopy, 0},
		{"wait-for-memory", waitForMemory, 0},
		{"rot-of-last", rotOfLast, 0},
		{"full-and-slow", fullAndSlow, 0},
		{"repair-target", repairTarget, 0},
		{"two-proposers", twoProposers, 0},
		{"incarnation-split", incarnationSplit, 0},
		{"retry-storm", retryStorm, 0},
		{"read-error-of-last", readErrorOfLast, 0},
	}
}

func killUnflushed(s *scene) {
	s.kill(2)
	s.inSync(0, 1)
	w := s.write(0, block.ExtentSize)
	s.kill(0)
	s.wait(50 * millisecond)
	s.restart(0)
	s.wait(200 * millisecond)
	s.serving()
	s.want(s.read(0), value(w.id))
	s.flush()
	s.rest()
	s.want(s.read(0), value(w.id))
}

func flushThenCrash(s *scene) {
	s.write(0, block.ExtentSize)
	s.kill(1)
	s.inSync(0, 2)
	w := s.write(0, block.ExtentSize)
	s.flush()
	// The logs are cleared when nothing happens for a while.
	s.wait(4 * second)
	s.killEngine(0)
	s.restart(1)
	s.rest()
	s.want(s.read(0), value(w.id))
}

func attachRemoval(s *scene) {
	s.write(0, block.BlockSize)
	s.flush()
	s.cut(0, 1, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(millisecond)
	s.killEngine(0)
	s.kill(1)
	s.wait(200 * millisecond)
	s.inSync(0, 2)
	s.serving()
	s.flush()
	s.wait(4 * second)
	s.restart(1)
	s.rest()
}

func targetDrop(s *scene) {
	s.kill(2)
	s.inSync(0, 1)
	for r := range int64(3) {
		s.write(r*block.RegionSize, block.ExtentSize)
	}
	s.restart(2)
	copied := false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		copied = copied || c.to.index == 2 && req.Op == block.OpWrite
		return true
	}
	s.until("a copy to the target", func() bool { return copied })
	s.wait(millisecond)
	s.cut(0, 2, true)
	w := s.write(0, block.ExtentSize)
	s.killEngine(0)
	s.wait(100 * millisecond)
	s.rest()
	s.want(s.read(0), value(w.id))
}

func foreignIntent(s *scene) {
	old := s.write(0, block.BlockSize)
	s.flush()
	s.v.target = s.nodes[3]
	s.wait(second)
	s.serving()
	s.cut(3, 0, true)
	s.cut(3, 2, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(3)
	s.kill(1)
	s.cut(3, 0, false)
	s.cut(3, 2, false)
	s.wait(500 * millisecond)
	s.serving()
	s.want(s.read(0), value(old.id))
	s.restart(1)
	s.rest()
	s.want(s.read(0), value(old.id))
}

func holderReturns(s *scene) {
	s.kill(2)
	s.inSync(0, 1)
	s.kill(1)
	s.inSync(0)
	w := s.write(0, block.ExtentSize)
	s.restart(1)
	s.inSync(0, 1)
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.kill(0)
	s.inSync(1)
	s.restart(2)
	s.inSync(1, 2)
	s.want(s.read(0), value(w.id))
	s.rest()
}

func staleDirty(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.kill(1) // A and C hold dirty(B).
	s.inSync(0, 2)
	s.write(0, block.BlockSize)
	s.kill(2)
	s.inSync(0)
	s.restart(1)
	s.inSync(0, 1)
	s.kill(1) // B leaves again; C does not know.
	s.inSync(0)
	w := s.write(2*block.RegionSize, block.ExtentSize)
	s.restart(2)
	s.inSync(0, 2)
	s.kill(0)
	s.inSync(2)
	s.restart(1)
	s.inSync(1, 2)
	s.want(s.read(2*block.RegionSize), value(w.id))
	s.rest()
}

// leaseOfSleeper: E1's machine is paused with a read queued, and hears nothing when
// it wakes. Its own replica knows of no newer engine.
func leaseOfSleeper(s *scene) {
	s.write(0, block.BlockSize)
	sleeper := s.v.current
	s.truth.unreachable[0] = true
	s.cutOff(0)
	sleeper.process.paused = true
	s.loop.after(sleeper.process, 0, func() {
		sleeper.client.send(core.Request{Kind: core.ReadRequest, Length: block.BlockSize})
	})
	s.v.target = s.nodes[3]
	s.wait(3 * second)
	s.serving()
	s.write(0, block.BlockSize)
	s.loop.resume(sleeper.process)
	s.wait(second)
	s.rest()
}

// frozenWindow: more writes than a target's window takes wait for the in-sync set
// to be large enough. The target that would make it so misses some of them, and
// must not wait for their end.
func frozenWindow(s *scene) {
	s.v.minSync = 2
	s.killEngine(0)
	s.wait(500 * millisecond)
	s.serving()
	s.kill(2)
	s.inSync(0, 1)
	s.cut(0, 1, true)
	var ops []*operation
	for i := range int64(3 * s.options.Limits.TargetWindow) {
		ops = append(ops, s.begin(core.WriteRequest, i*block.ExtentSize, block.BlockSize))
	}
	s.inSync(0)
	s.cut(0, 1, false)
	s.inSync(0, 1)
	for _, op := range ops {
		s.want(s.read(s.end(op).offset), value(op.id))
	}
	s.restart(2)
	s.rest()
}

// lostRemoval: the removal of A was committed, and E1, beside A, has not heard of
// it. E2 attaches with {B}, drops nobody, and writes, while E1 still has a lease.
func lostRemoval(s *scene) {
	first := removedUnheard(s)
	s.cutOff(0)
	s.v.target = s.nodes[3]
	readBeside(s, first)
	s.restart(2)
	s.rest()
}

// removedUnheard leaves A and B in sync, commits the removal of A, and returns the
// engine beside A, which hears nothing of it from Raft.
func removedUnheard(s *scene) *host {
	s.kill(2)
	s.inSync(0, 1)
	s.write(0, block.BlockSize)
	view := s.truth.view(s.v.id)
	s.truth.unreachable[0] = true
	removal := block.Proposal{Volume: s.v.id, Epoch: view.Epoch, Revision: view.Revision,
		Remove: []block.ReplicaID{s.v.replicas[0]}}
	if r := s.truth.apply(state.Propose{Proposal: removal}); r.Verdict != block.Committed {
		s.t.Fatalf("removal: %v", r.Err)
	}
	return s.v.current
}

// readBeside reads through an older engine for a second, and writes once through the
// next one as soon as that serves.
func readBeside(s *scene, older *host) {
	written := false
	for range 1000 {
		if c := s.v.current; c != older && c.serving && !written {
			s.begin(core.WriteRequest, 0, block.BlockSize)
			written = true
		}
		if len(older.client.order) == 0 && !older.stopped {
			older.client.send(core.Request{Kind: core.ReadRequest, Length: block.SectorSize})
		}
		s.wait(millisecond)
	}
	if !written {
		s.t.Fatal("the next engine never served")
	}
}

func repairUnlogged(s *scene) {
	s.write(0, block.BlockSize)
	s.flush()
	s.wait(4 * second)
	s.cut(0, 1, true)
	s.cut(0, 2, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(0)
	s.cut(0, 1, false)
	s.cut(0, 2, false)
	s.wait(500 * millisecond)
	s.serving()
	got := s.read(0)
	s.power(1)
	s.wait(3 * second)
	s.restart(1)
	s.rest()
	s.want(s.read(0), got)
}

// clearButOne: a member dies as the logs are cleared, and is removed. Its log is not
// the others' to remember.
func clearButOne(s *scene) {
	killed := false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		if killed || c.to.index != 2 || req.Op != block.OpUpdate || req.Update.ClearLog.Empty() {
			return true
		}
		killed = true
		s.loop.after(nil, 0, func() { s.kill(2) })
		return false
	}
	s.write(0, block.BlockSize)
	s.flush()
	s.until("a member that dies", func() bool { return killed })
	s.inSync(0, 1)
	s.wait(4 * second)
	if n := s.v.current.core.Status().LogRegions; n != 0 {
		s.t.Fatalf("%d regions are in the logs of nobody", n)
	}
	s.restart(2)
	s.rest()
}

func admissionQueued(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.write(0, block.ExtentSize)
	s.nodes[1].storage.drive.slow = 50
	s.restart(1)
	for s.v.current.core.Status().Targets == nil {
		s.wait(millisecond)
	}
	var ops []*operation
	for i := range int64(s.options.Limits.TargetWindow) {
		ops = append(ops, s.end(s.begin(core.WriteRequest, i*block.BlockSize, block.BlockSize)))
	}
	s.inSync(0, 1)
	s.power(0)
	s.inSync(1)
	for _, op := range ops {
		s.want(s.read(op.offset), value(op.id))
	}
	s.restart(0, 2)
	s.rest()
}

func quorumLostScene(s *scene) {
	s.truth.quorum = false
	w := s.write(0, block.BlockSize)
	s.flush()
	s.want(s.read(0), value(w.id))
	s.kill(2)
	held := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(5 * second)
	if held.outcome != pending {
		s.t.Fatalf("%v ended although a member is gone and nobody can remove it", held)
	}
	s.truth.restore()
	s.end(held)
	s.restart(2)
	s.rest()
}
