package sim

import (
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
	// starting is the process that has asked for an engine and not been answered;
	// nil for none.
	starting *process
	start    block.StartID
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
	switch {
	case v.target.process == nil:
	case c == nil || c.stopped:
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

// startEngine asks Raft for an epoch and then starts a host by it.
func (w *World) startEngine(v *volume) {
	n, p := v.target, v.target.process
	v.starting = p
	if v.start.IsZero() || w.loop.chance(50) {
		v.start = block.StartID{ID: w.loop.id()}
	}
	start := v.start
	attachment := block.AttachmentID{ID: w.loop.id()}
	var result state.Result
	w.truth.command(n, p, func() { result = w.assign(v, n, start, attachment) }, func(known bool) {
		v.starting = nil
		if !known || result.Err != nil {
			w.loop.log("start of %s on node %d: known %v: %v", v.name, n.index, known, result.Err)
			return
		}
		v.start = block.StartID{}
		w.launch(v, n, result.View().Clone())
	})
}

// assign is what the control plane commits to have an engine on a node: the
// volume published there, and an epoch. The attachment is kept if it was on this
// node and has not ended.
func (w *World) assign(v *volume, n *node, start block.StartID, attachment block.AttachmentID) state.Result {
	t := w.truth
	vol, _ := t.state.Volume(v.id)
	if vol.Published != n.id && !vol.Published.IsZero() {
		if r := t.apply(state.Unpublish{Volume: v.id, Node: vol.Published, EndAttachment: true}); r.Err != nil {
			return r
		}
		w.paths.count("attach: at another node")
	}
	if r := t.apply(state.Publish{Volume: v.id, Node: n.id}); r.Err != nil {
		return r
	}
	view := t.view(v.id)
	cmd := state.StartEngine{Volume: v.id, Node: n.id, Start: start, Epoch: view.Epoch, Attachment: view.Attachment}
	switch {
	case view.Attachment.IsZero():
		cmd.NewAttachment = attachment
	case view.Start == start:
		w.paths.count("attach: one start asked for twice")
	default:
		w.paths.count("attach: the same attachment")
	}
	r := t.apply(cmd)
	after := r.View()
	w.loop.log("raft: %s starts on node %d: %v %s", v.name, n.index, r.Err, w.describeView(&after))
	t.hint(v)
	return r
}

// launch makes the host of an epoch.
func (w *World) launch(v *volume, n *node, view block.View) {
	if v.current != nil && v.current.epoch >= view.Epoch {
		w.loop.log("start of %s epoch %d comes too late", v.name, view.Epoch)
		return
	}
	h := &host{world: w, node: n, process: n.process, volume: v, epoch: view.Epoch, view: view,
		links: make(map[block.ReplicaID]*conn), arrived: make(map[arrival]bool)}
	h.client = newClient(h, v.work, v.areas)
	made, err := w.options.NewCore(w.coreConfig(h), n.clock.read(w.loop.now))
	if err != nil {
		w.fail("answers", fmt.Sprintf("%v cannot begin: %v", h, err))
		return
	}
	h.core = made
	v.hosts = append(v.hosts, h)
	v.current = h
	w.loop.log("%v of %s begins: %s", h, v.name, w.describeView(&view))
	w.paths.count("attach: begins")
	h.start()
	h.client.start()
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
}

// committed notes a change of a view.
func (w *World) committed(p *block.Proposal, before, after *block.View) {
	v := w.volumeOf(p.Volume)
	w.paths.committed(p, before, after)
	w.leftRolledBack(v, before, after)
	for _, id := range p.Remove {
		if n := w.nodeOf(id); n.process != nil && n.incarnation() != before.Member(id).Incarnation && !p.EndAttachment {
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
// every member that stays lost its memory (rule 17).
func (w *World) checkLoss(v *volume, before, after *block.View) {
	for _, m := range after.Replicas {
		if !m.InSync {
			continue
		}
		if old := before.Member(m.ID); old != nil && old.Incarnation == w.nodeOf(m.ID).incarnation() {
			w.fail("flushed-data", fmt.Sprintf("%s: attachment ended although replica %s kept its memory", v.name,
				w.replicaName(m.ID)))
		}
	}
}
