package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// cutLostPoints and cutTakenBackPoints are how many messages it takes from the wish for
// a snapshot to its commit.
const (
	cutLostPoints      = 15
	cutTakenBackPoints = 15
)

// cutLost: C loses its power at each step of a snapshot, and with it what it had taken
// into its cut and not flushed. While it is brought back, flushes reach it all the time.
// When it is in sync, its cut is that of the others.
func cutLost(s *scene) {
	const at = block.RegionSize - block.ExtentSize
	s.write(at, block.ExtentSize)
	s.flush()
	s.write(at, 2*block.BlockSize)
	s.afterMessages(1+s.point, func() { s.power(2) })
	shot := s.takeSnapshotOf(s.v)
	s.until("the end of the snapshot", func() bool { s.tidy(s.v); return shot.read || shot.failed })
	s.until("the loss of power", func() bool { return s.nodes[2].process == nil })
	s.restart(2)
	for view := s.truth.view(s.v.id); view.InSync() < 3; view = s.truth.view(s.v.id) {
		s.flush()
	}
	s.rest()
}

// cutQueued: a snapshot is taken while C, which is slow and on its way back, has writes
// queued in a region that it had not missed. They are in its cut, too.
func cutQueued(s *scene) {
	s.write(0, 2*block.BlockSize)
	s.flush()
	s.wait(4 * second) // nothing is left in the logs
	s.kill(2)
	s.inSync(0, 1)
	for n := range int64(4) {
		s.write(2*block.RegionSize+n*block.ChunkSize, block.ExtentSize)
	}
	s.flush()
	s.wait(4 * second)
	s.restart(2)
	s.until("a resync", func() bool { return s.paths.counts["resync: started"] > 0 })
	s.nodes[2].storage.drive.slow = 400
	for range 3 {
		s.write(0, block.BlockSize)
	}
	shot := s.takeSnapshotOf(s.v)
	s.until("the snapshot", func() bool { s.tidy(s.v); return shot.committed || shot.failed })
	if view := s.truth.view(s.v.id); shot.failed || view.InSync() != 2 {
		s.t.Fatalf("failed %v, %d are in sync", shot.failed, view.InSync())
	}
	s.nodes[2].storage.drive.slow = 0
	s.inSync(0, 1, 2)
	s.rest()
}

// cutUnheard: again and again the outcome of a snapshot is not heard, and it lands later,
// or the no-op that settles it does. The engine lives, and keeps the cut until it knows.
func cutUnheard(s *scene) {
	for n := range int64(5) {
		s.write(n*block.BlockSize, block.BlockSize)
		s.truth.quorum = false
		shot := s.takeSnapshotOf(s.v)
		s.wait(second)
		s.truth.restore()
		s.wait(60 * millisecond)
		s.until("the end of the snapshot", func() bool { s.tidy(s.v); return shot.read || shot.failed })
		s.keepSnapshots(1)
	}
	s.rest()
}

// cutTakenBack: the reservation of a snapshot is taken back at each step of it, by
// whoever does not want to wait any longer. It was taken before, or never is.
func cutTakenBack(s *scene) {
	s.write(0, block.BlockSize)
	var shot *shot
	s.afterMessages(1+s.point, func() {
		if r := s.truth.apply(state.DeleteSnapshot{Snapshot: shot.id, Untaken: true}); r.Err != nil {
			s.t.Error(r.Err)
		}
		s.step()
	})
	shot = s.takeSnapshotOf(s.v)
	s.until("the end of the snapshot", func() bool { s.tidy(s.v); return shot.read || shot.failed })
	s.write(0, block.BlockSize)
	s.snapshot()
	s.rest()
}

