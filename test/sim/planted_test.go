package sim

import (
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// planted is a bug that a checker must find.
type planted struct {
	name string
	// by are the checkers that may be the first to see it.
	by []string
	// make builds the bug anew for each run.
	make func() *plant
}

func plantedBugs() []planted {
	return []planted{
		{"a write is acknowledged before all members have it",
			[]string{"linearizable", "equal-replicas", "scrub", "one-engine", "flushed-data"}, ackEarly},
		{"a removal releases acknowledgements before its commit is known",
			[]string{"linearizable", "doors", "one-engine", "equal-replicas", "scrub", "flushed-data", "progress"}, believeRemoval},
		{"what an absent replica misses is not recorded",
			[]string{"equal-replicas", "scrub", "linearizable", "flushed-data", "answers"}, forgetMissed},
		{"a door lets older engines in", []string{"doors", "one-engine", "linearizable"}, openDoor},
		{"divergent blocks are read before they are repaired",
			[]string{"linearizable", "equal-replicas", "scrub", "answers"}, hideLogs},
		{"a flush is acknowledged without a sync", []string{"doors", "flushed-data", "linearizable", "identity"}, skipSync},
		{"a loss of power goes unnoticed", []string{"linearizable", "equal-replicas", "scrub", "payload", "answers"}, hideLoss},
		{"resync finds everything equal", []string{"equal-replicas", "scrub", "linearizable", "answers", "snapshots"}, equalHashes},
		{"a cut is taken by one member alone", []string{"snapshots"}, cutByOne},
		{"a cut is taken late", []string{"snapshots", "linearizable"}, cutLate},
		{"layers are not compared", []string{"snapshots", "linearizable", "scrub"}, equalLayers},
	}
}

// TestPlanted shows each planted bug to the checkers, and logs which of them saw it
// and after how many events.
func TestPlanted(t *testing.T) {
	for _, p := range plantedBugs() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			showPlanted(t, p)
		})
	}
}

func showPlanted(t *testing.T, p planted) {
	const seeds = 200
	all := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		o := SeedOptions(seed, 6000)
		o.Faults, o.Plant = DefaultFaults(), p.make()
		o.Shape, o.FaultInterval, o.FaultLength, o.Temptation = DefaultShape(), 150*millisecond, 15, 10
		r, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		all += r.Steps
		// An assertion sees it from within; this is about those who look from outside.
		if found := r.Violation; found != nil && found.Checker != assertion {
			t.Logf("caught by %s after %d events, %d in all %d runs", found.Checker, r.Steps, all, seed)
			if !slices.Contains(p.by, found.Checker) {
				t.Errorf("not by one of %v: %s", p.by, found.Text)
			}
			return
		}
	}
	t.Errorf("not caught in %d runs", seeds)
}

// ackEarly answers writes for all replicas but the first as soon as they are sent.
func ackEarly() *plant {
	return &plant{effect: func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectSend || ef.Request.Op != block.OpWrite || ef.Replica == h.view.Replicas[0].ID {
			return true
		}
		req := ef.Request
		h.world.loop.after(h.process, 0, func() {
			h.step(core.Event{Kind: core.EventReply, Replica: ef.Replica, Session: req.Session, Reply: block.Reply{
				Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Free: diskCapacity,
			}})
		})
		return true
	}}
}

// believeRemoval tells the core that a removal is committed when it is proposed.
func believeRemoval() *plant {
	return &plant{effect: func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectPropose || len(ef.Proposal.Remove) == 0 || ef.Proposal.EndAttachment {
			return true
		}
		p := ef.Proposal
		view := h.core.Status().View.Clone()
		view.Revision++
		for _, id := range p.Remove {
			view.Member(id).InSync, view.Member(id).Removed = false, view.Revision
		}
		view.NotWaitedOut = !p.WaitedOut
		h.world.loop.after(h.process, 0, func() {
			h.step(core.Event{Kind: core.EventOutcome, Proposal: p, Verdict: block.Committed, View: view})
		})
		return true
	}}
}

// forgetMissed stores dirty sets without their regions, and lets replicas come back
// with an empty intent log.
func forgetMissed() *plant {
	return &plant{request: func(_ *conn, req *block.Request) bool {
		if req.Op != block.OpUpdate {
			return true
		}
		u := *req.Update
		for _, sets := range []*[]block.DirtySet{&u.SetDirty, &u.AddDirty} {
			*sets = slices.Clone(*sets)
			for i := range *sets {
				(*sets)[i].Regions = nil
			}
		}
		req.Update = &u
		return true
	}, event: func(h *host, ev *core.Event) bool {
		if ev.Kind != core.EventReply || ev.Reply.Opened == nil {
			return true
		}
		view := h.core.Status().View
		if m := view.Member(ev.Replica); m != nil && !m.InSync {
			o := *ev.Reply.Opened
			o.Log = nil
			ev.Reply.Opened = &o
		}
		return true
	}}
}

