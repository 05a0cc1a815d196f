package core

import (
	"errors"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

type requestState uint8

const (
	// requestParked: not yet begun; it waits for the core to serve, or for a
	// divergent chunk that it touches to be repaired.
	requestParked requestState = iota
	// requestLocking: waits for its range.
	requestLocking
	// requestReady: has its range; a read waits for a lease and a member.
	requestReady
	// requestRunning: replicas are at work for it.
	requestRunning
	// requestHeld: a read whose bytes are here and may not be given out yet.
	requestHeld
	// requestFlushing: waits for flush number flush.
	requestFlushing
	// requestRepairing: no member could serve it intact; it waits for a repair.
	requestRepairing
)

// request is a client request, from its arrival to its completion.
type request struct {
	used  bool
	state requestState
	kind  RequestKind
	fua   bool
	tag   uint64
	// stamp tells it from a later request in the same slot, arrived is when it came.
	stamp          uint64
	arrived        block.Instant
	offset, length int64
	// done counts the bytes of a zeroing that are finished; it goes piece by
	// piece, a region at a time.
	done   int64
	buf    *block.Buffer
	ticket uint64
	flush  uint64
	// snapshot is what is read instead of the head, or compared with it.
	snapshot block.SnapshotID
	// at is the member a read was sent to, tried are those that failed it.
	at       int
	tried    set
	repaired bool
	result   *block.Buffer
}

// piece is the span the request works on now.
func (r *request) piece() block.Span {
	span := block.Span{Offset: r.offset + r.done, Length: r.length - r.done}
	if r.kind == ZeroRequest {
		end := block.RegionOf(span.Offset).Span().End()
		span.Length = min(span.Length, end-span.Offset)
	}
	return span
}

// arrive takes a client request in.
func (c *Core) arrive(q *Request) {
	invariant.Assert(len(c.freeRequests) > 0, "more requests in flight than Limits.Requests")
	n := len(c.freeRequests) - 1
	i := int(c.freeRequests[n])
	c.freeRequests = c.freeRequests[:n]
	r := &c.requests[i]
	*r = request{
		used: true, kind: q.Kind, fua: q.ForceUnitAccess, tag: q.Tag, stamp: r.stamp + 1,
		offset: q.Offset, length: q.Length, buf: q.Buf, at: -1, arrived: c.now, snapshot: q.Snapshot,
	}
	switch {
	case c.phase == draining:
		c.complete(i, block.ErrDetached, nil)
	case !c.valid(r):
		c.complete(i, block.ErrInvalid, nil)
	default:
		c.advance(i)
	}
}

// valid checks what the frontend has promised: it is cheap, and a broken promise
// would reach other people's blocks.
func (c *Core) valid(r *request) bool {
	span := block.Span{Offset: r.offset, Length: r.length}
	switch r.kind {
	case FlushRequest:
		return true
	case ZeroRequest:
		return span.Within(c.view.Size, block.SectorSize)
	case ReadRequest:
		return span.Within(c.sizeOf(r.snapshot), block.SectorSize) && r.length <= block.MaxTransfer
	case ChangedRequest:
		return span.Within(c.view.Size, block.SectorSize) && span.Offset%block.ExtentSize == 0 && r.length <= block.ChangedMax &&
			c.view.Snapshot(r.snapshot) != nil
	case WriteRequest:
		return span.Within(c.view.Size, block.SectorSize) && r.length <= block.MaxTransfer &&
			r.buf != nil && int64(len(r.buf.Data)) == r.length
	default:
		return false
	}
}

// sizeOf is the size of the head or, unless the ID is zero, of a snapshot.
func (c *Core) sizeOf(snapshot block.SnapshotID) int64 {
	if snapshot.IsZero() {
		return c.view.Size
	}
	if s := c.view.Snapshot(snapshot); s != nil {
		return s.Size
	}
	return 0
}

// onlyReads reports whether the request changes nothing and goes to one member.
func (r *request) onlyReads() bool { return r.kind == ReadRequest || r.kind == ChangedRequest }

// advance carries a request as far as it can go now.
func (c *Core) advance(i int) {
	r := &c.requests[i]
	switch r.state {
	case requestParked:
		c.begin(i)
	case requestReady:
		c.sendRead(i)
	case requestHeld:
		if c.settled() {
			c.complete(i, nil, r.result)
		}
	case requestRepairing:
		if !c.repairPending(r.piece()) {
			r.state = requestParked
			c.begin(i)
		}
	}
}

// begin starts a parked request: a flush waits for the next flush, everything
// else for its range, after the divergent chunks it touches were repaired.
func (c *Core) begin(i int) {
	if c.phase != serving && c.phase != draining {
		return
	}
	r := &c.requests[i]
	if r.kind == FlushRequest {
		r.state = requestFlushing
		r.flush = c.joinFlush()
		return
	}
	span := r.piece()
	if c.divide.touches(span) {
		c.guarded(GuardDivergent)
		c.kick = true
		return
	}
	var granted bool
	r.state = requestLocking
	r.ticket, granted = c.locks.acquire(span, !r.onlyReads(), requestOwner(i))
	switch {
	case granted:
		c.requestGranted(i)
	case r.onlyReads():
		c.guarded(GuardRead)
	default:
		c.guarded(GuardOrder)
	}
}

// requestGranted goes on once the range is held.
func (c *Core) requestGranted(i int) {
	r := &c.requests[i]
	invariant.Assert(r.used && r.state == requestLocking, "range granted to request %d in state %d", i, r.state)
	r.state = requestReady
	if r.onlyReads() {
		c.sendRead(i)
		return
	}
	r.state = requestRunning
	op := block.OpWrite
	if r.kind == ZeroRequest {
		op = block.OpZero
	}
	buf := r.buf
	r.buf = nil
	c.mirror(write{op: op, span: r.piece(), buf: buf, request: int32(i), job: -1})
}

// written is the end of a mirrored write of the request, and says whether it is durable.
func (c *Core) written(i int, length int64, durable bool) {
	r := &c.requests[i]
	c.release(r.ticket)
	r.done += length
	switch {
	case r.done < r.length:
		r.state = requestParked
		c.begin(i)
	case r.fua && !durable:
		r.state = requestFlushing
		r.flush = c.joinFlush()
	default:
		r.ticket = 0
		c.complete(i, nil, nil)
	}
}

// Completions are the errors with which a request may end. Whatever else goes wrong
// is waited for.
func Completions() []error {
	return []error{
		// The request cannot be carried out by anybody.
		block.ErrInvalid,
		// No in-sync replica has the bytes intact (rule 19).
		block.ErrIO,
		// The attachment has ended.
		block.ErrDetached,
		// This engine has: it says nothing of the request, which the next one serves.
		block.ErrStaleEpoch,
	}
}

func mayEndWith(err error) bool {
	for _, allowed := range Completions() {
		if errors.Is(err, allowed) {
			return true
		}
	}
	return err == nil
}

// complete ends a request. It takes over one reference of buf.
func (c *Core) complete(i int, err error, buf *block.Buffer) {
	r := &c.requests[i]
	invariant.Assert(mayEndWith(err), "a request ends with %v", err)
	if r.result != nil && r.result != buf {
		r.result.Release()
	}
	r.buf.Release()
	c.emit(Effect{Kind: EffectComplete, Tag: r.tag, Err: err, Buf: buf})
	if r.kind != FlushRequest && r.kind != ChangedRequest && c.cfg.Timing.JobGap > 0 {
		c.throttle.done(c.now, r.arrived)
	}
	*r = request{stamp: r.stamp}
	c.freeRequests = append(c.freeRequests, int32(i))
	if c.phase == draining {
		c.kick = true
	}
}
