package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// revertPoints are where the blows of a revert fall: so many, revertStep messages apart.
const (
	revertPoints = 16
	revertStep   = 4
)

// changedSince makes a volume with a snapshot and everything that may have become of it
// since: blocks written, zeroed, written where nothing was, a later snapshot, a larger
// size; and takes it from its node.
func (s *scene) changedSince() (first, later *shot) {
	const far = 2 * block.RegionSize
	for n := range int64(6) {
		s.write(n*block.ExtentSize, 3*block.BlockSize)
	}
	s.write(far, block.ExtentSize)
	first = s.snapshot()
	s.write(block.BlockSize, block.BlockSize+block.SectorSize)
	s.write(block.ExtentSize+8*block.BlockSize, 2*block.BlockSize)
	s.end(s.begin(core.ZeroRequest, 2*block.ExtentSize, block.BlockSize))
	s.write(block.RegionSize, block.ExtentSize)
	later = s.snapshot()
	s.growBy(growthStep)
	s.write(s.v.size-block.BlockSize, block.BlockSize)
	s.write(far+5*block.SectorSize, 20*block.SectorSize)
	s.write(3*block.ExtentSize, block.ExtentSize)
	s.flush()
	return first, later
}

// takeAway ends the engine, so that the volume is published to nobody, and leaves it so.
func (s *scene) takeAway() {
	s.t.Helper()
	s.v.starting = s.nodes[3].process
	s.endEngine()
	s.must(state.Unpublish{Volume: s.v.id, Node: s.nodes[0].id, EndAttachment: true})
}

func (s *scene) must(c state.Command) state.Result {
	s.t.Helper()
	r := s.truth.apply(c)
	s.check()
	if r.Err != nil {
		s.t.Fatal(r.Err)
	}
	return r
}

// borrow begins an engine without a frontend on a node.
func (s *scene) borrow(node int) *host {
	s.t.Helper()
	n := s.nodes[node]
	started := s.must(state.StartEngine{Volume: s.v.id, Node: n.id, Start: block.StartID{ID: s.loop.id()},
		Epoch: s.truth.view(s.v.id).Epoch, NewAttachment: block.AttachmentID{ID: s.loop.id()}, Borrow: true})
	s.launch(s.v, n, started.View(), workload{})
	return s.v.current
}

// giveBack ends what a borrower had begun, in whatever state it is.
func (s *scene) giveBack(h *host) {
	s.t.Helper()
	if !h.ended() {
		h.die()
	}
	s.drop(h)
	s.must(state.EndAttachment{Volume: s.v.id, Attachment: h.view.Attachment})
}

// locked verifies that a client does not get the volume now, nor anybody rid of the
// snapshot that it is to be.
func (s *scene) locked() {
	s.t.Helper()
	v, _ := s.truth.state.Volume(s.v.id)
	if r := s.truth.apply(state.DeleteSnapshot{Snapshot: v.Revert.To}); r.Err == nil {
		s.check()
		s.t.Fatal("the snapshot that a volume is being reverted to is gone")
	}
	if r := s.truth.apply(state.Publish{Volume: s.v.id, Node: s.nodes[1].id}); r.Err == nil {
		s.check()
		s.t.Fatal("a client gets a volume that is being reverted")
	}
}

// revertOn has an engine on a node go on with a revert. It dies after so many messages,
// unless that is 0 or it is done before.
func (s *scene) revertOn(node int, to *shot, messages int) (done bool) {
	s.t.Helper()
	h := s.borrow(node)
	s.until("the borrower", func() bool { return h.serving || h.ended() })
	dead := false
	if messages > 0 {
		s.afterMessages(messages, func() { dead = true })
	}
	x := s.World.revert(h, to.id)
	silent := s.point%4 != 3
	s.until("the end of a revert", func() bool {
		if over, err := x.run.Ended(); over && err == nil && !silent {
			silent, s.truth.quorum = true, false
			s.loop.after(nil, second, s.truth.restore)
		}
		return dead || x.told || x.failed != nil
	})
	if !s.truth.quorum {
		s.truth.restore()
	}
	if x.told {
		s.detach(h)
		s.until("the end of the engine", func() bool { return h.stopped })
	}
	s.giveBack(h)
	return x.told
}

// goOn gives the volume back to clients.
func (s *scene) goOn() {
	s.t.Helper()
	s.v.starting, s.v.target = nil, s.nodes[1]
	s.serving()
}

// revert: with C away, the engine that reverts a volume dies, twice, after any number of
// messages; C comes back and is brought up to date meanwhile; the end is told to nobody.
// In between nobody else gets the volume. In the end it is the snapshot on every replica,
// and the later snapshot is what it was.
func revert(s *scene) {
	first, later := s.changedSince()
	s.kill(2)
	s.inSync(0, 1)
	s.write(4*block.ExtentSize, block.ExtentSize)
	s.flush()
	s.takeAway()
	s.must(state.RevertVolume{Volume: s.v.id, Snapshot: first.id})
	s.locked()
	blow := 1 + s.point*revertStep
	done := s.revertOn(0, first, blow)
	if !done {
		s.locked()
		s.restart(2)
		done = s.revertOn(3, first, blow)
	}
	for n := 1; !done; n++ {
		s.locked()
		done = s.revertOn(n%2, first, 0)
	}
	s.compareReverted(s.v, first)
	s.check()
	s.restart(2)
	s.goOn()
	s.inSync(0, 1, 2)
	s.compareReverted(s.v, first)
	s.check()
	// It may be used, and what came later can be had back.
	s.write(0, block.BlockSize)
	s.v.starting = s.nodes[3].process
	s.endEngine()
	s.must(state.Unpublish{Volume: s.v.id, Node: s.nodes[1].id, EndAttachment: true})
	s.must(state.RevertVolume{Volume: s.v.id, Snapshot: later.id})
	for !s.revertOn(0, later, 0) {
	}
	s.compareReverted(s.v, later)
	s.check()
	s.goOn()
	s.rest()
}

// revertThenLoss: all machines lose their power as soon as Raft has the end of a revert.
func revertThenLoss(s *scene) {
	first, _ := s.changedSince()
	s.takeAway()
	s.must(state.RevertVolume{Volume: s.v.id, Snapshot: first.id})
	h := s.borrow(0)
	s.until("the borrower", func() bool { return h.serving })
	x := s.World.revert(h, first.id)
	s.until("the end of a revert", func() bool { return !s.reverting() || x.failed != nil })
	for n := range 3 {
		s.power(n)
	}
	s.giveBack(h)
	s.restart(0, 1, 2)
	s.goOn()
	s.rest()
	s.compareReverted(s.v, first)
	s.check()
}

func (s *scene) reverting() bool {
	v, _ := s.truth.state.Volume(s.v.id)
	return v.Reverting()
}

// TestBadReverts: what a revert must not do is found.
func TestBadReverts(t *testing.T) {
	s := newScene(t, 1)
	first, _ := s.changedSince()
	s.compareReverted(s.v, first)
	s.expect(t, "reverts")

	s = newScene(t, 1)
	first, _ = s.changedSince()
	s.reverted(s.v.current, first)
	s.expect(t, "linearizable")

	s = newScene(t, 1)
	first, _ = s.changedSince()
	s.takeAway()
	before := s.truth.state
	s.must(state.Publish{Volume: s.v.id, Node: s.nodes[1].id})
	published := s.truth.state
	s.truth.state = before
	s.must(state.RevertVolume{Volume: s.v.id, Snapshot: first.id})
	s.truth.notReverting(s.truth.state, published, "a command")
	s.expect(t, "reverts")
}
