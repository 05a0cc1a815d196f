package nbd

import (
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// Kind is what a Request asks of a Backend.
type Kind uint8

const (
	// KindRead reads Length bytes; Complete is given a buffer with exactly
	// those.
	KindRead Kind = iota + 1
	// KindWrite writes Buf.
	KindWrite
	// KindZero makes the range read as zeros.
	KindZero
	// KindTrim does the same; the client does not care what the range reads as,
	// but Holdfast makes it zeros everywhere (rule 12).
	KindTrim
	// KindFlush makes every write completed before it durable (rule 10).
	KindFlush
	// KindStatus asks for the extents of the selected meta contexts; it is
	// completed with CompleteStatus. Only exports with contexts get it.
	KindStatus
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindRead:
		return "read"
	case KindWrite:
		return "write"
	case KindZero:
		return "zero"
	case KindTrim:
		return "trim"
	case KindFlush:
		return "flush"
	case KindStatus:
		return "status"
	default:
		return "unknown"
	}
}

// Backend does the I/O of an export.
type Backend interface {
	// Submit starts a request and does not wait for it: one goroutine hands over
	// all requests of a connection. The backend completes it exactly once, from
	// any goroutine, also before Submit returns. Requests may be completed in
	// any order.
	Submit(r *Request)
}

// Request is one request on its way through a Backend. Its range lies inside
// the export, in whole minimum blocks; reads and writes are no longer than
// MaxBlock, the other kinds up to 4 GiB. Nobody may touch it after Complete.
type Request struct {
	Kind Kind
	// FUA: a write, zero or trim is durable when it completes.
	FUA    bool
	Offset int64
	Length int64
	// Buf is the payload of a write. The request holds its reference and gives
	// it back when it completes; who needs it longer takes one more.
	Buf *block.Buffer

	// Contexts are the meta contexts a status request is about.
	Contexts []string

	owner owner
	// turn is that of the goroutine which submits.
	turn   *turn.Turn
	state  atomic.Uint32
	cookie uint64
	// one: a status reply shall have one extent only.
	one bool
	// accounted is what the request counts against the limit in bytes.
	accounted int64

	// The reply: headLength bytes of head, then extra, then the data of reply.
	headLength int
	head       [structuredReplyLength + readChunkPrefix]byte
	extra      []byte
	reply      *block.Buffer
	held       bool

	// next links free and finished requests of a Conn.
	next *Request
}

// owner is told that a request is over.
type owner interface {
	finished(r *Request, err error, buf *block.Buffer, t *turn.Turn)
	finishedStatus(r *Request, err error, status [][]Extent)
}

// States of a request.
const (
	requestIdle uint32 = iota
	requestSubmitted
)

// NewRequest makes a request outside any connection, for whoever drives a
// Backend directly. done is called once; it owns the reference of its buffer.
func NewRequest(kind Kind, span block.Span, buf *block.Buffer, fua bool, done func(err error, buf *block.Buffer)) *Request {
	r := &Request{Kind: kind, FUA: fua, Offset: span.Offset, Length: span.Length, Buf: buf, owner: doneFunc(done)}
	r.state.Store(requestSubmitted)
	return r
}

// Span is the range the request touches.
func (r *Request) Span() block.Span { return block.Span{Offset: r.Offset, Length: r.Length} }

// Turn is the turn of the goroutine that has called Submit, until that returns; it may
// be nil.
func (r *Request) Turn() *turn.Turn { return r.turn }

// Complete ends the request. err is nil or wraps a sentinel of package block;
// buf is what a read returns, with one reference that passes to the callee, and
// nil otherwise. It does not block on the network.
func (r *Request) Complete(err error, buf *block.Buffer) { r.CompleteIn(nil, err, buf) }

// CompleteIn is Complete in a turn of the caller, at whose end the reply goes.
func (r *Request) CompleteIn(t *turn.Turn, err error, buf *block.Buffer) {
	r.settle()
	if err == nil && r.Kind == KindRead {
		// No arguments: putting a number into an interface allocates.
		invariant.Assert(buf != nil && int64(len(buf.Data)) == r.Length, "read completed with a buffer of another length")
	}
	if err != nil || r.Kind != KindRead {
		buf.Release()
		buf = nil
	}
	r.owner.finished(r, err, buf, t)
}

// CompleteStatus ends a status request: status[i] belongs to Contexts[i], starts
// at Offset and has at least one extent. What it says past Length is cut off,
// and it may end before.
func (r *Request) CompleteStatus(err error, status [][]Extent) {
	r.settle()
	invariant.Assert(r.Kind == KindStatus, "status given for a %s request", r.Kind)
	r.owner.finishedStatus(r, err, status)
}

// settle marks the end of the backend's turn.
func (r *Request) settle() {
	invariant.Assert(r.state.CompareAndSwap(requestSubmitted, requestIdle), "%s request completed twice", r.Kind)
	r.Buf.Release()
	r.Buf = nil
}

// doneFunc is the owner of a request without a connection.
type doneFunc func(err error, buf *block.Buffer)

func (f doneFunc) finished(_ *Request, err error, buf *block.Buffer, _ *turn.Turn) { f(err, buf) }

func (f doneFunc) finishedStatus(_ *Request, err error, _ [][]Extent) { f(err, nil) }
