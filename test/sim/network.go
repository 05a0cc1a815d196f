package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// network connects nodes. A connection delivers in order in each direction, with
// a delay of its own for each message; connections overtake each other. It loses
// messages only by ending, as TCP does.
type network struct {
	loop *loop
	// cut holds the directions (from, to) in which nothing gets through.
	cut map[[2]int]bool
	// slow is the greatest additional delay of a message, by direction.
	slow  map[[2]int]int64
	conns []*conn
	// lingers is the percentage of ended connections of which something arrives
	// late.
	lingers int
	// observer sees every message at the replica's end.
	observer observer
}

// observer watches the replicas' doors; false swallows the message.
type observer interface {
	requested(c *conn, req *block.Request) bool
	replied(c *conn, rep *block.Reply) bool
}

// pollCut is how often a message tries to get through a cut, and ends is how
// long a connection survives one.
const (
	pollCut     = 20 * millisecond
	cutSurvives = 5 * second
)

func newNetwork(l *loop, o observer) *network {
	return &network{loop: l, observer: o, lingers: 30, cut: make(map[[2]int]bool), slow: make(map[[2]int]int64)}
}

// conn is one connection of an engine to a replica's node.
type conn struct {
	network  *network
	engine   *host
	replica  block.ReplicaID
	session  block.Session
	from, to *node
	// server is the process at the far end; its death ends the connection.
	server *process
	accept wire.Session
	// asked are the requests that reached the replica's end and were not answered.
	asked map[uint64]block.Request
	// forbidden are those that must not be granted, with the reason.
	forbidden map[uint64]string
	out       pipe
	back      pipe
	// broken: it will end; closed: the engine hears no more of it.
	broken bool
	closed bool
	// overdue: though it has ended, what the far end goes on answering is handed to
	// the engine, late.
	overdue bool
	// halfOpen: the far end never learns that it has ended.
	halfOpen bool
}

// pipe is one direction of a connection.
type pipe struct {
	queue  []parcel
	moving *event
	// stalled is when the head of the queue began to wait at a cut.
	stalled block.Instant
	sent    int
}

type parcel struct {
	ready   block.Instant
	request block.Request
	reply   block.Reply
}

// dial makes a connection and sends its first request.
func (n *network) dial(h *host, to *node, replica block.ReplicaID, open block.Request) *conn {
	c := &conn{network: n, engine: h, replica: replica, session: open.Session, from: h.node, to: to,
		server: to.process, asked: make(map[uint64]block.Request), forbidden: make(map[uint64]string)}
	n.conns = append(n.conns, c)
	if c.server == nil || c.server.dead {
		open.Buf.Release()
		c.breakOff(fmt.Errorf("dial node %d: refused: %w", to.index, block.ErrUnavailable))
		return c
	}
	c.accept = to.server.Accept(c.replied)
	c.send(open)
	return c
}

// send queues a request.
func (c *conn) send(req block.Request) {
	if c.closed || c.broken {
		req.Buf.Release()
		return
	}
	c.out.queue = append(c.out.queue, parcel{ready: c.ready(c.from, c.to), request: req})
	c.move(&c.out)
}

// replied takes a reply from the replica's end.
func (c *conn) replied(rep block.Reply, _ *turn.Turn) {
	if !c.network.observer.replied(c, &rep) || (c.closed || c.broken) && !c.overdue {
		rep.Buf.Release()
		return
	}
	ready := c.ready(c.to, c.from)
	if c.overdue {
		ready += block.Instant(c.network.loop.between(0, lingerMax))
	}
	c.back.queue = append(c.back.queue, parcel{ready: ready, reply: rep})
	c.move(&c.back)
}

func (c *conn) ready(from, to *node) block.Instant {
	l := c.network.loop
	if from == to {
		return l.now + block.Instant(l.between(microsecond, 10*microsecond))
	}
	delay := l.between(50*microsecond, 500*microsecond)
	if l.chance(1) {
		delay += l.between(millisecond, 30*millisecond)
	}
	if slow := c.network.slow[[2]int{from.index, to.index}]; slow > 0 {
		delay += l.between(0, slow)
	}
	return l.now + block.Instant(delay)
}

// move schedules the delivery of the head of the pipe.
func (c *conn) move(p *pipe) {
	if p.moving != nil || len(p.queue) == 0 {
		return
	}
	receiver := c.server
	if p == &c.back {
		receiver = c.engine.process
	}
	l := c.network.loop
	p.moving = l.after(receiver, int64(p.queue[0].ready-l.now), func() { c.deliver(p) })
}

