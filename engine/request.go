package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// waitingFactor bounds the requests that wait for a place in the core, in
// multiples of the core's limit. Frontends hold back long before; one that does
// not is refused with block.ErrUnavailable.
const waitingFactor = 16

// Completer is told the end of one request, exactly once, in a turn of the engine. For
// a read, buf holds the bytes and one reference of it comes along. It must not wait for
// the engine.
type Completer interface {
	CompleteIn(t *turn.Turn, err error, buf *block.Buffer)
}

// table gives requests their tags and remembers whom to tell. A request beyond
// the core's limit waits here.
type table struct {
	mu      sync.Mutex
	slots   []slot
	free    []uint32
	waiting []waitingRequest
	limit   int
	// refused is why nothing is taken any more; nil before the end.
	refused error
}

// slot is a request that has a tag.
type slot struct {
	done  Completer
	kind  core.RequestKind
	bytes int64
}

type waitingRequest struct {
	request core.Request
	done    Completer
}

func (t *table) init(limit int) {
	t.slots = make([]slot, limit)
	t.free = make([]uint32, limit)
	t.limit = waitingFactor * limit
	for i := range t.free {
		t.free[i] = uint32(limit - 1 - i)
	}
}

// take gives r a tag, keeps it waiting, or says why not.
func (t *table) take(r *core.Request, done Completer) (tagged bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.refused != nil:
		return false, t.refused
	case len(t.free) > 0:
		t.assign(r, done)
		return true, nil
	case len(t.waiting) >= t.limit:
		return false, fmt.Errorf("more than %d requests wait: %w", t.limit, block.ErrUnavailable)
	}
	t.waiting = append(t.waiting, waitingRequest{request: *r, done: done})
	return false, nil
}

func (t *table) assign(r *core.Request, done Completer) {
	tag := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.slots[tag] = slot{done: done, kind: r.Kind, bytes: r.Length}
	r.Tag = uint64(tag)
}

// give ends a tag. If a request was waiting it takes the place and is returned.
func (t *table) give(tag uint64) (ended slot, next core.Request, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended = t.slots[tag]
	invariant.Assert(ended.done != nil, "request %d completed twice", tag)
	t.slots[tag] = slot{}
	t.free = append(t.free, uint32(tag))
	if len(t.waiting) == 0 {
		return ended, core.Request{}, false
	}
	first := t.waiting[0]
	t.waiting[0] = waitingRequest{}
	t.waiting = t.waiting[1:]
	t.assign(&first.request, first.done)
	return ended, first.request, true
}

// close empties the table and refuses everything from now on. It returns those
// who were not told yet: their requests wait, or are still on their way to the
// core, which will not see them.
func (t *table) close(refused error) []Completer {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = refused
	var all []Completer
	for tag := range t.slots {
		if done := t.slots[tag].done; done != nil {
			all = append(all, done)
			t.slots[tag] = slot{}
		}
	}
	for _, w := range t.waiting {
		w.request.Buf.Release()
		all = append(all, w.done)
	}
	t.waiting = nil
	return all
}

// Submit hands a client request over; its Tag is ignored. Spans are whole
// sectors within the volume. It takes over one reference of the request's Buf.
// done is told the end, from any goroutine, possibly before Submit returns. t is the
// caller's turn.
func (e *Engine) Submit(r core.Request, done Completer, t *turn.Turn) {
	var tagged bool
	err := block.ErrInvalid
	if r.Kind >= core.ReadRequest && r.Kind <= core.ChangedRequest {
		tagged, err = e.table.take(&r, done)
	}
	switch {
	case err != nil:
		r.Buf.Release()
		done.CompleteIn(t, err, nil)
	case tagged:
		e.postIn(t, job{event: core.Event{Kind: core.EventRequest, Request: r}})
	}
}

func (e *Engine) complete(tag uint64, err error, buf *block.Buffer) {
	ended, next, more := e.table.give(tag)
	e.config.Metrics.request(&ended, time.Duration(e.now-e.began[tag]), err)
	ended.done.CompleteIn(e.turn, err, buf)
	if more {
		e.post(job{event: core.Event{Kind: core.EventRequest, Request: next}})
	}
}
