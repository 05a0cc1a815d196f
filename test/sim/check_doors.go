package sim

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// doors verifies at each replica's end of the network that epochs, sessions and
// revisions only rise, also through crashes: what a replica has acknowledged, it
// never goes back behind, and once it has acknowledged an opening it grants
// nothing to anyone older (rule 4), nor while it opens.
type doors struct {
	world    *World
	replicas map[block.ReplicaID]*doorHistory
	fail     func(checker, text string)
}

type doorHistory struct {
	// fence is the highest acknowledged.
	fence block.Fence
	// epoch and revision are of the newest view that the replica confirmed, view is it.
	epoch    block.Epoch
	revision block.Revision
	view     block.View
	flush    block.FlushNumber
	// entering is the highest that has asked to be let in, and outrun what an older
	// session was granted since.
	entering block.Fence
	outrun   string
}

func newDoors(w *World) *doors {
	return &doors{world: w, replicas: make(map[block.ReplicaID]*doorHistory), fail: w.fail}
}

func (d *doors) of(id block.ReplicaID) *doorHistory {
	h := d.replicas[id]
	if h == nil {
		h = &doorHistory{}
		d.replicas[id] = h
	}
	return h
}

// reopened verifies that a store which was opened anew holds every fence and view
// that its replicas had acknowledged: they were durable first.
func (d *doors) reopened(list []*store.Replica) {
	for _, r := range list {
		d.kept(r.ID(), r.Fence(), r.View())
	}
}

func (d *doors) kept(id block.ReplicaID, fence block.Fence, v block.View) {
	h := d.replicas[id]
	switch {
	case h == nil:
	case fence.Less(h.fence):
		d.fail("doors", fmt.Sprintf("%s reopens with %+v, it had acknowledged %+v", d.world.replicaName(id), fence, h.fence))
	case v.Epoch < h.epoch || v.Epoch == h.epoch && v.Revision < h.revision:
		d.fail("doors", fmt.Sprintf("%s reopens with view (%d,%d), it had confirmed (%d,%d)", d.world.replicaName(id),
			v.Epoch, v.Revision, h.epoch, h.revision))
	}
}

// relied verifies that every member of the view that an engine answered a request
// by has confirmed to hold it (rule 3), or one of the same epoch that says the same of
// all that the answer relies on.
func (d *doors) relied(v *block.View, op *operation) {
	for _, m := range v.Replicas {
		h := d.of(m.ID)
		same := h.epoch == v.Epoch && h.view.NotWaitedOut == v.NotWaitedOut && h.view.Size == v.Size &&
			slices.Equal(h.view.Replicas, v.Replicas)
		if m.InSync && !same && !d.world.rolledBack[m.ID] && (h.epoch < v.Epoch || h.epoch == v.Epoch && h.revision < v.Revision) {
			d.fail("doors", fmt.Sprintf("%v was answered by view (%d,%d), of which %s has confirmed (%d,%d)", op, v.Epoch,
				v.Revision, d.world.replicaName(m.ID), h.epoch, h.revision))
		}
	}
}

// requested implements observer.
func (d *doors) requested(c *conn, req *block.Request) bool {
	d.world.paths.request(req)
	d.world.loop.log("%v -> %s s%d #%d %s", c.engine, d.world.replicaName(c.replica), req.Session, req.Seq,
		d.world.describeRequest(req))
	d.world.checkInFlight(c)
	c.asked[req.Seq] = *req
	if why := d.world.identities.forbidden(c, req); why != "" {
		c.forbidden[req.Seq] = why
	}
	d.again(c, req)
	if req.Op == block.OpOpen || req.Op == block.OpUpdate {
		d.world.tempt()
	}
	if req.Op == block.OpOpen {
		d.busy(c)
	}
	if p := d.world.options.Plant; p != nil && p.request != nil && !p.request(c, req) {
		return false
	}
	if req.Op == block.OpOpen {
		d.of(c.replica).arrives(req.Open.Fence)
	}
	return true
}