// snapshotAgain: the reservation of a snapshot that was taken and deleted arrives once
// more, late. Its ID and its name stay gone.
func snapshotAgain(s *scene) {
	s.write(0, block.BlockSize)
	decided := s.truth.index
	shot := s.snapshot()
	s.keepSnapshots(0)
	r := s.truth.apply(state.CreateSnapshot{Snapshot: shot.id, Name: shot.id.String(), Volume: s.v.id, Created: shot.created, DecidedAt: decided})
	s.check()
	if r.Err == nil {
		s.t.Fatal("the reservation is accepted")
	}
	s.write(0, block.BlockSize)
	s.rest()
}

// sizeUnasked: an engine is told to grow the volume before Raft has the intent. Nothing
// is committed before that.
func sizeUnasked(s *scene) {
	s.write(0, block.BlockSize)
	s.v.current.step(core.Event{Kind: core.EventGrow, Size: s.v.size + growthStep})
	s.wait(100 * millisecond)
	s.growBy(growthStep)
	s.write(s.v.size-block.BlockSize, block.BlockSize)
	s.snapshot()
	s.rest()
}

// borrowed: while a node has borrowed the volume for a snapshot, another one wants to
// have it published. It has to wait for the end.
func borrowed(s *scene) {
	w := s.write(0, block.BlockSize)
	// Until then nobody starts an engine.
	s.v.starting = s.nodes[3].process
	s.endEngine()
	must := func(c state.Command) {
		s.t.Helper()
		if r := s.truth.apply(c); r.Err != nil {
			s.t.Fatal(r.Err)
		}
	}
	must(state.Unpublish{Volume: s.v.id, Node: s.nodes[0].id, EndAttachment: true})
	must(state.StartEngine{Volume: s.v.id, Node: s.nodes[3].id, Start: block.StartID{ID: s.loop.id()},
		Epoch: s.truth.view(s.v.id).Epoch, NewAttachment: block.AttachmentID{ID: s.loop.id()}, Borrow: true})
	view := s.truth.view(s.v.id)
	s.launch(s.v, s.nodes[3], view, workload{})
	s.v.starting, s.v.target = nil, s.nodes[1]
	s.until("the borrower", func() bool { return s.v.current.serving })
	s.wait(500 * millisecond)
	s.snapshot()
	s.endEngine()
	must(state.EndAttachment{Volume: s.v.id, Attachment: view.Attachment})
	s.serving()
	s.want(s.read(0), value(w.id))
	s.rest()
}

// endEngine ends the engine of the volume in order.
func (s *scene) endEngine() {
	s.t.Helper()
	h := s.v.current
	s.detach(h)
	s.until("the end of the engine", func() bool { return h.stopped })
}

// TestIntentsComeFirst: what nobody has reserved, wanted or given back is found.
func TestIntentsComeFirst(t *testing.T) {
	s := newScene(t, 1)
	shot := s.snapshot()
	p := block.Proposal{Volume: s.v.id, Snapshot: &block.Snapshot{ID: shot.id}}
	s.truth.intended(s.truth.state, &p)
	s.expect(t, "proposers")

	s = newScene(t, 1)
	s.truth.intended(s.truth.state, &block.Proposal{Volume: s.v.id, Size: s.v.size + growthStep})
	s.expect(t, "proposers")

	s = newScene(t, 1)
	s.snapshot()
	before := s.truth.state
	s.keepSnapshots(0)
	s.expect(t, "")
	s.identities.changed(s.truth.state, before, "a command")
	s.expect(t, "identity")

	s = newScene(t, 1)
	published := s.truth.state
	s.v.starting = s.nodes[3].process
	s.endEngine()
	s.truth.apply(state.Unpublish{Volume: s.v.id, Node: s.nodes[0].id, EndAttachment: true})
	s.truth.apply(state.StartEngine{Volume: s.v.id, Node: s.nodes[3].id, Start: block.StartID{ID: s.loop.id()},
		Epoch: s.truth.view(s.v.id).Epoch, NewAttachment: block.AttachmentID{ID: s.loop.id()}, Borrow: true})
	s.expect(t, "")
	s.truth.notBorrowed(s.truth.state, published, "a command")
	s.expect(t, "attachments")
}
