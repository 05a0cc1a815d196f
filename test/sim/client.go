package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// workload is what the clients of a volume do.
type workload struct {
	// depth is the number of requests a client keeps in flight.
	depth int
	// think is the greatest pause before the next request, in nanoseconds.
	think int64
	// Percentages of the requests; the rest are reads.
	writes, zeros, flushes, forced int
}

// area is a part of a volume that clients use: small, so that requests meet.
type area struct{ offset, length int64 }

// client issues requests to one host and records what comes of them. It dies
// with its host.
type client struct {
	host *host
	work workload
	// areas are where it reads and writes.
	areas []area
	open  map[uint64]*operation
	// order lists the open operations as they were sent.
	order []*operation
	quiet bool
}

func newClient(h *host, work workload, areas []area) *client {
	return &client{host: h, work: work, areas: areas, open: make(map[uint64]*operation)}
}

// start begins the client's requests: depth of them at any time.
func (c *client) start() {
	for range c.work.depth {
		c.next()
	}
}

// next sends one more request after a pause.
func (c *client) next() {
	l := c.host.world.loop
	l.after(c.host.process, l.between(0, c.work.think), func() {
		switch {
		case c.host.stopped || c.host.detaching || c.quiet || c.host.world.ending:
		case len(c.order) >= c.work.depth:
		default:
			c.send(c.draw())
		}
	})
}

// draw makes a request out of the loop's randomness.
func (c *client) draw() core.Request {
	l := c.host.world.loop
	a := c.areas[l.rng.IntN(len(c.areas))]
	length := int64(block.SectorSize)
	switch l.rng.IntN(8) {
	case 0:
		length = block.ExtentSize
	case 1:
		length = block.BlockSize * (1 + l.rng.Int64N(4))
	case 2, 3:
		length = block.SectorSize * (1 + l.rng.Int64N(20))
	case 4, 5:
		length = block.BlockSize
	}
	length = min(length, a.length)
	unit := int64(block.SectorSize)
	if length%block.BlockSize == 0 && l.chance(80) {
		unit = block.BlockSize
	}
	offset := a.offset + l.rng.Int64N((a.length-length)/unit+1)*unit
	req := core.Request{Offset: offset, Length: length, Kind: core.ReadRequest}
	switch roll := l.rng.IntN(100); {
	case roll < c.work.writes:
		req.Kind = core.WriteRequest
		req.ForceUnitAccess = l.chance(c.work.forced)
	case roll < c.work.writes+c.work.zeros:
		req.Kind = core.ZeroRequest
	case roll < c.work.writes+c.work.zeros+c.work.flushes:
		req.Kind = core.FlushRequest
		req.Offset, req.Length = 0, 0
	}
	return req
}

// send records a request and hands it to the core.
func (c *client) send(req core.Request) *operation {
	w := c.host.world
	w.operations++
	op := &operation{id: w.operations, kind: req.Kind, fua: req.ForceUnitAccess, epoch: c.host.epoch,
		offset: req.Offset, length: req.Length, invoked: w.loop.steps, at: w.loop.now}
	req.Tag = op.id
	if req.Kind == core.WriteRequest {
		req.Buf = block.NewBuffer(int(req.Length))
		fill(req.Buf.Data, c.host.volume.tag, value(op.id), req.Offset)
	}
	c.open[op.id] = op
	c.order = append(c.order, op)
	w.loop.log("%v > %v", c.host, op)
	c.host.volume.history.invoke(op)
	c.host.step(core.Event{Kind: core.EventRequest, Request: req})
	return op
}

// completed takes the core's answer to a request.
func (c *client) completed(tag uint64, err error, buf *block.Buffer) {
	w := c.host.world
	op := c.open[tag]
	if op == nil {
		w.fail("answers", fmt.Sprintf("%v answered request %d that is not open", c.host, tag))
		return
	}
	w.paths.completed(op, err)
	if err == nil && !w.truth.quorum {
		w.paths.count("completed: without a quorum")
	}
	op.ended = w.loop.steps
	op.outcome = succeeded
	switch {
	case err != nil:
		op.outcome = unsettled
		w.answeredError(c.host, op, err)
	case op.kind == core.ReadRequest:
		c.decode(op, buf)
	}
	w.loop.log("%v < %v: %v", c.host, op, err)
	buf.Release()
	c.drop(op)
	w.acks.answered(c.host, op)
	if op.outcome == succeeded {
		view := c.host.core.Status().View
		w.acks.enough(&view, c.host.volume.minSync, op)
		w.doors.relied(&view, op)
	}
	c.host.volume.history.end(op)
	c.next()
}

// decode reads which writes a read's bytes come from.
func (c *client) decode(op *operation, buf *block.Buffer) {
	w := c.host.world
	if buf == nil || int64(len(buf.Data)) != op.length {
		w.fail("answers", fmt.Sprintf("%v: a read without its bytes", op))
		op.outcome = unsettled
		return
	}
	for i := int64(0); i < op.length; i += block.SectorSize {
		sector := uint64(op.offset+i) / block.SectorSize
		v, err := sectorValue(buf.Data[i:i+block.SectorSize], c.host.volume.tag, sector)
		if err != nil && c.host.volume.acceptable[sector] {
			op.outcome = unsettled
			return
		}
		if err != nil {
			checker := "payload"
			if errors.Is(err, errForeignBytes) {
				checker = "foreign-bytes"
			}
			w.fail(checker, fmt.Sprintf("%v: %v", op, err))
			op.outcome = unsettled
			return
		}
		op.read = append(op.read, v)
	}
}

func (c *client) drop(op *operation) {
	delete(c.open, op.id)
	for i, o := range c.order {
		if o == op {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// abandon gives up on everything open: nobody will answer.
func (c *client) abandon() {
	for _, op := range append([]*operation(nil), c.order...) {
		op.outcome = unsettled
		op.ended = c.host.world.loop.steps
		c.drop(op)
		c.host.volume.history.end(op)
	}
}

// wake ends a client's silence.
func (c *client) wake() {
	if !c.quiet {
		return
	}
	c.quiet = false
	c.start()
}
