package nbd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// errStopped ends the reader in order.
var errStopped = errors.New("connection is to stop")

// readLoop parses and submits requests. It returns nil when the client
// disconnected or when it was told to stop.
func (c *Conn) readLoop() error {
	for {
		var h requestHeader
		err := c.readHeader(&h)
		switch {
		case errors.Is(err, errStopped):
			return nil
		case errors.Is(err, turn.ErrMoved):
			return err
		case err != nil:
			return fmt.Errorf("read NBD request: %w", err)
		case h.command == cmdDisconnect:
			return nil
		}
		if err := c.accept(&h); err != nil {
			if errors.Is(err, errStopped) {
				return nil
			}
			return fmt.Errorf("read NBD request: %w", err)
		}
	}
}

// readHeader gets the next header.
func (c *Conn) readHeader(h *requestHeader) error {
	for c.in.Buffered() < requestHeaderLength {
		if !c.mayRead() {
			return errStopped
		}
		if err := c.reader.Boundary(); err != nil {
			return err
		}
		if err := c.in.More(requestHeaderLength); err != nil {
			return c.readError(err, c.in.Buffered() == 0)
		}
	}
	return h.decode(c.in.Take(requestHeaderLength))
}

// readError tells an orderly end from a broken connection.
func (c *Conn) readError(err error, betweenRequests bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.quiescing && errors.Is(err, os.ErrDeadlineExceeded), c.aborted:
		return errStopped
	case errors.Is(err, turn.ErrMoved):
		return err
	case errors.Is(err, io.EOF) && betweenRequests:
		return fmt.Errorf("client hung up: %w", block.ErrClosed)
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	default:
		return err
	}
}

// mayRead reports whether reading may go on.
func (c *Conn) mayRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.quiescing && !c.aborted
}

// accept turns a header into a request and submits it, or refuses it.
func (c *Conn) accept(h *requestHeader) error {
	payload := h.payload()
	errno := c.check(h)
	if errno != 0 && payload > maxSkipPayload {
		return fmt.Errorf("write of %d bytes: %w", payload, block.ErrProtocol)
	}
	accounted := int64(0)
	if errno == 0 && (h.command == cmdRead || h.command == cmdWrite) {
		accounted = int64(h.length)
	}
	r := c.acquire(accounted)
	if r == nil {
		return errStopped
	}
	r.cookie = h.cookie
	if errno != 0 {
		if err := c.skip(payload); err != nil {
			c.drop(r)
			return c.readError(err, false)
		}
		r.Kind = refusedKind(h.command)
		c.finished(r, errno, nil, c.reader.Turn())
		return nil
	}
	c.fill(r, h)
	if payload > 0 {
		if err := c.readPayload(r, payload); err != nil {
			c.drop(r)
			return c.readError(err, false)
		}
	}
	r.state.Store(requestSubmitted)
	r.turn = c.reader.Turn()
	c.backend.Submit(r)
	return nil
}

// refusedKind decides the form of a refusal: only reads and block status must
// be answered by chunks.
func refusedKind(command uint16) Kind {
	switch command {
	case cmdRead:
		return KindRead
	case cmdBlockStatus:
		return KindStatus
	default:
		return KindFlush
	}
}

// fill sets the public fields of a request.
func (c *Conn) fill(r *Request, h *requestHeader) {
	r.FUA = h.flags&cmdFlagFUA != 0
	r.one = h.flags&cmdFlagReqOne != 0
	r.Offset, r.Length = int64(h.offset), int64(h.length)
	r.Contexts = nil
	switch h.command {
	case cmdRead:
		r.Kind = KindRead
	case cmdWrite:
		r.Kind = KindWrite
	case cmdWriteZeroes:
		r.Kind = KindZero
	case cmdTrim:
		r.Kind = KindTrim
	case cmdFlush:
		r.Kind = KindFlush
	case cmdBlockStatus:
		r.Kind = KindStatus
		r.Contexts = c.contexts
	}
}

