package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// volume is one volume under test and what is known of it.
type volume struct {
	name     string
	id       block.VolumeID
	tag      uint64
	size     int64
	minSync  int
	replicas []block.ReplicaID
	areas    []area
	work     workload
	history  *history
	// acceptable are sectors that may show bytes of no write (see rot).
	acceptable map[uint64]bool
	// target is the node that shall have it.
	target *node
	// hosts are its engines that have not stopped; old ones may be among them.
	hosts []*host
	// current is the host of the highest epoch that was started.
	current *host
	// starting is the process that has asked Raft for something and not been
	// answered; nil for none.
	starting *process
	// starter is the process that is to start engines, start what it calls the start
	// that was not answered yet.
	starter *process
	start   block.StartID
	// shots are all snapshots that were asked for, growths how often it was to grow.
	shots   []*shot
	growths int
}

// superviseInterval is how often the supervisor of a volume looks after it.
const superviseInterval = 150 * millisecond

// supervise keeps an engine running for the volume, on its target node.
func (w *World) supervise(v *volume) {
	w.loop.after(nil, w.loop.between(superviseInterval/2, superviseInterval), func() {
		w.superviseOnce(v)
		w.supervise(v)
	})
}

func (w *World) superviseOnce(v *volume) {
	if c := v.current; c != nil && w.truth.view(v.id).Epoch > c.epoch && w.loop.chance(30) {
		// A start that landed late, and was launched by nobody, ends the engine
		// that runs as soon as it hears of it.
		w.paths.count("attach: start lands late")
		w.truth.hint(v)
	}
	if v.starting != nil && !v.starting.dead {
		return
	}
	if v.target == nil || v.target.process == nil && w.loop.chance(20) {
		v.target = w.anyMachine()
	}
	c := v.current
	vol, _ := w.truth.state.Volume(v.id)
	switch {
	case v.target.process == nil:
	case w.options.Reverted && (vol.Reverting() || vol.Borrowed()):
		w.superviseRevert(v, &vol)
	case c == nil || c.stopped || c.borrowed:
		w.startEngine(v)
	case c.node != v.target && !c.detaching:
		w.startEngine(v)
	}
}

// move asks for the volume to be served elsewhere; cleanly, the engine that
// serves is drained first, otherwise it is left running.
func (w *World) move(v *volume, to *node, clean bool) {
	w.loop.log("move %s to node %d clean %v", v.name, to.index, clean)
	v.target = to
	c := v.current
	if clean && c != nil && !c.stopped {
		w.detach(c)
	}
}

func (w *World) detach(h *host) {
	h.detaching = true
	w.paths.count("detach: asked")
	w.loop.after(h.process, 0, func() {
		if !h.stopped {
			h.step(core.Event{Kind: core.EventDetach})
		}
	})
	// What does not end in time is ended by force.
	w.loop.after(h.process, 5*second, func() {
		if !h.stopped {
			w.paths.count("detach: forced")
			h.step(core.Event{Kind: core.EventAbort})
		}
	})
}

// startEngine takes the next step towards an engine on the target: the volume is
// published there, what an earlier daemon has left is ended, and Raft gives an epoch.
func (w *World) startEngine(v *volume) {
	n, p := v.target, v.target.process
	if n.stocking {
		return
	}
	vol, _ := w.truth.state.Volume(v.id)
	if vol.Published != n.id {
		w.ask(v, n, func() state.Result { return w.publish(v, n) }, nil)
		return
	}
	device := n.devices[v]
	if v.starter != p {
		if device.IsZero() && vol.View.Owner == n.id {
			w.endLeftover(v, n)
			return
		}
		v.starter, v.start = p, block.StartID{}
	}
	if v.start.IsZero() || !device.IsZero() && w.loop.chance(50) {
		v.start = block.StartID{ID: w.loop.id()}
	}
	cmd := state.StartEngine{Volume: v.id, Node: n.id, Start: v.start, Attachment: device}
	if fresh := w.loop.id(); device.IsZero() {
		cmd.NewAttachment.ID = fresh
	}
	w.ask(v, n, func() state.Result { return w.assign(v, cmd) }, func(r state.Result) {
		v.start = block.StartID{}
		switch {
		case r.Err == nil:
			view := r.View().Clone()
			n.devices[v] = view.Attachment
			w.launch(v, n, view, v.work)
		case errors.Is(r.Err, block.ErrDetached):
			delete(n.devices, v)
		case errors.Is(r.Err, block.ErrInUse):
			// A start of an earlier daemon has landed late.
			w.paths.count("attach: left by an earlier daemon")
			w.endLeftover(v, n)
		}
	})
}

