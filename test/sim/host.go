package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// machine is the engine core as the host drives it.
type machine interface {
	Step(ev core.Event)
	// Effects are what the last Step wants done; valid until the next.
	Effects() []core.Effect
	Status() core.Status
}

// tickInterval is how often a host tells its core the time when nothing else
// happens.
const tickInterval = 20 * millisecond

// host is the shell around one core: it carries out effects on the virtual
// network, as engine's own shell does on the real one. It lives as long as its
// core or its process.
type host struct {
	world   *World
	node    *node
	process *process
	volume  *volume
	epoch   block.Epoch
	view    block.View
	core    machine
	links   map[block.ReplicaID]*conn
	client  *client
	// arrived are the requests that have reached a replica.
	arrived map[arrival]bool

	serving bool
	stopped bool
	why     error
	// detaching: the orchestrator asked for a clean end.
	detaching bool
	// blocked is when a copy last found that nobody in sync has its bytes intact:
	// until a client writes them again, no replica can be admitted.
	blocked block.Instant
	// corrupt: a client's read met a copy that does not verify, and no repair has
	// been reported since.
	corrupt bool
	// borrowed: it is an engine without a frontend, which reverts the volume to a
	// snapshot, or has one taken that keeps what the volume is.
	borrowed  bool
	reverting block.SnapshotID
	keeps     *shot
	// revert is what it does without a client, if that is a revert.
	revert *reversion
	// scrubbed is how far the last walk is.
	scrubbed core.Scrubbed
	// queue is what happened while the core was in a step.
	queue   []core.Event
	running bool
}

// arrival is a request of one engine, whatever the session.
type arrival struct {
	replica block.ReplicaID
	seq     uint64
}

func (h *host) String() string { return fmt.Sprintf("E%d@n%d", h.epoch, h.node.index) }

// start begins the host's ticks.
func (h *host) start() {
	h.step(core.Event{Kind: core.EventTick})
	h.tick()
}

func (h *host) tick() {
	h.world.loop.after(h.process, tickInterval+h.world.loop.between(0, millisecond), func() {
		if h.stopped {
			return
		}
		h.step(core.Event{Kind: core.EventTick})
		h.tick()
	})
}

// step hands one event to the core and carries out what comes of it.
func (h *host) step(ev core.Event) {
	h.queue = append(h.queue, ev)
	if h.running {
		return
	}
	h.running = true
	for len(h.queue) > 0 {
		ev := h.queue[0]
		h.queue = h.queue[1:]
		if h.stopped {
			ev.Request.Buf.Release()
			ev.Reply.Buf.Release()
			continue
		}
		ev.Now = h.node.clock.read(h.world.loop.now)
		h.world.paths.event(h, &ev)
		if p := h.world.options.Plant; p != nil && p.event != nil && !p.event(h, &ev) {
			continue
		}
		h.core.Step(ev)
		for _, ef := range h.core.Effects() {
			h.perform(ef)
		}
	}
	h.running = false
}

