package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

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

// second makes another volume on the same disks, attached on the same node.
func (s *scene) second() *scene {
	s.t.Helper()
	if err := s.create("second", 2*block.RegionSize, []int{0, 1, 2}, []area{{length: block.RegionSize}}, workload{}); err != nil {
		s.t.Fatal(err)
	}
	other := &scene{World: s.World, t: s.t, v: s.volumes[len(s.volumes)-1]}
	other.v.minSync, other.v.target = 1, s.nodes[0]
	other.serving()
	return other
}

// fsyncFails: a sync of the data file of B's disk fails once, and the next would
// succeed. Two volumes have a replica on it: both are out.
func fsyncFails(s *scene) {
	other := s.second()
	w, x := s.write(0, block.BlockSize), other.write(0, block.BlockSize)
	s.nodes[1].storage.drive.syncFails = 1
	s.flush()
	s.inSync(0, 2)
	other.write(block.BlockSize, block.BlockSize)
	other.flush()
	other.inSync(0, 2)
	s.want(s.read(0), value(w.id))
	s.want(other.read(0), value(x.id))
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

// leftBehind leaves one member, whose volume was overwritten since the others left. They
// have what it returns, and later writes beside it.
func leftBehind(s *scene) *operation {
	overwrite := func() (first *operation) {
		first = s.write(block.RegionSize, block.ExtentSize)
		for i := range int64(7) {
			s.write(block.RegionSize+(i+1)*block.ExtentSize, block.ExtentSize)
		}
		s.flush()
		return first
	}
	old := overwrite()
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	overwrite()
	return old
}

// fullTarget: a replica is back on a disk that has no room for the copy beside the head
// that it kept. While there is one member and nothing else, that head stays, in case that
// one is lost; with two members it goes, and the resync ends.
func fullTarget(s *scene) {
	leftBehind(s)
	s.nodes[2].storage.full(true)
	s.restart(2)
	s.wait(5 * second)
	s.inSync(0)
	s.restart(1)
	s.inSync(0, 1, 2)
	s.rest()
}

// fullTargets: two replicas are back on such disks. One gives up the head that it kept,
// the other keeps its own until the first is a member.
func fullTargets(s *scene) {
	leftBehind(s)
	s.nodes[1].storage.full(true)
	s.nodes[2].storage.full(true)
	s.restart(1, 2)
	s.inSync(0, 1, 2)
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

// rolledBackDisk puts B's disk back behind writes that every log has forgotten.
func rolledBackDisk(s *scene) *operation {
	s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	old := s.nodes[1].storage.photograph()
	s.inSync(0, 1, 2)
	w := s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.flush()
	s.wait(4 * second)
	s.power(1)
	s.inSync(0, 2)
	s.nodes[1].storage.putBack(old)
	s.restart(1)
	return w
}

// rollback: B's disk is put back to what it was before its removal, and another
// time while it is in sync.
func rollback(s *scene) {
	w := rolledBackDisk(s)
	s.rest()
	s.want(s.read(2*block.RegionSize), value(w.id))

	old := s.nodes[1].storage.photograph()
	s.rest()
	x := s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.flush()
	s.wait(4 * second)
	left := s.paths.counts["disk that was put back leaves"]
	s.killEngine(0)
	s.power(1)
	s.nodes[1].storage.putBack(old)
	s.restart(1)
	s.wait(500 * millisecond)
	s.serving()
	if s.paths.counts["disk that was put back leaves"] == left {
		s.t.Fatal("a disk that was put back stayed in sync")
	}
	s.want(s.read(2*block.RegionSize), value(x.id))
	s.rest()
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

// fullAndSlow: all disks are full, a target is slow, two replicas must have each
// write, and the quorum is lost for a while. Nobody leaves the in-sync set for want
// of space, nothing fails, and what the engine holds is bounded.
func fullAndSlow(s *scene) {
	s.v.minSync = 2
	s.killEngine(0)
	s.wait(500 * millisecond)
	s.serving()
	s.write(0, block.ExtentSize)
	s.kill(2)
	s.inSync(0, 1)
	for r := range int64(3) {
		s.write(r*block.RegionSize, 4*block.ExtentSize)
	}
	s.nodes[2].storage.drive.slow = 50
	s.restart(2)
	s.until("a target", func() bool { return s.v.current.core.Status().Targets != nil })
	for _, n := range s.nodes[:3] {
		n.storage.full(true)
	}
	s.truth.quorum = false
	var ops []*operation
	for i := range int64(s.options.Limits.Requests - 4) {
		ops = append(ops, s.begin(core.WriteRequest, block.RegionSize+4*block.ExtentSize+i*block.ExtentSize, block.ExtentSize))
	}
	s.wait(3 * second)
	s.truth.restore()
	s.wait(3 * second)
	view := s.truth.view(s.v.id)
	for _, i := range []int{0, 1} {
		if !view.Member(s.v.replicas[i]).InSync {
			s.t.Fatalf("full disks shrank the in-sync set: %s", s.describeView(&view))
		}
	}
	for _, n := range s.nodes[:3] {
		n.storage.full(false)
	}
	for _, op := range ops {
		if s.end(op); op.outcome != succeeded {
			s.t.Fatalf("%v failed", op)
		}
	}
	s.rest()
}

// readErrorOfLast: the last member's disk fails reads while a target is compared with
// it. Its writes go on, and the target is admitted when the disk gives its bytes.
func readErrorOfLast(s *scene) {
	s.write(0, block.ExtentSize)
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.write(0, 2*block.ExtentSize)
	s.unreadable = true
	s.nodes[0].storage.drive.readsFail = 3
	s.restart(1)
	s.until("the errors", func() bool { return s.nodes[0].storage.drive.readsFail == 0 })
	w := s.write(block.ExtentSize, block.BlockSize)
	s.inSync(0, 1)
	s.want(s.read(block.ExtentSize), value(w.id))
	s.restart(2)
	s.rest()
}

// rollbackAlone: the disk of the only replica in sync is put back. That ends the
// attachment once; those who return and know of later flushes are told nothing new.
func rollbackAlone(s *scene) {
	s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	old := s.nodes[0].storage.photograph()
	s.serving()
	s.inSync(0, 1, 2)
	s.write(2*block.RegionSize, block.ExtentSize)
	s.flush()
	s.flush()
	s.wait(4 * second)
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.power(0)
	s.nodes[0].storage.putBack(old)
	s.restart(1, 2)
	s.wait(second)
	s.restart(0)
	s.rest()
	if n := s.paths.counts["view: attachment ended, all lost"]; n > 1 {
		s.t.Fatalf("the attachment was ended %d times", n)
	}
}