func (c *conn) deliver(p *pipe) {
	p.moving = nil
	l := c.network.loop
	direction := [2]int{c.from.index, c.to.index}
	if p == &c.back {
		direction = [2]int{c.to.index, c.from.index}
	}
	if c.network.cut[direction] && c.from != c.to {
		if p.stalled == 0 {
			p.stalled = l.now
		}
		if int64(l.now-p.stalled) > cutSurvives {
			if c.broken {
				c.drop(p, 0)
				return
			}
			c.breakOff(fmt.Errorf("node %d to node %d: timed out: %w", direction[0], direction[1], block.ErrUnavailable))
			return
		}
		p.queue[0].ready = l.now + block.Instant(l.between(pollCut/2, pollCut))
		c.move(p)
		return
	}
	p.stalled = 0
	head := p.queue[0]
	p.queue[0] = parcel{}
	p.queue = p.queue[1:]
	p.sent++
	c.move(p)
	if p == &c.out {
		if !c.network.observer.requested(c, &head.request) {
			head.request.Buf.Release()
			return
		}
		c.accept.Handle(head.request, nil)
		return
	}
	c.engine.received(c, head.reply)
}

// breakOff ends the connection: of what was on its way, a random first part is
// still delivered, then both ends learn of it.
func (c *conn) breakOff(err error) {
	if c.broken {
		return
	}
	c.broken = true
	l := c.network.loop
	var outLast int64
	if c.out.stalled != 0 && l.chance(c.network.lingers) {
		// What is in the sender's buffers is sent when the cut ends, in time or not.
		outLast = cutSurvives
	} else if outLast = c.truncate(&c.out); l.chance(c.network.lingers) {
		outLast = c.linger(&c.out)
	}
	backLast := c.truncate(&c.back)
	c.overdue = c.network.lingers > 0 && l.chance(c.network.lingers)
	if !c.closed {
		l.after(c.engine.process, backLast+l.between(10*microsecond, 2*millisecond), func() { c.engine.lost(c, err) })
	}
	if c.accept != nil && !c.halfOpen {
		// The far end may learn of it much later (a half-open connection).
		late := l.between(10*microsecond, 2*millisecond)
		if l.chance(30) {
			late = l.between(millisecond, 3*second)
		}
		l.after(c.server, outLast+late, c.accept.Close)
	}
	c.network.forget(c)
}

// truncate cuts a pipe's queue at a random place and says how long what is left
// takes.
func (c *conn) truncate(p *pipe) int64 {
	l := c.network.loop
	if len(p.queue) == 0 || p.stalled != 0 {
		c.drop(p, 0)
		return 0
	}
	keep := l.rng.IntN(len(p.queue) + 1)
	c.drop(p, keep)
	if keep == 0 {
		return 0
	}
	last := int64(0)
	for _, x := range p.queue {
		last = max(last, int64(x.ready-l.now))
	}
	return last
}

// lingerMax is how late what an engine sent before it closed a connection may
// still arrive: in the meantime it has opened the next one.
const lingerMax = second

// linger holds up what is left in a pipe, and says how long it takes.
func (c *conn) linger(p *pipe) int64 {
	if len(p.queue) == 0 {
		return 0
	}
	l := c.network.loop
	held := l.between(0, lingerMax)
	last := int64(0)
	for i := range p.queue {
		p.queue[i].ready += block.Instant(held)
		last = max(last, int64(p.queue[i].ready-l.now))
	}
	l.cancel(p.moving)
	p.moving = nil
	c.move(p)
	return last
}

func (c *conn) drop(p *pipe, keep int) {
	for _, x := range p.queue[keep:] {
		x.request.Buf.Release()
		x.reply.Buf.Release()
	}
	p.queue = p.queue[:keep]
	if keep == 0 {
		c.network.loop.cancel(p.moving)
		p.moving = nil
	}
}

// close ends the connection from the engine's side: it hears no more of it.
func (c *conn) close() {
	if c.closed {
		return
	}
	c.closed = true
	c.breakOff(nil)
}

func (n *network) forget(c *conn) {
	for i, other := range n.conns {
		if other == c {
			n.conns = append(n.conns[:i], n.conns[i+1:]...)
			return
		}
	}
}

// breakNode ends the connections of a process that died. After a power loss the
// other ends hear nothing for a while.
func (n *network) breakNode(p *process, silent bool) {
	for _, c := range append([]*conn(nil), n.conns...) {
		if c.server != p && c.engine.process != p {
			continue
		}
		if !silent {
			c.breakOff(fmt.Errorf("node %d to node %d: reset: %w", c.from.index, c.to.index, block.ErrUnavailable))
			continue
		}
		late := n.loop.between(2*second, 8*second)
		n.loop.after(nil, late, func() {
			c.breakOff(fmt.Errorf("node %d to node %d: timed out: %w", c.from.index, c.to.index, block.ErrUnavailable))
		})
	}
}
