package sim

import (
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// replacing begins to move the replica of node 1 to node 3, whose disk has none.
func (s *scene) replacing() (old, next block.ReplicaID) {
	old = s.v.replicas[1]
	next = s.replaceBy(s.v, old, s.nodes[3])
	s.retires()
	return old, next
}

// retires tells the engine again and again what is to leave.
func (s *scene) retires() {
	s.loop.after(nil, 100*millisecond, func() {
		s.retire(s.v)
		s.retires()
	})
}

// joined waits until a replica is in the view, in sync or not.
func (s *scene) joined(id block.ReplicaID, inSync bool) {
	s.t.Helper()
	s.until("a replica to join", func() bool {
		view := s.truth.view(s.v.id)
		m := view.Member(id)
		return m != nil && m.InSync == inSync
	})
}

// replacedPoints are the moments at which the blow falls, and whom it hits.
const replacedPoints = 12

// replacedScene: the replica of node 1 moves to node 3 while clients write. The new
// node, the old node, the engine, or another member dies once the new replica is in the
// view, half copied, or just in sync.
func replacedScene(s *scene) {
	w := s.write(0, block.ExtentSize)
	s.write(block.RegionSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second) // the logs, which would tell what the new one lacks, are cleared
	old, next := s.replacing()
	hit := func() {
		switch s.point % 4 {
		case 0:
			s.kill(3)
		case 1:
			s.power(1)
		case 2:
			s.killEngine(0)
		case 3:
			s.kill(2)
		}
	}
	switch s.point / 4 {
	case 0:
		s.joined(next, false)
	case 1:
		hashes := 0
		s.options.Plant.request = func(c *conn, req *block.Request) bool {
			if c.replica == next && req.Op == block.OpHash {
				hashes++
			}
			return true
		}
		s.until("half of a copy", func() bool { return hashes > 20 })
	case 2:
		s.joined(next, true)
	}
	hit()
	s.wait(500 * millisecond)
	s.serving()
	s.begin(core.WriteRequest, block.ExtentSize, block.ExtentSize)
	s.wait(500 * millisecond)
	s.rest() // whoever is down comes back
	if view := s.truth.view(s.v.id); view.Member(old) != nil || view.InSync() != 3 {
		s.t.Fatalf("view %+v", view)
	}
	s.until("the old replica to be gone from its disk", func() bool {
		_, err := s.nodes[1].storage.store.Replica(old)
		_, known := s.truth.state.VolumeOf(old)
		return err != nil && !known
	})
	// Everything is on the new one alone.
	s.kill(0)
	s.kill(2)
	s.v.target = s.nodes[1]
	s.wait(500 * millisecond)
	s.restart(0, 2)
	s.serving()
	s.want(s.read(0), value(w.id))
}

// replacedGrown: the new replica was made, and Raft has not heard of it, when the volume
// becomes larger. It is asked for again at the new size.
func replacedGrown(s *scene) {
	made := s.v.size
	s.growBy(growthStep)
	w := s.write(made, growthStep)
	old, next := s.replacing()
	if err := s.nodes[3].server.CreateReplica(s.nodes[3].storage.id, next, s.v.id, made); err != nil {
		s.t.Fatal(err)
	}
	s.until("the end of the replacement", func() bool {
		view := s.truth.view(s.v.id)
		return view.Member(old) == nil
	})
	s.rest()
	s.want(s.read(made), value(w.id))
}

// replacedRevertedPoints are how many changes a revert makes, its flush among them.
const replacedRevertedPoints = 9

// replacedReverted: the volume is reverted while the replica of node 1 moves to node 3. In
// the middle of the revert, anywhere, its engine brings the new one in sync and lets the
// old one go, which may be on its own node. In the end all that are left are the snapshot.
func replacedReverted(s *scene) {
	first, _ := s.changedSince()
	s.takeAway()
	old, next := s.replacing()
	s.joined(next, false)
	s.must(state.RevertVolume{Volume: s.v.id, Snapshot: first.id})
	h := s.borrow(s.point % 2)
	s.until("the borrower", func() bool { return h.serving })
	changes := 0
	var waiting []core.Event
	s.options.Plant.event = func(on *host, ev *core.Event) bool {
		if on != h || ev.Kind != core.EventRequest || ev.Request.Kind == core.ChangedRequest || ev.Request.Kind == core.ReadRequest {
			return true
		}
		if changes++; changes <= s.point {
			return true
		}
		waiting = append(waiting, *ev)
		return false
	}
	x := s.World.revert(h, first.id)
	s.until("the end of the replacement", func() bool {
		view := s.truth.view(s.v.id)
		return view.Member(old) == nil
	})
	if x.told || !s.reverting() {
		s.t.Fatalf("it was over after %d changes", changes)
	}
	s.options.Plant.event = nil
	for _, ev := range waiting {
		h.step(ev)
	}
	s.until("the end of the revert", func() bool { return x.told || x.failed != nil })
	if x.failed != nil {
		s.t.Fatal(x.failed)
	}
	s.detach(h)
	s.until("the end of the engine", func() bool { return h.stopped })
	s.giveBack(h)
	if view := s.truth.view(s.v.id); view.InSync() != 3 || !view.Member(next).InSync {
		s.t.Fatalf("view %+v", view)
	}
	s.compareReverted(s.v, first)
	s.check()
	s.goOn()
	s.rest()
}

// replacedYields: a volume that nobody has is borrowed by an engine that yields. It is
// published at once, and what the borrower proposes from then on does not land.
func replacedYields(s *scene) {
	w := s.write(0, block.ExtentSize)
	s.flush()
	s.killEngine(0)
	s.v.target = nil
	vol, _ := s.truth.state.Volume(s.v.id)
	if r := s.truth.apply(state.Unpublish{Volume: s.v.id, Node: vol.Published, EndAttachment: true}); r.Err != nil {
		s.t.Fatal(r.Err)
	}
	vol, _ = s.truth.state.Volume(s.v.id)
	start := state.StartEngine{Volume: s.v.id, Node: s.nodes[2].id, Start: block.StartID{ID: s.loop.id()}, Epoch: vol.View.Epoch,
		NewAttachment: block.AttachmentID{ID: s.loop.id()}, Borrow: true, Yield: true}
	r := s.truth.apply(start)
	if r.Err != nil {
		s.t.Fatal(r.Err)
	}
	borrowed := r.View()
	if r = s.truth.apply(state.Publish{Volume: s.v.id, Node: s.nodes[1].id}); r.Err != nil {
		s.t.Fatalf("it is not published: %v", r.Err)
	}
	r = s.truth.apply(state.Propose{Proposal: block.Proposal{Volume: s.v.id, Epoch: borrowed.Epoch, Revision: r.View().Revision,
		Remove: []block.ReplicaID{s.v.replicas[0]}}})
	if r.Verdict != block.Conflict {
		s.t.Fatalf("the borrower removes a replica: %+v", r)
	}
	s.v.target = s.nodes[1]
	s.wait(100 * millisecond)
	s.serving()
	s.want(s.read(0), value(w.id))
}
