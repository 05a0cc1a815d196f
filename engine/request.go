package engine

import (
	"sync"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// Completer is told the end of one request. For a read, buf holds the bytes and
// one reference of it comes along.
type Completer interface {
	Complete(err error, buf *block.Buffer)
}

// table gives requests their tags and remembers whom to tell. A request beyond
// the core's limit waits here.
type table struct {
	mu      sync.Mutex
	done    []Completer
	free    []uint32
	waiting []waitingRequest
}

type waitingRequest struct {
	request core.Request
	done    Completer
}

func (t *table) init(limit int) {
	t.done = make([]Completer, limit)
	t.free = make([]uint32, limit)
	for i := range t.free {
		t.free[i] = uint32(limit - 1 - i)
	}
}

// take gives r a tag, or keeps it waiting.
func (t *table) take(r *core.Request, done Completer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) == 0 {
		t.waiting = append(t.waiting, waitingRequest{request: *r, done: done})
		return false
	}
	t.assign(r, done)
	return true
}

func (t *table) assign(r *core.Request, done Completer) {
	tag := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.done[tag] = done
	r.Tag = uint64(tag)
}

// give ends a tag. If a request was waiting it takes the place and is returned.
func (t *table) give(tag uint64) (done Completer, next core.Request, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	done = t.done[tag]
	invariant.Assert(done != nil, "request %d completed twice", tag)
	t.done[tag] = nil
	t.free = append(t.free, uint32(tag))
	if len(t.waiting) == 0 {
		return done, core.Request{}, false
	}
	first := t.waiting[0]
	t.waiting[0] = waitingRequest{}
	t.waiting = t.waiting[1:]
	t.assign(&first.request, first.done)
	return done, first.request, true
}

// takeAll empties the table.
func (t *table) takeAll() []Completer {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Completer
	for tag, done := range t.done {
		if done != nil {
			all = append(all, done)
			t.done[tag] = nil
			t.free = append(t.free, uint32(tag))
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
// sectors within the volume. done is told the end, from any goroutine, possibly
// before Submit returns.
func (e *Engine) Submit(r core.Request, done Completer) {
	if e.table.take(&r, done) {
		e.post(job{event: core.Event{Kind: core.EventRequest, Request: r}})
	}
}

func (e *Engine) complete(tag uint64, err error, buf *block.Buffer) {
	done, next, more := e.table.give(tag)
	done.Complete(err, buf)
	if more {
		e.post(job{event: core.Event{Kind: core.EventRequest, Request: next}})
	}
}
