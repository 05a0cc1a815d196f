package sim

import (
	"math/rand/v2"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// scene is a world whose events a test scripts. Replica A is on node 0, B on
// node 1, C on node 2; node 3 has no disk. The volume is attached on node 0.
type scene struct {
	*World
	t *testing.T
	v *volume
}

// patience bounds each wait of a scene, in virtual nanoseconds.
const patience = 30 * second

func newScene(t *testing.T, seed uint64) *scene {
	t.Helper()
	o := SeedOptions(seed, 0)
	o.Shape = DefaultShape()
	o.Faults, o.RaftFaults, o.Scripted, o.Plant = nil, false, true, &plant{}
	w, err := NewWorld(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{World: w, t: t, v: w.volumes[0]}
	t.Cleanup(w.close)
	s.serving()
	return s
}

// until steps until the condition holds.
func (s *scene) until(what string, done func() bool) {
	s.t.Helper()
	deadline := s.loop.now + block.Instant(patience)
	s.advance(func() bool { return done() || s.loop.now > deadline })
	if s.violation == nil && !done() {
		s.fail("progress", "the scene waited in vain for "+what)
	}
	s.check()
}

// check ends the test at a violation.
func (s *scene) check() {
	s.t.Helper()
	if s.violation != nil {
		for _, line := range s.loop.trace.last(160) {
			s.t.Log(line)
		}
		s.t.Fatal(s.violation)
	}
}

func (s *scene) wait(d int64) {
	s.t.Helper()
	end := s.loop.now + block.Instant(d)
	s.advance(func() bool { return s.loop.now >= end })
	s.check()
}

// serving waits for the engine of the highest epoch, on the target node.
func (s *scene) serving() {
	s.t.Helper()
	s.until("an engine that serves", func() bool {
		c := s.v.current
		return c != nil && !c.stopped && c.serving && c.node == s.v.target
	})
}

// inSync waits until exactly these nodes' replicas are in sync.
func (s *scene) inSync(nodes ...int) {
	s.t.Helper()
	s.until("an in-sync set", func() bool {
		view := s.truth.view(s.v.id)
		n := 0
		for _, i := range nodes {
			if m := view.Member(s.v.replicas[i]); m.InSync {
				n++
			}
		}
		return n == len(nodes) && view.InSync() == n
	})
}

func (s *scene) begin(kind core.RequestKind, offset, length int64) *operation {
	return s.v.current.client.send(core.Request{Kind: kind, Offset: offset, Length: length})
}

func (s *scene) end(op *operation) *operation {
	s.t.Helper()
	s.until(op.String(), func() bool { return op.outcome != pending })
	return op
}

func (s *scene) write(offset, length int64) *operation {
	s.t.Helper()
	return s.end(s.begin(core.WriteRequest, offset, length))
}

func (s *scene) read(offset int64) value {
	s.t.Helper()
	op := s.end(s.begin(core.ReadRequest, offset, block.SectorSize))
	if op.outcome != succeeded {
		s.t.Fatalf("%v did not succeed", op)
	}
	return op.read[0]
}

func (s *scene) flush() *operation {
	s.t.Helper()
	return s.end(s.begin(core.FlushRequest, 0, 0))
}

func (s *scene) kill(i int)  { s.nodes[i].kill(false, loseNothing) }
func (s *scene) power(i int) { s.nodes[i].kill(true, loseAll) }

func (s *scene) restart(nodes ...int) {
	for _, i := range nodes {
		s.nodes[i].restart()
	}
}

// isolate cuts what goes from one node to another, or heals it.
func (s *scene) cut(from, to int, on bool) {
	if on {
		s.network.cut[[2]int{from, to}] = true
	} else {
		delete(s.network.cut, [2]int{from, to})
	}
}

// breakLinks ends the connections to a node.
func (s *scene) breakLinks(to int) {
	for _, c := range append([]*conn(nil), s.network.conns...) {
		if c.to.index == to {
			c.breakOff(block.ErrUnavailable)
		}
	}
}

// rot flips a bit of a sector of the volume on a node's disk.
func (s *scene) rot(node int, sector uint64) {
	s.t.Helper()
	d := s.nodes[node].storage
	for at := int64(dataStart); at < d.device.Size(); at += block.SectorSize {
		if d.rot.flip(d.device, at, func(x spot) bool { return x.volume == s.v && x.sector == sector }) {
			return
		}
	}
	s.t.Fatalf("sector %d was not found", sector)
}

// killEngine ends the engine alone; another one is started on the target.
func (s *scene) killEngine(target int) {
	h := s.v.current
	s.loop.log("kill %v", h)
	h.die()
	s.drop(h)
	s.v.target = s.nodes[target]
}

// rest heals everything, waits until all is admitted, and compares.
func (s *scene) rest() {
	s.t.Helper()
	s.heal()
	s.settle()
	s.check()
	s.compare()
	s.check()
}

func (s *scene) want(got, want value) {
	s.t.Helper()
	if got != want {
		s.t.Fatalf("read value %d, want %d", got, want)
	}
}

// TestScenario replays the attacks on the design's rules, by name.
func TestScenario(t *testing.T) {
	for _, sc := range []struct {
		name string
		play func(s *scene)
	}{
		{"kill-unflushed", killUnflushed},
		{"last-cache-loss", lastCacheLoss},
		{"flush-after-loss", flushAfterLoss},
		{"flush-then-crash", flushThenCrash},
		{"attach-removal", attachRemoval},
		{"target-drop", targetDrop},
		{"foreign-intent", foreignIntent},
		{"holder-returns", holderReturns},
		{"stale-dirty", staleDirty},
		{"admission-unknown", admissionUnknown},
		{"same-epoch", sameEpoch},
		{"sub-block", subBlock},
		{"lease", leaseOfSleeper},
		{"fsync-fails", fsyncFails},
		{"full-disk", fullDisk},
		{"full-source", fullSource},
		{"frozen-window", frozenWindow},
		{"write-over-rot", writeOverRot},
		{"lost-removal", lostRemoval},
		{"repair-unlogged", repairUnlogged},
		{"clear-divergent", clearDivergent},
		{"clear-but-one", clearButOne},
		{"takeover-logs", takeoverLogs},
		{"admission-queued", admissionQueued},
		{"repair-flip", repairFlip},
		{"rollback", rollback},
		{"rollback-twice", rollbackTwice},
		{"restart-container", restartContainer},
		{"quorum-lost", quorumLostScene},
	} {
		t.Run(sc.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 3; seed++ {
				sc.play(newScene(t, seed))
			}
		})
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

func lastCacheLoss(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(second)
	s.serving()
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	old := s.write(0, block.BlockSize)
	s.flush()
	w := s.write(0, block.BlockSize)
	s.power(0)
	s.wait(100 * millisecond)
	f := s.begin(core.FlushRequest, 0, 0)
	s.restart(0)
	s.end(f)
	s.wait(second)
	s.serving()
	got := s.read(0)
	if f.outcome == succeeded {
		s.want(got, value(w.id))
	} else if got != value(w.id) {
		s.want(got, value(old.id))
	}
	s.rest()
}

// flushAfterLoss: the only member is back after a loss of power, and Raft cannot
// be told yet. Meanwhile it must neither pass a flush, which would cover what it
// has forgotten, nor let a region leave its log, whose checksums it has forgotten.
func flushAfterLoss(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(second)
	s.serving()
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.write(0, block.ExtentSize)
	s.flush()
	kept := s.write(0, block.ExtentSize)
	s.flush()
	lost := s.write(block.ExtentSize, block.BlockSize)
	s.truth.quorum = false
	s.power(0)
	s.restart(0)
	s.breakLinks(0)
	s.wait(200 * millisecond)
	f := s.begin(core.FlushRequest, 0, 0)
	s.wait(3 * second)
	s.truth.restore()
	s.end(f)
	s.wait(second)
	s.serving()
	s.want(s.read(0), value(kept.id))
	if got := s.read(block.ExtentSize); got != value(lost.id) && f.outcome == succeeded {
		s.t.Fatalf("%v succeeded and %v is gone", f, lost)
	}
	s.rest()
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

func admissionUnknown(s *scene) {
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.write(0, block.ExtentSize)
	s.restart(2)
	// The admission goes into the log, but neither lands nor is answered until
	// the next engine is there.
	var late []func()
	proposed := false
	s.options.Plant.effect = func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectPropose || len(ef.Proposal.Admit) == 0 || proposed {
			return true
		}
		proposed = true
		p := ef.Proposal
		late = append(late, func() { s.truth.propose(h, p) })
		s.loop.after(h.process, proposeTimeout, func() {
			h.step(core.Event{Kind: core.EventOutcome, Proposal: p})
		})
		return false
	}
	s.until("a proposed admission", func() bool { return proposed })
	first := s.v.current
	s.cut(0, 2, true)
	for range 5 {
		first.client.send(core.Request{Kind: core.WriteRequest, Length: block.ExtentSize})
	}
	s.wait(s.loop.between(millisecond, 50*millisecond))
	for _, land := range late {
		land()
	}
	s.wait(20 * millisecond)
	s.kill(0)
	s.v.target = s.nodes[2]
	s.wait(500 * millisecond)
	s.serving()
	s.read(0)
	s.write(0, block.BlockSize)
	s.restart(0, 1)
	s.rest()
}

func sameEpoch(s *scene) {
	s.write(0, block.BlockSize)
	s.nodes[1].storage.drive.slow = 1000
	w1 := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(5 * millisecond)
	s.breakLinks(1)
	s.end(w1)
	w2 := s.write(0, block.BlockSize)
	s.nodes[1].storage.drive.slow = 0
	s.wait(second)
	s.want(s.read(0), value(w2.id))
	s.rest()
	s.want(s.read(0), value(w2.id))
}

func subBlock(s *scene) {
	s.nodes[1].storage.drive.slow = 20
	var ops []*operation
	for i := range int64(block.BlockSize / block.SectorSize) {
		ops = append(ops, s.begin(core.WriteRequest, i*block.SectorSize, block.SectorSize))
	}
	for i, op := range ops {
		s.end(op)
		s.want(s.read(int64(i)*block.SectorSize), value(op.id))
	}
	s.rest()
}

// leaseOfSleeper: E1's machine is paused with a read queued, and hears nothing when
// it wakes. Its own replica knows of no newer engine.
func leaseOfSleeper(s *scene) {
	s.write(0, block.BlockSize)
	sleeper := s.v.current
	s.truth.unreachable[0] = true
	for from := 1; from < len(s.nodes); from++ {
		s.cut(from, 0, true)
	}
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

func fsyncFails(s *scene) {
	w := s.write(0, block.BlockSize)
	s.nodes[1].storage.drive.syncFails = 1
	s.flush()
	s.inSync(0, 2)
	s.want(s.read(0), value(w.id))
	s.kill(1)
	s.wait(100 * millisecond)
	s.restart(1)
	s.rest()
}

func fullDisk(s *scene) {
	for _, n := range s.nodes[:3] {
		n.storage.full(true)
	}
	var ops []*operation
	for i := range int64(40) {
		ops = append(ops, s.begin(core.WriteRequest, block.RegionSize+i*block.ExtentSize, block.ExtentSize))
	}
	s.wait(5 * second)
	if view := s.truth.view(s.v.id); view.InSync() != 3 {
		s.t.Fatalf("full disks shrank the in-sync set: %s", s.describeView(&view))
	}
	for _, n := range s.nodes[:3] {
		n.storage.full(false)
	}
	for _, op := range ops {
		s.end(op)
	}
	s.rest()
}

// fullSource: the only member is full, the target takes the write and is then
// copied over from the member that lacks it. The target is admitted, the member
// removed, and the write acknowledged: it must be there.
func fullSource(s *scene) {
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.write(0, block.BlockSize)
	s.nodes[0].storage.full(true)
	var ops []*operation
	for i := range int64(8) {
		ops = append(ops, s.begin(core.WriteRequest, block.RegionSize+i*block.ExtentSize, block.ExtentSize))
	}
	s.wait(100 * millisecond)
	s.restart(2)
	s.inSync(2)
	for _, op := range ops {
		s.end(op)
		s.want(s.read(op.offset), value(op.id))
	}
	s.restart(1)
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

// writeOverRot: a write of a part of a block whose other part has rotted, with and
// without a peer that has it intact. It is not frozen for ever, and the rotten
// bytes do not get a new checksum.
func writeOverRot(s *scene) {
	s.write(0, 2*block.BlockSize)
	s.flush()
	s.wait(4 * second)
	s.rot(0, 1)
	w := s.write(0, block.SectorSize)
	if w.outcome != succeeded {
		s.t.Fatalf("%v failed although others have the block", w)
	}
	s.inSync(0, 1, 2)
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.flush()
	s.wait(4 * second)
	s.rot(0, 9)
	w = s.write(block.BlockSize, block.SectorSize)
	if w.outcome == succeeded {
		s.t.Fatalf("%v succeeded although nobody has the block", w)
	}
	s.restart(1, 2)
	s.wait(second)
	w = s.write(block.BlockSize, block.BlockSize)
	s.want(s.read(block.BlockSize), value(w.id))
	s.rest()
}

// lostRemoval: the removal of A was committed, and E1, beside A, has not heard of
// it. E2 attaches with {B}, drops nobody, and writes, while E1 still has a lease.
func lostRemoval(s *scene) {
	s.kill(2)
	s.inSync(0, 1)
	s.write(0, block.BlockSize)
	first, view := s.v.current, s.truth.view(s.v.id)
	s.truth.unreachable[0] = true
	for from := 1; from < len(s.nodes); from++ {
		s.cut(from, 0, true)
	}
	removal := block.Proposal{Volume: s.v.id, Epoch: view.Epoch, Revision: view.Revision,
		Remove: []block.ReplicaID{s.v.replicas[0]}}
	if r := s.truth.apply(state.Propose{Proposal: removal}); r.Verdict != block.Committed {
		s.t.Fatalf("removal: %v", r.Err)
	}
	s.v.target = s.nodes[3]
	written := false
	for range 200 {
		if c := s.v.current; c != first && c.serving && !written {
			s.write(0, block.BlockSize)
			written = true
		}
		if len(first.client.order) == 0 && !first.stopped {
			first.client.send(core.Request{Kind: core.ReadRequest, Length: block.SectorSize})
		}
		s.wait(5 * millisecond)
	}
	s.restart(2)
	s.rest()
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

func clearDivergent(s *scene) {
	s.write(0, block.BlockSize)
	s.flush()
	s.cut(0, 1, true)
	s.cut(0, 2, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(0)
	s.cut(0, 1, false)
	s.cut(0, 2, false)
	s.wait(500 * millisecond)
	s.serving()
	s.flush()
	s.killEngine(3)
	s.wait(500 * millisecond)
	s.serving()
	s.read(0)
	s.rest()
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

func takeoverLogs(s *scene) {
	s.write(0, block.ExtentSize)
	s.flush()
	s.kill(2)
	s.inSync(0, 1)
	s.kill(1)
	s.inSync(0)
	z := s.end(s.begin(core.ZeroRequest, 0, block.ExtentSize))
	s.restart(1)
	s.inSync(0, 1)
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.kill(0)
	s.inSync(1)
	s.restart(2)
	s.inSync(1, 2)
	s.want(s.read(0), z.shown())
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

// repairFlip: a write is on one member alone when the engine dies. Whatever the
// next read returns stays, although the member that was read from dies then.
func repairFlip(s *scene) {
	s.write(0, block.BlockSize)
	s.flush()
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
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
	s.wait(s.loop.between(0, 2*millisecond))
	s.kill(0)
	s.want(s.read(0), got)
	s.killEngine(2)
	s.wait(500 * millisecond)
	s.serving()
	s.want(s.read(0), got)
	s.restart(0)
	s.rest()
	s.want(s.read(0), got)
}

// image is a disk as it once was.
type image struct {
	device    *vfs.MemDevice
	directory *pebblevfs.MemFS
}

// save copies the disk of a node whose daemon does not run.
func (s *scene) save(i int) image {
	d := s.nodes[i].storage
	all := pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))}
	return image{device: d.device.Fork(), directory: d.directory.CrashClone(all)}
}

// putBack gives a node that is down its disk as it was. To the checker of doors it
// is another disk.
func (s *scene) putBack(i int, old image) {
	d := s.nodes[i].storage
	d.device = old.device.Kill(d.executor, func(int, vfs.UnsyncedWrite, int) bool { return true })
	d.directory = old.directory
	delete(s.doors.replicas, s.v.replicas[i])
}

// rolledBackDisk puts B's disk back behind writes that every log has forgotten.
func rolledBackDisk(s *scene) *operation {
	s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	s.kill(1)
	old := s.save(1)
	s.restart(1)
	s.inSync(0, 1, 2)
	w := s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.flush()
	s.wait(4 * second)
	s.power(1)
	s.inSync(0, 2)
	s.putBack(1, old)
	s.restart(1)
	return w
}

func rollback(s *scene) {
	w := rolledBackDisk(s)
	s.rest()
	s.want(s.read(2*block.RegionSize), value(w.id))
}

func rollbackTwice(s *scene) {
	flushed := false
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		flushed = flushed || c.to.index == 1 && req.Op == block.OpFlush
		return true
	}
	w := rolledBackDisk(s)
	flushed = false
	s.until("a flush of the disk that was put back", func() bool { return flushed })
	s.wait(2 * millisecond)
	s.killEngine(0)
	s.wait(200 * millisecond)
	s.rest()
	s.want(s.read(2*block.RegionSize), value(w.id))
}

func restartContainer(s *scene) {
	w := s.write(0, block.ExtentSize)
	for i := range 3 {
		s.kill(i)
	}
	s.wait(500 * millisecond)
	s.restart(0, 1, 2)
	s.wait(200 * millisecond)
	s.serving()
	if n := s.paths.counts["view: attachment ended, all lost"]; n != 0 {
		s.t.Fatal("a restart was taken for a loss of power")
	}
	s.want(s.read(0), value(w.id))
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