// busy counts the openings that must wait for the I/O of an older session.
func (d *doors) busy(c *conn) {
	if c.to == nil || c.to.server == nil {
		return
	}
	for _, r := range c.to.server.Replicas() {
		if r.Replica == c.replica && r.Running > 0 {
			d.world.paths.count("door: opening waits for older I/O")
		}
	}
}

// again counts what TCP makes of a network that duplicates and reorders: a request
// that was carried out in one session and is sent again in the next, and one that
// arrives when the next session is open.
func (d *doors) again(c *conn, req *block.Request) {
	if c.engine == nil {
		return
	}
	key := arrival{c.replica, req.Seq}
	if c.engine.arrived[key] {
		d.world.paths.count("network: request arrives again")
	}
	c.engine.arrived[key] = true
	if f := d.of(c.replica).fence; f.Epoch == req.Epoch && f.Session > req.Session {
		d.world.paths.count("network: older session arrives late")
	}
}

// replied implements observer.
func (d *doors) replied(c *conn, rep *block.Reply) bool {
	if p := d.world.options.Plant; p != nil && p.reply != nil && !p.reply(c, rep) {
		return false
	}
	d.world.paths.reply(rep)
	d.world.loop.log("%v <- %s s%d #%d %s %v", c.engine, d.world.replicaName(c.replica), rep.Session, rep.Seq,
		opName(rep.Op), rep.Err)
	req, ok := c.asked[rep.Seq]
	delete(c.asked, rep.Seq)
	why := c.forbidden[rep.Seq]
	delete(c.forbidden, rep.Seq)
	if !ok {
		d.fail("doors", fmt.Sprintf("%s answers seq %d of session %d, which nobody asked",
			d.world.replicaName(c.replica), rep.Seq, rep.Session))
		return true
	}
	if rep.Err == nil {
		if why != "" {
			d.fail("identity", fmt.Sprintf("%s grants %v op %d, and %s", d.world.replicaName(c.replica), c.engine, rep.Op, why))
		}
		d.granted(c, &req, rep)
	}
	return true
}

func (d *doors) granted(c *conn, req *block.Request, rep *block.Reply) {
	h := d.of(c.replica)
	name := d.world.replicaName(c.replica)
	fence := h.fence
	fence.Epoch, fence.Session = rep.Epoch, rep.Session
	switch rep.Op {
	case block.OpOpen:
		if !h.fence.Less(req.Open.Fence) {
			d.fail("doors", fmt.Sprintf("%s opened for %+v after %+v", name, req.Open.Fence, h.fence))
		}
		h.fence = req.Open.Fence
		if h.outrun != "" && h.fence == h.entering {
			d.fail("doors", fmt.Sprintf("%s was opening for %+v when it %s", name, h.fence, h.outrun))
		}
		d.drained(c)
		v := &rep.Opened.View
		if v.Epoch < h.epoch || v.Epoch == h.epoch && v.Revision < h.revision {
			d.fail("doors", fmt.Sprintf("%s shows view (%d,%d), it had confirmed (%d,%d)", name, v.Epoch, v.Revision,
				h.epoch, h.revision))
		}
		if rep.Opened.Flush.Less(h.flush) {
			d.fail("doors", fmt.Sprintf("%s shows flush %v, it had confirmed %v", name, rep.Opened.Flush, h.flush))
		}
		return
	case block.OpUpdate:
		if v := req.Update.View; v != nil && (v.Epoch > h.epoch || v.Epoch == h.epoch && v.Revision > h.revision) {
			h.epoch, h.revision, h.view = v.Epoch, v.Revision, v.Clone()
		}
	case block.OpFlush:
		if h.flush.Less(req.Flush) {
			h.flush = req.Flush
		}
	}
	if h.outrun == "" && fence.Less(h.entering) {
		h.outrun = fmt.Sprintf("granted op %d of epoch %d session %d", rep.Op, rep.Epoch, rep.Session)
	}
	if fence != h.fence {
		d.fail("doors", fmt.Sprintf("%s grants op %d of epoch %d session %d after acknowledging %+v", name, rep.Op,
			rep.Epoch, rep.Session, h.fence))
	}
}
