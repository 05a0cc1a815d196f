package sim

import (
	"slices"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// visitor is an engine reduced to its connections: it opens the replicas of a brief
// volume and writes to them, again and again, and is the last to hear that the volume
// is gone, if anybody tells it.
type visitor struct {
	world   *World
	host    *host
	session block.Session
	seq     uint64
}

// visitInterval is the greatest pause between two visits.
const visitInterval = 1500 * millisecond

// visit lets an engine of a volume begin on the node that has it.
func (e *estate) visit(b *brief, v *state.Volume) {
	w, n := e.world, e.world.machine(v.Published)
	b.visited = true
	start := state.StartEngine{Volume: v.ID, Node: n.id, Start: block.StartID{ID: w.loop.id()}, Epoch: v.View.Epoch,
		NewAttachment: block.AttachmentID{ID: w.loop.id()}}
	var r state.Result
	w.truth.command(n, nil, func() { r = w.truth.apply(start) }, func(known bool) {
		if !known || r.Err != nil {
			return
		}
		view := r.View().Clone()
		// A host that has stopped lets everything that it hears pass.
		h := &host{world: w, node: n, epoch: view.Epoch, view: view, links: make(map[block.ReplicaID]*conn),
			arrived: make(map[arrival]bool), stopped: true}
		e.visitors = append(e.visitors, &visitor{world: w, host: h})
		e.visitors[len(e.visitors)-1].run(e)
		if len(e.visitors) > visitorsMax {
			e.visitors[0].host.closeLinks()
			e.visitors = e.visitors[1:]
		}
	})
}

// run goes on until the estate has forgotten the visitor.
func (x *visitor) run(e *estate) {
	l := x.world.loop
	if x.world.healed || !slices.Contains(e.visitors, x) {
		x.host.closeLinks()
		return
	}
	x.call()
	l.after(nil, l.between(visitInterval/4, visitInterval), func() { x.run(e) })
}

// call opens every replica in a new session and writes an extent to it.
func (x *visitor) call() {
	x.session++
	view := &x.host.view
	for _, m := range view.Replicas {
		if old := x.host.links[m.ID]; old != nil {
			old.close()
		}
		fence := block.Fence{Incarnation: view.Cluster, Generation: view.Generation, Epoch: view.Epoch, Session: x.session}
		c := x.world.network.dial(x.host, x.world.machine(m.Node), m.ID, x.request(block.Request{Op: block.OpOpen,
			Open: &block.Open{Cluster: x.world.cluster, Volume: view.Volume, Replica: m.ID, Size: view.Size, Fence: fence}}))
		x.host.links[m.ID] = c
		write := x.request(block.Request{Op: block.OpWrite, Length: block.ExtentSize, Buf: block.NewBuffer(block.ExtentSize)})
		for i := range write.Buf.Data {
			write.Buf.Data[i] = byte(x.session)
		}
		x.world.loop.after(nil, x.world.loop.between(millisecond, 20*millisecond), func() { c.send(write) })
	}
}

func (x *visitor) request(req block.Request) block.Request {
	x.seq++
	req.Epoch, req.Session, req.Seq = x.host.epoch, x.session, x.seq
	return req
}

// flood has a visitor send more than a session may have in flight, at once.
func flood(w *World) bool {
	if w.estate == nil {
		return false
	}
	for _, x := range w.estate.visitors {
		for _, m := range x.host.view.Replicas {
			if c := x.host.links[m.ID]; c != nil && x.opened(c) {
				x.flood(c)
				return true
			}
		}
	}
	return false
}

// opened reports whether the replica has opened the session and can hear it.
func (x *visitor) opened(c *conn) bool {
	f := x.world.doors.of(c.replica).fence
	return !c.broken && f.Epoch == x.host.epoch && f.Session == c.session && !c.server.paused
}

func (x *visitor) flood(c *conn) {
	for range serverLimits().InFlight + 16 {
		req := x.request(block.Request{Op: block.OpRead, Length: block.SectorSize})
		if x.world.doors.requested(c, &req) {
			c.accept.Handle(req, nil)
		}
	}
}
