package server

import (
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/replica/store"
)

// door is the one way to a replica. See the package comment.
//
// Rule 4 (fencing): on a higher fence nothing more is taken from older sessions
// (enter, admits), what they have in the store ends (advance), the fence becomes
// durable, and only then is it acknowledged (fenced). A lower one is refused. The
// engine's own replica has the same door.
type door struct {
	disk    Disk
	replica Replica
	limits  Limits

	mu sync.Mutex
	// fence is the highest one that was let in or is being let in.
	fence block.Fence
	// holder is the session of that fence, until it leaves; isOpen once it may
	// ask for more than to be opened.
	holder *session
	isOpen bool
	// opening is the OpOpen not yet answered.
	opening *opening
	// shut is why nobody is let in any more; nil while the door works.
	shut error
	// running counts the operations in the store, whoever asked for them.
	running int
	// inspecting counts the reads of exports; they are of no session.
	inspecting int
	// queue waits for its turn in the store. All of it is the holder's.
	queue callQueue
	// pumping: some goroutine feeds the queue to the store.
	pumping bool
	// spare are calls to be used again.
	spare *call
}

// opening is an OpOpen on its way through the door.
type opening struct {
	session *session
	req     block.Request
	op      store.Op
	// storing: the fence is on its way to the disk.
	storing bool
}

func newDoor(disk Disk, replica Replica, limits Limits) *door {
	return &door{disk: disk, replica: replica, limits: limits, fence: replica.Fence()}
}

// enter begins an OpOpen whose message has been checked: steps 1 of the package
// comment, and 2 to 4 through advance.
func (d *door) enter(s *session, req block.Request) {
	d.mu.Lock()
	err := d.shut
	if err == nil && !d.fence.Less(s.fence) {
		err = d.stale(s.fence)
	}
	if err != nil {
		d.mu.Unlock()
		s.refuse(&req, fmt.Errorf("open replica %s: %w", d.replica.ID(), err))
		return
	}
	d.fence = s.fence
	d.holder = s
	d.isOpen = false
	dropped := d.takeQueue()
	superseded := d.opening
	d.opening = &opening{session: s, req: req}
	d.mu.Unlock()

	d.refuseAll(dropped)
	// One whose fence is on its way to the disk is answered when that ends.
	if superseded != nil && !superseded.storing {
		superseded.session.refuse(&superseded.req, d.staleNow(superseded.session))
	}
	d.advance(nil)
}

// take checks a request against the door and queues it.
func (d *door) take(s *session, req block.Request, t *turn.Turn) {
	err := validate(&req, d.replica.Volume(), d.replica.Size())
	d.mu.Lock()
	if refused := d.admits(s, &req); refused != nil {
		err = refused
	}
	if err != nil {
		d.mu.Unlock()
		s.refuse(&req, fmt.Errorf("replica %s: %w", d.replica.ID(), err))
		return
	}
	s.inFlight++
	d.queue.push(d.newCall(s, req))
	d.pump(t)
}

// admits says why a request of s may not pass, nil if it may.
func (d *door) admits(s *session, req *block.Request) error {
	switch {
	case d.shut != nil:
		return d.shut
	case d.fence != s.fence || d.holder != s:
		return d.stale(s.fence)
	case !d.isOpen:
		return fmt.Errorf("request before the session is open: %w", block.ErrProtocol)
	case req.Epoch < s.fence.Epoch:
		return block.ErrStaleEpoch
	case req.Epoch == s.fence.Epoch && req.Session < s.fence.Session:
		return block.ErrStaleSession
	case req.Epoch != s.fence.Epoch || req.Session != s.fence.Session:
		return fmt.Errorf("epoch %d session %d on a connection of epoch %d session %d: %w",
			req.Epoch, req.Session, s.fence.Epoch, s.fence.Session, block.ErrProtocol)
	case s.inFlight >= d.limits.InFlight:
		return fmt.Errorf("more than %d requests in flight: %w", d.limits.InFlight, block.ErrProtocol)
	}
	return nil
}

// pump feeds the queue to the store, in order. It is called with the lock held
// and returns without it. While one goroutine is at it, others only add.
func (d *door) pump(t *turn.Turn) {
	if d.pumping {
		d.mu.Unlock()
		return
	}
	d.pumping = true
	for d.running < d.limits.Running {
		c := d.queue.pop()
		if c == nil {
			break
		}
		d.running++
		d.mu.Unlock()
		c.start(t)
		d.mu.Lock()
	}
	d.pumping = false
	d.mu.Unlock()
}

// finish ends a call: the store is done with it.
func (d *door) finish(c *call, t *turn.Turn) {
	rep := c.answer()
	s := c.session
	d.mu.Lock()
	d.running--
	s.inFlight--
	outdated := d.fence != s.fence
	d.recycle(c)
	d.mu.Unlock()
	if outdated {
		rep.Buf.Release()
		rep = block.Reply{Op: rep.Op, Epoch: rep.Epoch, Session: rep.Session, Seq: rep.Seq, Err: d.staleNow(s)}
	}
	s.deliver(rep, t)
	d.advance(t)
}