// openDoor carries out what older engines ask, past the door.
func openDoor() *plant {
	return &plant{request: func(c *conn, req *block.Request) bool {
		w := c.network.observer.(*doors).world
		if req.Op != block.OpWrite || req.Epoch >= w.doors.of(c.replica).fence.Epoch {
			return true
		}
		r, err := c.to.storage.store.Replica(c.replica)
		if err != nil {
			return true
		}
		r2, buf := *req, req.Buf.Retain()
		r.Submit(&store.Op{Kind: store.Write, Offset: req.Offset, Length: req.Length, Buf: buf, Done: func(op *store.Op) {
			buf.Release()
			c.replied(block.Reply{Op: r2.Op, Epoch: r2.Epoch, Session: r2.Session, Seq: r2.Seq, Err: op.Err, Free: diskCapacity}, nil)
		}})
		return false
	}}
}

// hideLogs lets every member come with an empty intent log.
func hideLogs() *plant {
	return &plant{event: func(_ *host, ev *core.Event) bool {
		if ev.Kind == core.EventReply && ev.Reply.Opened != nil {
			o := *ev.Reply.Opened
			o.Log = nil
			ev.Reply.Opened = &o
		}
		return true
	}}
}

// skipSync answers flushes without doing them.
func skipSync() *plant {
	return &plant{request: func(c *conn, req *block.Request) bool {
		if req.Op != block.OpFlush {
			return true
		}
		c.replied(block.Reply{Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq}, nil)
		return false
	}}
}

// hideLoss shows every store under the incarnation that the view knows.
func hideLoss() *plant {
	return &plant{event: func(h *host, ev *core.Event) bool {
		if ev.Kind != core.EventReply || ev.Reply.Opened == nil {
			return true
		}
		view := h.core.Status().View
		if m := view.Member(ev.Replica); m != nil {
			o := *ev.Reply.Opened
			o.Incarnation = m.Incarnation
			ev.Reply.Opened = &o
		}
		return true
	}}
}

// equalHashes answers every comparison with the same hashes.
func equalHashes() *plant {
	return &plant{reply: func(_ *conn, rep *block.Reply) bool {
		for i := range rep.Hashes {
			rep.Hashes[i] = block.ExtentHash{}
		}
		return true
	}}
}

// cutByOne has all but the first replica forget what they were asked to cut.
func cutByOne() *plant {
	return &plant{request: func(c *conn, req *block.Request) bool {
		if req.Op == block.OpUpdate && len(req.Update.Cuts) > 0 && c.engine != nil && c.replica != c.engine.view.Replicas[0].ID {
			u := *req.Update
			u.Cuts = nil
			req.Update = &u
		}
		return true
	}}
}

// cutLate answers a cut for all replicas but the first before they have taken it.
func cutLate() *plant {
	return &plant{effect: func(h *host, ef *core.Effect) bool {
		if ef.Kind != core.EffectSend || ef.Request.Op != block.OpUpdate || len(ef.Request.Update.Cuts) == 0 ||
			ef.Replica == h.view.Replicas[0].ID {
			return true
		}
		late := *ef
		h.world.loop.after(h.process, 0, func() {
			h.step(core.Event{Kind: core.EventReply, Replica: late.Replica, Session: late.Request.Session, Reply: block.Reply{
				Op: block.OpUpdate, Epoch: late.Request.Epoch, Session: late.Request.Session, Seq: late.Request.Seq,
			}})
		})
		h.world.loop.after(h.process, 4*millisecond, func() {
			if c := h.links[late.Replica]; c != nil && c.session == late.Request.Session {
				c.send(late.Request)
			}
		})
		return false
	}}
}

// equalLayers answers every comparison of a cut with the same hashes.
func equalLayers() *plant {
	return &plant{reply: func(c *conn, rep *block.Reply) bool {
		if req := c.asked[rep.Seq]; !req.Snapshot.IsZero() {
			for i := range rep.Hashes {
				rep.Hashes[i] = block.ExtentHash{}
			}
		}
		return true
	}}
}

// TestPlantedDoNothingAlone: without a bug, the same hooks see no violation; so
// what TestPlanted shows is the bug.
func TestPlantedDoNothingAlone(t *testing.T) {
	o := SeedOptions(1, 6000)
	o.Faults = DefaultFaults()
	o.Plant = &plant{
		effect:  func(*host, *core.Effect) bool { return true },
		event:   func(*host, *core.Event) bool { return true },
		request: func(*conn, *block.Request) bool { return true },
		reply:   func(_ *conn, rep *block.Reply) bool { return rep.Err == nil || !errors.Is(rep.Err, block.ErrForeign) },
	}
	run(t, o)
}