// ask lands a command for a volume; answered hears what came of it, if that is known.
func (w *World) ask(v *volume, n *node, land func() state.Result, answered func(state.Result)) {
	v.starting = n.process
	var result state.Result
	w.truth.command(n, n.process, func() { result = land() }, func(known bool) {
		v.starting = nil
		if !known || result.Err != nil {
			w.loop.log("%s on node %d: known %v: %v", v.name, n.index, known, result.Err)
		}
		if known && answered != nil {
			answered(result)
		}
	})
}

// publish takes the volume from where it is, by force, and gives it to a node.
func (w *World) publish(v *volume, n *node) state.Result {
	vol, _ := w.truth.state.Volume(v.id)
	if vol.Published != n.id && !vol.Published.IsZero() {
		r := w.truth.apply(state.Unpublish{Volume: v.id, Node: vol.Published, EndAttachment: true})
		if r.Err != nil {
			return r
		}
		w.paths.count("attach: at another node")
	}
	return w.truth.apply(state.Publish{Volume: v.id, Node: n.id})
}

// endLeftover ends the attachment that Raft shows on a node without a device of it.
func (w *World) endLeftover(v *volume, n *node) {
	view := w.truth.view(v.id)
	if view.Owner != n.id {
		return
	}
	w.ask(v, n, func() state.Result {
		return w.truth.apply(state.EndAttachment{Volume: v.id, Attachment: view.Attachment})
	}, nil)
}

// assign is what Raft does with a start: of an engine for the device that the node
// has, or for a fresh one, or without any.
func (w *World) assign(v *volume, cmd state.StartEngine) state.Result {
	t := w.truth
	before := t.view(v.id)
	cmd.Epoch = before.Epoch
	switch {
	case before.Start == cmd.Start:
		w.paths.count("attach: one start asked for twice")
	case !cmd.Attachment.IsZero():
		w.paths.count("attach: the same attachment")
	}
	r := t.apply(cmd)
	after := r.View()
	w.loop.log("raft: %s starts on %v, borrow %v: %v %s", v.name, w.machine(cmd.Node), cmd.Borrow, r.Err, w.describeView(&after))
	w.checkStart(v, &cmd, &before, r)
	t.hint(v)
	return r
}

// checkStart verifies that a volume has one device, that no engine serves another
// than its own, and that a start which was not heard can be asked for again.
func (w *World) checkStart(v *volume, c *state.StartEngine, before *block.View, r state.Result) {
	after := r.View()
	switch {
	case r.Err != nil && before.Start == c.Start && before.Owner == c.Node:
		w.fail("attachments", fmt.Sprintf("%s: a start that landed is refused when it is asked for again: %v", v.name, r.Err))
	case r.Err != nil:
	case !before.Attachment.IsZero() && before.Attachment != after.Attachment:
		w.fail("attachments", v.name+": a device was made beside one that is alive")
	case !c.Attachment.IsZero() && c.Attachment != after.Attachment:
		w.fail("attachments", v.name+": an engine was started for a device whose attachment has ended")
	}
}

