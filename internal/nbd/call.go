package nbd

import (
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// Call is one request of a client. The caller sets the first group of fields and
// leaves everything alone until Done is called.
type Call struct {
	Kind   Kind
	FUA    bool
	Offset int64
	Length int64
	// Data is what a write sends or where a read puts its bytes: Length bytes.
	Data []byte
	// One: a status call wants the first extent only.
	One bool
	// Done is called once, from a goroutine of the client; it must not block.
	Done func(*Call)

	// Err is the outcome: nil, an Errno, or why the client ended.
	Err error
	// Status is the outcome of a status call, by name of the meta context.
	Status map[string][]Extent

	cookie uint64
	// sent: the call went out on the current connection.
	sent bool
	// got counts the bytes of a read that have arrived.
	got        int64
	prev, next *Call
}

// reset forgets what arrived of an answer that was cut short.
func (c *Call) reset() {
	c.sent, c.got, c.Err, c.Status = false, 0, nil, nil
}

// callTable holds the unanswered calls of a client, in the order in which they
// were submitted: first those that were sent on the current connection, then
// the others.
type callTable struct {
	mu        sync.Mutex
	slotFree  sync.Cond
	sendReady sync.Cond

	// slots find a call by the low half of its cookie; the high half counts the
	// uses of the slot, so that a late reply finds nothing (rule 29).
	slots []callSlot
	free  []uint32

	head, tail *Call
	// unsent is the first call that was not sent.
	unsent *Call
	// connected: there is a connection whose writer takes calls.
	connected bool
	// ended is why no call is taken any more.
	ended error
}

type callSlot struct {
	uses uint32
	call *Call
}

func (t *callTable) init(maxInFlight int) {
	t.slotFree.L, t.sendReady.L = &t.mu, &t.mu
	t.slots = make([]callSlot, maxInFlight)
	t.free = make([]uint32, 0, maxInFlight)
	for slot := range maxInFlight {
		t.free = append(t.free, uint32(maxInFlight-1-slot))
	}
}

// submit queues a call, waiting for a free slot. A table that has ended
// completes it at once.
func (t *callTable) submit(c *Call) {
	t.mu.Lock()
	for t.ended == nil && len(t.free) == 0 {
		t.slotFree.Wait()
	}
	if err := t.ended; err != nil {
		t.mu.Unlock()
		c.Err = err
		c.Done(c)
		return
	}
	c.reset()
	slot := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.slots[slot].uses++
	t.slots[slot].call = c
	c.cookie = uint64(t.slots[slot].uses)<<32 | uint64(slot)
	c.prev, c.next = t.tail, nil
	if t.tail == nil {
		t.head = c
	} else {
		t.tail.next = c
	}
	t.tail = c
	if t.unsent == nil {
		t.unsent = c
		t.sendReady.Signal()
	}
	t.mu.Unlock()
}

// find returns the sent call of a cookie, nil when there is none.
func (t *callTable) find(cookie uint64) *Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := uint32(cookie)
	if int64(slot) >= int64(len(t.slots)) {
		return nil
	}
	c := t.slots[slot].call
	if c == nil || c.cookie != cookie || !c.sent {
		return nil
	}
	return c
}

// finish takes an answered call out and tells its owner.
func (t *callTable) finish(c *Call) {
	t.mu.Lock()
	t.unlinkLocked(c)
	t.mu.Unlock()
	c.Done(c)
}

func (t *callTable) unlinkLocked(c *Call) {
	slot := uint32(c.cookie)
	invariant.Assert(t.slots[slot].call == c, "call is not in its slot")
	t.slots[slot].call = nil
	t.free = append(t.free, slot)
	if t.unsent == c {
		t.unsent = c.next
	}
	if c.prev == nil {
		t.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		t.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	t.slotFree.Signal()
}

// connect starts a connection: every call is to be sent on it.
func (t *callTable) connect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := t.head; c != nil; c = c.next {
		c.reset()
	}
	t.unsent = t.head
	t.connected = true
}

// disconnect ends the turn of the connection's writer.
func (t *callTable) disconnect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connected = false
	t.sendReady.Signal()
}

// end completes every call with err and takes no more. No connection is in use.
func (t *callTable) end(err error) {
	t.mu.Lock()
	if t.ended == nil {
		t.ended = err
	}
	err = t.ended
	var calls []*Call
	for t.head != nil {
		c := t.head
		t.unlinkLocked(c)
		calls = append(calls, c)
	}
	t.slotFree.Broadcast()
	t.mu.Unlock()
	for _, c := range calls {
		c.Err = err
		c.Done(c)
	}
}

// maxSendBatch bounds the calls sent by one system call.
const maxSendBatch = 64

// takeUnsent fills batch with the next calls to send, waiting for some. It
// returns nothing when the connection is over.
func (t *callTable) takeUnsent(batch []outgoing) []outgoing {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.connected && t.unsent == nil {
		t.sendReady.Wait()
	}
	if !t.connected {
		return nil
	}
	for len(batch) < maxSendBatch && t.unsent != nil {
		c := t.unsent
		t.unsent = c.next
		c.sent = true
		batch = append(batch, c.outgoing())
	}
	return batch
}

// outgoing is what the writer needs of a call. It is a copy: once the last byte
// is sent the answer may come, and the call is its owner's again.
type outgoing struct {
	header requestHeader
	data   []byte
}

func (c *Call) outgoing() outgoing {
	o := outgoing{header: requestHeader{cookie: c.cookie, offset: uint64(c.Offset), length: uint32(c.Length)}}
	if c.FUA {
		o.header.flags |= cmdFlagFUA
	}
	switch c.Kind {
	case KindRead:
		o.header.command = cmdRead
	case KindWrite:
		o.header.command = cmdWrite
		o.data = c.Data
	case KindZero:
		o.header.command = cmdWriteZeroes
	case KindTrim:
		o.header.command = cmdTrim
	case KindFlush:
		o.header.command = cmdFlush
		o.header.offset, o.header.length = 0, 0
	case KindStatus:
		o.header.command = cmdBlockStatus
		if c.One {
			o.header.flags |= cmdFlagReqOne
		}
	}
	return o
}

// check refuses calls that cannot be put into a request.
func (c *Call) check() error {
	data := c.Kind == KindRead || c.Kind == KindWrite
	switch {
	case c.Kind < KindRead || c.Kind > KindStatus, c.Done == nil:
		return block.ErrInvalid
	case c.Offset < 0 || c.Length < 0 || c.Length > 1<<32-1:
		return block.ErrInvalid
	case data && int64(len(c.Data)) != c.Length:
		return block.ErrInvalid
	case c.Kind != KindFlush && c.Length == 0:
		return block.ErrInvalid
	}
	return nil
}

// idle reports whether no call is unanswered.
func (t *callTable) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head == nil
}
