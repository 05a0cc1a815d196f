package sim

import (
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// isolate cuts a node off from all others and from Raft.
func (s *scene) isolate(i int) {
	s.truth.unreachable[i] = true
	for other := range s.nodes {
		if other != i {
			s.cut(i, other, true)
			s.cut(other, i, true)
		}
	}
}

// admissionUnknown: E1 with {A} proposes {A,C} and hears nothing. The entry lands at
// some later point, E2 attaches near C and drops A, and E1 lives on beside A.
func admissionUnknown(s *scene) {
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	s.write(0, block.ExtentSize)
	s.restart(2)
	// The admission goes into the log, but neither lands nor is answered.
	var land func()
	s.options.Plant.effect = func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectPropose || len(ef.Proposal.Admit) == 0 || land != nil {
			return true
		}
		p := ef.Proposal
		land = func() { s.truth.propose(s.proxy(h), p) }
		s.loop.after(h.process, proposeTimeout, func() {
			h.step(core.Event{Kind: core.EventOutcome, Proposal: p})
		})
		return false
	}
	s.until("a proposed admission", func() bool { return land != nil })
	first := s.v.current
	s.isolate(0)
	again := func() {
		if !first.stopped && len(first.client.order) < 8 {
			first.client.send(core.Request{Kind: core.WriteRequest, Length: block.ExtentSize})
			first.client.send(core.Request{Kind: core.ReadRequest, Length: block.BlockSize})
		}
	}
	again()
	s.wait(s.loop.between(millisecond, 50*millisecond))
	land()
	s.wait(20 * millisecond)
	s.v.target = s.nodes[2]
	for range 60 {
		again()
		s.wait(50 * millisecond)
	}
	s.serving()
	s.read(0)
	s.write(0, block.BlockSize)
	again()
	s.wait(second)
	s.restart(1)
	s.rest()
}

// proxy stands for a host whose proposal reached Raft by a node that is not cut
// off; it hears no answer.
func (s *scene) proxy(h *host) *host {
	return &host{world: s.World, node: s.nodes[3], process: &process{dead: true}, volume: h.volume, epoch: h.epoch}
}

// twoProposers: while the engine proposes to remove C, which died, something else
// that has the right epoch and revision changes the view: it removes C as well, or
// B, or nobody. One of the two lands, and the engine goes on by what it was.
func twoProposers(s *scene) {
	rivals := [][]block.ReplicaID{{s.v.replicas[2]}, {s.v.replicas[1]}, nil}
	rival := rivals[s.options.Seed%3]
	engineFirst := s.loop.chance(50)
	verdict := block.Unknown
	propose := func(p block.Proposal) { verdict = s.truth.apply(state.Propose{Proposal: p}).Verdict }
	s.options.Plant.effect = func(_ *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectPropose || verdict != block.Unknown {
			return true
		}
		other := ef.Proposal
		other.Remove = rival
		if !engineFirst {
			propose(other)
			return true
		}
		s.loop.after(nil, 50*millisecond, func() { propose(other) })
		return true
	}
	w := s.write(0, block.BlockSize)
	s.kill(2)
	held := s.begin(core.WriteRequest, block.BlockSize, block.BlockSize)
	s.end(held)
	s.until("the other's outcome", func() bool { return verdict != block.Unknown })
	if want := engineFirst; want != (verdict == block.Conflict) || want == (s.paths.counts["view: conflict"] > 0) {
		s.t.Fatalf("the engine is first: %v, the other's verdict is %d", engineFirst, verdict)
	}
	s.want(s.read(0), value(w.id))
	s.restart(2)
	s.rest()
	s.want(s.read(block.BlockSize), value(held.id))
}

// incarnationSplit: all members lost their memory, and the engine dies as the end
// of the attachment lands. The commit that records the new incarnations has ended
// the attachment, so that the next engine cannot take the loss for none.
func incarnationSplit(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.write(0, block.BlockSize)
	s.flush()
	s.write(0, block.BlockSize)
	before := s.truth.view(s.v.id)
	ended := false
	s.options.Plant.effect = func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectPropose || !ef.Proposal.EndAttachment || ended {
			return true
		}
		ended = true
		s.loop.after(nil, 0, func() { s.killEngine(3) })
		return true
	}
	for i := range 3 {
		s.power(i)
	}
	s.restart(0, 1, 2)
	s.until("the end of the attachment", func() bool {
		v := s.truth.view(s.v.id)
		renewed := v.Member(s.v.replicas[0]).Incarnation != before.Member(s.v.replicas[0]).Incarnation
		if renewed && v.Attachment == before.Attachment {
			s.t.Fatal("new incarnations are recorded, and the attachment goes on")
		}
		return ended && renewed
	})
	s.wait(500 * millisecond)
	s.serving()
	if v := s.truth.view(s.v.id); v.Attachment == before.Attachment {
		s.t.Fatal("the attachment goes on")
	}
	s.read(0)
	s.rest()
}

// takeoverLogs: C is absent, B is as new, and A alone has zeros that only its own
// log names. B compares equal and is admitted, A is dropped, C resyncs from B.
func takeoverLogs(s *scene) {
	s.kill(1)
	s.inSync(0, 2)
	s.write(0, block.ExtentSize)
	s.flush()
	s.kill(2)
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