// check applies the standard's rules to a request; 0 means that it may be
// submitted.
func (c *Conn) check(h *requestHeader) Errno {
	allowed := uint16(0)
	if c.info.FUA {
		// FUA must be tolerated where it means nothing.
		allowed = cmdFlagFUA
	}
	limit := uint32(math.MaxUint32)
	beyond := EINVAL
	modifies := false
	switch h.command {
	case cmdRead:
		limit = c.info.MaxBlock
		if c.config.Structured {
			// A read is always answered by one chunk.
			allowed |= cmdFlagDF
		}
	case cmdWrite:
		limit, beyond, modifies = c.info.MaxBlock, ENOSPC, true
	case cmdWriteZeroes:
		allowed |= cmdFlagNoHole
		beyond, modifies = ENOSPC, true
		if !c.info.Zeroes && !c.info.ReadOnly {
			return EINVAL
		}
	case cmdTrim:
		modifies = true
		if !c.info.Trim && !c.info.ReadOnly {
			return EINVAL
		}
	case cmdFlush:
		if !c.info.Flush || h.flags&^allowed != 0 || h.offset != 0 || h.length != 0 {
			return EINVAL
		}
		return 0
	case cmdBlockStatus:
		allowed |= cmdFlagReqOne
		if !c.config.Structured || len(c.contexts) == 0 {
			return EINVAL
		}
	default:
		return EINVAL
	}
	switch {
	case modifies && c.info.ReadOnly:
		return EPERM
	case h.flags&^allowed != 0, h.length == 0:
		return EINVAL
	}
	return c.checkRange(h, limit, beyond)
}

// checkRange refuses ranges that are too long, unaligned, or past the end.
func (c *Conn) checkRange(h *requestHeader, limit uint32, beyond Errno) Errno {
	size, align := uint64(c.size.Load()), uint64(c.info.MinBlock)
	switch {
	case h.length > limit:
		return EINVAL
	case h.offset > size || uint64(h.length) > size-h.offset:
		return beyond
	case h.offset%align != 0 || uint64(h.length)%align != 0:
		return EINVAL
	default:
		return 0
	}
}

// acquire takes a free request, waiting while the limits are reached: that is
// the backpressure, as nothing is read meanwhile. It returns nil when the
// connection is to stop.
func (c *Conn) acquire(accounted int64) *Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fitsLocked(accounted) {
		// Room may come only from what waits for the end of this turn.
		c.mu.Unlock()
		c.reader.Turn().End()
		c.mu.Lock()
	}
	for !c.quiescing && !c.aborted && !c.fitsLocked(accounted) {
		c.slotFree.Wait()
	}
	if c.quiescing || c.aborted {
		return nil
	}
	r := c.free
	if r != nil {
		c.free = r.next
	} else {
		r = &Request{owner: c}
		c.made++
	}
	r.next = nil
	r.accounted = accounted
	c.inFlight++
	c.inFlightBytes += accounted
	return r
}

// fitsLocked: one request always fits, however long.
func (c *Conn) fitsLocked(accounted int64) bool {
	if c.inFlight == 0 {
		return true
	}
	return c.inFlight < c.config.MaxInFlight && c.inFlightBytes+accounted <= c.config.MaxInFlightBytes
}

// drop gives back a request that was never submitted.
func (c *Conn) drop(r *Request) {
	r.Buf.Release()
	r.Buf = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recycleLocked(r)
}

// readPayload reads the data of a write into an aligned buffer: what is
// buffered by a copy, the rest straight from the socket.
func (c *Conn) readPayload(r *Request, n int) error {
	r.Buf = block.NewBuffer(n)
	got := copy(r.Buf.Data, c.in.Take(min(n, c.in.Buffered())))
	if got == n {
		return nil
	}
	if !c.mayRead() {
		return errStopped
	}
	_, err := io.ReadFull(c.reader, r.Buf.Data[got:])
	return err
}

// skip throws n bytes of input away.
func (c *Conn) skip(n int) error {
	for {
		n -= len(c.in.Take(min(n, c.in.Buffered())))
		if n == 0 {
			return nil
		}
		if !c.mayRead() {
			return errStopped
		}
		if err := c.in.More(requestHeaderLength); err != nil {
			return err
		}
	}
}