// advance does what has become possible: it begins to store the fence once the
// door is drained, else it feeds the queue.
func (d *door) advance(t *turn.Turn) {
	d.mu.Lock()
	o := d.opening
	if o == nil || o.storing || d.running > 0 {
		d.pump(t)
		return
	}
	o.storing = true
	d.running++
	d.mu.Unlock()
	o.op = store.Op{Kind: store.Fence, NewFence: o.session.fence, Done: func(op *store.Op) { d.fenced(o, op.Err) }}
	d.replica.Submit(&o.op)
}

// fenced ends an opening: its fence is durable, or err says why not.
func (d *door) fenced(o *opening, err error) {
	rep := replyTo(&o.req, err)
	if err == nil {
		// Nothing runs that could change the replica while it is described.
		rep.Opened = d.describe()
	}
	d.mu.Lock()
	d.running--
	switch {
	case d.shut != nil:
		err = d.shut
	case d.opening != o:
		err = d.stale(o.session.fence)
	default:
		d.opening = nil
		d.isOpen = err == nil && d.holder == o.session
	}
	d.mu.Unlock()
	if err != nil {
		rep.Opened = nil
		rep.Err = fmt.Errorf("open replica %s: %w", d.replica.ID(), err)
	}
	o.session.deliver(rep, nil)
	d.advance(nil)
}

// leave ends a session. What it has queued is dropped unapplied; what runs ends
// by itself.
func (d *door) leave(s *session) {
	d.mu.Lock()
	if d.holder != s {
		d.mu.Unlock()
		return
	}
	d.holder = nil
	d.isOpen = false
	if d.opening != nil && !d.opening.storing {
		d.opening = nil
	}
	dropped := d.takeQueue()
	d.mu.Unlock()
	d.refuseAll(dropped)
}

// close shuts the door for good. It reports whether the store still runs
// something for it.
func (d *door) close(why error) (busy bool) {
	d.mu.Lock()
	d.shut = why
	d.isOpen = false
	waiting := d.opening
	if waiting != nil && !waiting.storing {
		d.opening = nil
	}
	dropped := d.takeQueue()
	busy = d.running+d.inspecting > 0
	d.mu.Unlock()
	d.refuseAll(dropped)
	if waiting != nil && !waiting.storing {
		waiting.session.refuse(&waiting.req, why)
	}
	return busy
}

// describe is the replica as a new session finds it.
func (d *door) describe() *block.Opened {
	return &block.Opened{
		Incarnation: d.disk.Incarnation(),
		View:        d.replica.View(),
		Log:         d.replica.Log(),
		Dirty:       d.replica.DirtySets(),
		Flush:       d.replica.FlushNumber(),
		Confirmed:   d.replica.Confirmed(),
		Cuts:        d.replica.Cuts(),
		Size:        d.replica.Size(),
		Free:        d.disk.Free(),
	}
}

// takeQueue empties the queue; the lock is held.
func (d *door) takeQueue() *call {
	first := d.queue.first
	d.queue = callQueue{}
	return first
}

// refuseAll answers calls that were dropped unapplied.
func (d *door) refuseAll(first *call) {
	for c := first; c != nil; {
		next, s := c.next, c.session
		err := d.staleNow(s)
		s.refuse(&c.req, err)
		d.mu.Lock()
		s.inFlight--
		d.recycle(c)
		d.mu.Unlock()
		c = next
	}
}

// stale is the refusal of an older or repeated fence; the lock is held.
func (d *door) stale(f block.Fence) error {
	f.Session = d.fence.Session
	if f.Less(d.fence) {
		return block.ErrStaleEpoch
	}
	return block.ErrStaleSession
}

// staleNow is why a session was shut out.
func (d *door) staleNow(s *session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.shut
	if err == nil || d.fence != s.fence {
		err = d.stale(s.fence)
	}
	return fmt.Errorf("replica %s: %w", d.replica.ID(), err)
}

// newCall takes a spare call or makes one; the lock is held. A door has never
// more calls than sessions had requests in flight.
func (d *door) newCall(s *session, req block.Request) *call {
	c := d.spare
	if c == nil {
		c = &call{door: d}
		c.op.Done = func(op *store.Op) { d.finish(c, op.Ending) }
	} else {
		d.spare = c.next
	}
	c.next = nil
	c.session = s
	c.req = req
	return c
}

// recycle keeps a call for later; the lock is held.
func (d *door) recycle(c *call) {
	c.op = store.Op{Done: c.op.Done}
	c.req = block.Request{}
	c.session = nil
	c.next = d.spare
	d.spare = c
}