func (h *host) perform(ef core.Effect) {
	w := h.world
	w.paths.effect(h, &ef)
	if p := w.options.Plant; p != nil && p.effect != nil && !p.effect(h, &ef) {
		return
	}
	switch ef.Kind {
	case core.EffectConnect:
		h.connect(ef)
	case core.EffectDisconnect:
		if c := h.links[ef.Replica]; c != nil && c.session == ef.Request.Session {
			delete(h.links, ef.Replica)
			c.close()
		}
	case core.EffectSend:
		if c := h.links[ef.Replica]; c != nil && c.session == ef.Request.Session {
			c.send(ef.Request)
		} else {
			ef.Request.Buf.Release()
		}
	case core.EffectPropose:
		w.loop.log("%v proposes %s", h, w.describeProposal(&ef.Proposal))
		w.truth.propose(h, ef.Proposal)
		w.tempt()
	case core.EffectComplete:
		if ef.Tag&revertTag != 0 {
			h.revert.completed(ef.Tag, ef.Err, ef.Buf)
			break
		}
		h.client.completed(ef.Tag, ef.Err, ef.Buf)
	case core.EffectCut:
		w.cutEnded(h, &ef)
	case core.EffectResized:
		w.resized(h, ef.Size)
	case core.EffectServing:
		h.serving = true
		w.loop.log("%v serves", h)
		w.serves(h)
		w.tempt()
	case core.EffectStopped:
		h.stopped = true
		h.why = ef.Err
		w.loop.log("%v stopped: %v", h, ef.Err)
		w.stopped(h)
	case core.EffectScrubbed:
		h.walked(ef.Scrubbed)
	case core.EffectNotice:
		if ef.Notice.Kind == core.NoticeDiffer && errors.Is(ef.Notice.Err, block.ErrChecksum) {
			h.blocked = w.loop.now
		}
		if ef.Notice.Kind == core.NoticeDiffer {
			w.checkDiffer(h, &ef.Notice)
		}
		w.loop.log("%v notice %d replica %s: %v (bytes %d copied %d offset %d)", h, ef.Notice.Kind,
			w.replicaName(ef.Notice.Replica), ef.Notice.Err, ef.Notice.Bytes, ef.Notice.Copied, ef.Notice.Offset)
	}
}

func (h *host) connect(ef core.Effect) {
	w := h.world
	if old := h.links[ef.Replica]; old != nil {
		old.close()
	}
	to := w.nodeOf(ef.Replica)
	if to == nil {
		h.failConnect(ef)
		return
	}
	w.loop.log("%v connects to %s session %d", h, w.replicaName(ef.Replica), ef.Request.Session)
	h.links[ef.Replica] = w.network.dial(h, to, ef.Replica, ef.Request)
}

func (h *host) failConnect(ef core.Effect) {
	delete(h.links, ef.Replica)
	session := ef.Request.Session
	ef.Request.Buf.Release()
	h.world.loop.after(h.process, millisecond, func() {
		h.step(core.Event{Kind: core.EventLost, Replica: ef.Replica, Session: session,
			Err: fmt.Errorf("replica %s: no node: %w", ef.Replica, block.ErrNotFound)})
	})
}

// received takes a reply from the network.
func (h *host) received(c *conn, rep block.Reply) {
	if h.links[c.replica] != c && h.world.loop.chance(50) {
		h.world.paths.count("late reply is dropped with its link")
		rep.Buf.Release()
		return
	}
	// The others were on their way to the core when the link was closed.
	if rep.Op == block.OpRead && errors.Is(rep.Err, block.ErrChecksum) {
		h.corrupt = true
	}
	h.step(core.Event{Kind: core.EventReply, Replica: c.replica, Session: rep.Session, Reply: rep})
}

// lost takes the end of a connection from the network.
func (h *host) lost(c *conn, err error) {
	if h.links[c.replica] != c {
		return
	}
	delete(h.links, c.replica)
	h.world.loop.log("%v lost %s session %d: %v", h, h.world.replicaName(c.replica), c.session, err)
	h.step(core.Event{Kind: core.EventLost, Replica: c.replica, Session: c.session, Err: err})
}

// die ends the host with its process: nothing is completed, nothing answered.
func (h *host) die() {
	h.stopped = true
	h.closeLinks()
	h.client.abandon()
	if h.revert != nil {
		h.revert.abandon()
	}
}

// closeLinks ends the host's connections, in the order of the view.
func (h *host) closeLinks() {
	for _, m := range h.view.Replicas {
		if c := h.links[m.ID]; c != nil {
			delete(h.links, m.ID)
			c.close()
		}
	}
	if h.volume == nil {
		return
	}
	// Some may have come since.
	for _, id := range h.volume.replicas {
		if c := h.links[id]; c != nil {
			delete(h.links, id)
			c.close()
		}
	}
}