// launch makes the host of an epoch; nil if that comes too late.
func (w *World) launch(v *volume, n *node, view block.View, work workload) *host {
	if v.current != nil && v.current.epoch >= view.Epoch {
		w.loop.log("start of %s epoch %d comes too late", v.name, view.Epoch)
		return nil
	}
	h := &host{world: w, node: n, process: n.process, volume: v, epoch: view.Epoch, view: view,
		links: make(map[block.ReplicaID]*conn), arrived: make(map[arrival]bool)}
	h.client = newClient(h, work, v.areas)
	made, err := w.options.NewCore(w.coreConfig(h), n.clock.read(w.loop.now))
	if err != nil {
		w.fail("answers", fmt.Sprintf("%v cannot begin: %v", h, err))
		return nil
	}
	h.core = made
	v.hosts = append(v.hosts, h)
	v.current = h
	w.loop.log("%v of %s begins: %s", h, v.name, w.describeView(&view))
	w.paths.count("attach: begins")
	h.start()
	h.client.start()
	return h
}

func (w *World) coreConfig(h *host) core.Config {
	return core.Config{
		Node:      h.node.id,
		Cluster:   w.cluster,
		View:      h.view,
		MinInSync: h.volume.minSync,
		Timing:    w.options.Timing,
		Limits:    w.options.Limits,
	}
}

// serves notes that a host serves.
func (w *World) serves(h *host) {
	w.paths.count("attach: serves")
	h.volume.history.serve(h.epoch, w.loop.steps)
	w.acks.serves(h)
	w.scrubs(h)
	if h.borrowed {
		w.work(h)
	}
}

// stopped takes a host that has ended out of its volume.
func (w *World) stopped(h *host) {
	if len(h.client.order) > 0 {
		w.fail("answers", fmt.Sprintf("%v stopped with %d requests unanswered", h, len(h.client.order)))
	}
	w.paths.stopped(h)
	h.client.abandon()
	h.closeLinks()
	w.drop(h)
	if (h.why == nil || errors.Is(h.why, block.ErrDetached)) && h.node.devices[h.volume] == h.view.Attachment {
		delete(h.node.devices, h.volume)
	}
}

// committed notes a change of a view.
func (w *World) committed(p *block.Proposal, before, after *block.View) {
	v := w.volumeOf(p.Volume)
	w.paths.committed(p, before, after)
	w.leftRolledBack(v, before, after)
	w.cutCommitted(v, p, after)
	for _, id := range p.Remove {
		if n := w.nodeOf(id); n != nil && n.process != nil && n.incarnation() != before.Member(id).Incarnation && !p.EndAttachment {
			w.paths.count("view: removal of a member that lost memory")
		}
	}
	if p.EndAttachment {
		w.checkLoss(v, before, after)
		v.history.reset(w.loop.steps)
	}
	w.truth.hint(v)
}

// leftRolledBack notes which of the disks that were put back have been found out.
// If nobody else is left of those who knew, nothing can find it out any more, and
// the volume is judged no further.
func (w *World) leftRolledBack(v *volume, before, after *block.View) {
	for _, m := range before.Replicas {
		if w.rolledBack[m.ID] && m.InSync && !after.Member(m.ID).InSync {
			w.paths.count("disk that was put back leaves")
			delete(w.rolledBack, m.ID)
		}
	}
	for _, m := range after.Replicas {
		if m.InSync && !w.rolledBack[m.ID] {
			return
		}
	}
	w.paths.count("disk that was put back is alone")
	v.history.giveUp()
}

// checkLoss verifies that an attachment that the engine ended was ended because
// every member that stays lost its memory (rule 17), or had its disk put back, which
// a replica outside of the in-sync set may have told of.
func (w *World) checkLoss(v *volume, before, after *block.View) {
	for _, m := range after.Replicas {
		if !m.InSync || w.rolledBack[m.ID] {
			continue
		}
		if old := before.Member(m.ID); old != nil && old.Incarnation == w.nodeOf(m.ID).incarnation() {
			w.fail("flushed-data", fmt.Sprintf("%s: attachment ended although replica %s kept its memory", v.name,
				w.replicaName(m.ID)))
		}
	}
}
