package sim

import (
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// cutDivergentPoints and cutDuringAdmissionPoints are how many messages the two attacks
// take, at each of which a snapshot is asked for.
const (
	cutDivergentPoints       = 36
	cutDuringAdmissionPoints = 24
)

// snapshot asks for a snapshot and waits for its end.
func (s *scene) snapshot() *shot {
	s.t.Helper()
	shot := s.takeSnapshot(s.v)
	if shot == nil {
		s.t.Fatal("no snapshot can be asked for")
	}
	s.until("the end of a snapshot", func() bool { s.tidy(s.v); return shot.read && shot.taken || shot.failed })
	if shot.failed {
		s.t.Fatal("the snapshot was given up")
	}
	return shot
}

// keepSnapshots deletes all but some of the snapshots, the oldest first.
func (s *scene) keepSnapshots(n int) {
	s.t.Helper()
	for list := s.truth.view(s.v.id).Snapshots; len(list) > n; list = list[1:] {
		if r := s.truth.apply(state.DeleteSnapshot{Snapshot: list[0].ID}); r.Err != nil {
			s.t.Fatal(r.Err)
		}
	}
	s.step()
}

// step shows the engine the view that Raft has.
func (s *scene) step() {
	s.v.current.step(core.Event{Kind: core.EventView, View: s.truth.view(s.v.id)})
}

// cutDivergent: after the end of an engine that had a write on one member only, a
// snapshot is asked for at each step of the attach, of the repair and of the resync of
// another replica. All that hold it as valid hold the same, which is what a client could
// have read.
func cutDivergent(s *scene) {
	s.write(0, 2*block.BlockSize)
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.kill(2)
	s.inSync(0, 1)
	s.write(block.ExtentSize, block.BlockSize)
	s.cut(3, 1, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(3)
	s.cut(3, 1, false)
	s.restart(2)
	var shot *shot
	s.afterMessages(1+s.point, func() { shot = s.takeSnapshot(s.v) })
	s.serving()
	for n := range int64(8) {
		s.write(n*block.BlockSize, block.BlockSize)
	}
	s.inSync(0, 1, 2)
	s.until("the snapshot", func() bool {
		s.tidy(s.v)
		if shot == nil || shot.failed {
			shot = s.takeSnapshot(s.v)
		}
		return shot != nil && shot.read
	})
	s.rest()
}

// cutUnknown: the outcome of a snapshot is not heard, and it lands late, or never; or
// its members do not answer in time and it is given up; then another engine is started.
// In the end Raft's snapshots are the cuts of the in-sync set.
func cutUnknown(s *scene) {
	s.write(0, block.BlockSize)
	switch s.point {
	case 0, 1:
		s.truth.unreachable[0] = s.point == 0
		s.truth.quorum = s.point == 0
	case 2:
		s.cut(0, 1, true)
	}
	shot := s.takeSnapshotOf(s.v)
	s.write(block.BlockSize, block.BlockSize)
	s.wait(second)
	s.v.target = s.nodes[3]
	s.killEngine(3)
	delete(s.truth.unreachable, 0)
	s.cut(0, 1, false)
	s.truth.restore()
	s.wait(500 * millisecond)
	s.serving()
	s.until("the end of the snapshot", func() bool { s.tidy(s.v); return shot.read || shot.op.outcome != pending })
	s.write(2*block.BlockSize, block.BlockSize)
	s.snapshot()
	s.rest()
}

// takeSnapshotOf is takeSnapshot, whether there is a quorum or not: its name was
// reserved before.
func (s *scene) takeSnapshotOf(v *volume) *shot {
	s.t.Helper()
	shot := s.takeSnapshot(v)
	if shot == nil {
		s.t.Fatal("no snapshot can be asked for")
	}
	return shot
}

// absentDeletes: while C is away, twice, snapshots are taken and deleted and the volume
// grows. C is equal in every layer when it is admitted.
func absentDeletes(s *scene) {
	for n := range int64(3) {
		s.write(n*block.BlockSize, 2*block.BlockSize)
		s.snapshot()
	}
	for round := range int64(2) {
		s.kill(2)
		s.inSync(0, 1)
		s.write(round*block.BlockSize, block.BlockSize)
		s.snapshot()
		s.write(2*block.ExtentSize+round*block.BlockSize, block.BlockSize)
		s.keepSnapshots(2)
		s.growBy(growthStep)
		s.write(0, 3*block.BlockSize)
		s.snapshot()
		s.write(s.v.size-block.BlockSize, block.BlockSize)
		s.restart(2)
		if round == 0 {
			// It goes again in the middle of its resync.
			s.until("a copy", func() bool { return s.paths.counts["resync: hash"] > 0 })
			s.wait(3 * millisecond)
		}
	}
	s.inSync(0, 1, 2)
	s.rest()
}

func (s *scene) growBy(n int64) {
	s.t.Helper()
	size := s.v.size + n
	if r := s.truth.apply(state.GrowVolume{Volume: s.v.id, Size: size}); r.Err != nil {
		s.t.Fatal(r.Err)
	}
	s.until("the larger volume", func() bool { s.tidy(s.v); return s.v.size == size })
}

// cutDuringAdmission: a snapshot is asked for at each step of the return of a replica,
// to its admission and past it. The replica holds it, or is not in sync yet.
func cutDuringAdmission(s *scene) {
	s.write(0, block.BlockSize)
	s.kill(2)
	s.inSync(0, 1)
	s.write(0, 2*block.BlockSize)
	s.restart(2)
	var shot *shot
	s.afterMessages(1+s.point, func() { shot = s.takeSnapshot(s.v) })
	s.inSync(0, 1, 2)
	s.write(block.BlockSize, block.BlockSize)
	s.until("the snapshot", func() bool {
		s.tidy(s.v)
		if shot == nil || shot.failed {
			shot = s.takeSnapshot(s.v)
		}
		return shot != nil && shot.read
	})
	s.write(0, block.BlockSize)
	s.rest()
}

// cutBesideWritesPoints is how many messages a snapshot takes, after each of which
// writes begin.
const cutBesideWritesPoints = 12

// cutBesideWrites: blocks are written again, one of them by every write, while a
// snapshot is taken. Each member has all of a write in its cut or nothing, and the same
// as the others.
func cutBesideWrites(s *scene) {
	s.write(0, 4*block.BlockSize)
	s.flush()
	var writes []*operation
	s.afterMessages(1+s.point, func() {
		for n := range int64(4) {
			writes = append(writes, s.begin(core.WriteRequest, n*block.BlockSize, 2*block.BlockSize))
		}
	})
	s.snapshot()
	for _, w := range writes {
		s.end(w)
	}
	s.rest()
}
