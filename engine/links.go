package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// dialTimeout bounds the making of one link.
const dialTimeout = 2 * time.Second

// links are the connections of an engine, one for each replica at most.
type links struct {
	mu     sync.Mutex
	byID   map[block.ReplicaID]*peer
	closed bool
}

// peer is the link of the newest session with a replica; link is nil while it is
// being made.
type peer struct {
	session block.Session
	link    wire.Link
}

func (l *links) init() { l.byID = make(map[block.ReplicaID]*peer) }

// want notes that session is the newest one with a replica and returns the link
// of the one before, to be closed.
func (l *links) want(id block.ReplicaID, session block.Session) wire.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	var old wire.Link
	if p := l.byID[id]; p != nil {
		old = p.link
	}
	l.byID[id] = &peer{session: session}
	return old
}

// made keeps a new link if its session is still the newest.
func (l *links) made(id block.ReplicaID, session block.Session, link wire.Link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.byID[id]
	if l.closed || p == nil || p.session != session {
		return false
	}
	p.link = link
	return true
}

func (l *links) send(id block.ReplicaID, req block.Request) {
	l.mu.Lock()
	p := l.byID[id]
	var link wire.Link
	if p != nil && p.session == req.Session {
		link = p.link
	}
	l.mu.Unlock()
	if link == nil {
		req.Buf.Release()
		return
	}
	link.Send(req)
}

func (l *links) drop(id block.ReplicaID, session block.Session) {
	l.mu.Lock()
	p := l.byID[id]
	if p == nil || p.session != session {
		l.mu.Unlock()
		return
	}
	delete(l.byID, id)
	l.mu.Unlock()
	if p.link != nil {
		p.link.Close()
	}
}

func (l *links) closeAll() {
	l.mu.Lock()
	l.closed = true
	open := make([]wire.Link, 0, len(l.byID))
	for _, p := range l.byID {
		if p.link != nil {
			open = append(open, p.link)
		}
	}
	clear(l.byID)
	l.mu.Unlock()
	for _, link := range open {
		link.Close()
	}
}

// connect makes a link to a replica and sends open on it.
func (e *Engine) connect(id block.ReplicaID, open block.Request) {
	member := e.config.Core.View.Member(id)
	if old := e.links.want(id, open.Session); old != nil {
		old.Close()
	}
	recv := &receiver{engine: e, replica: id, session: open.Session}
	e.work.Go(func() {
		if member == nil {
			recv.Lost(fmt.Errorf("connect replica %s: %w", id, block.ErrNotFound))
			return
		}
		ctx, cancel := context.WithTimeout(e.ctx, dialTimeout)
		defer cancel()
		link, err := e.config.Dialer.Dial(ctx, *member, recv)
		if err != nil {
			recv.Lost(fmt.Errorf("connect replica %s: %w", id, err))
			return
		}
		if !e.links.made(id, open.Session, link) {
			link.Close()
			return
		}
		link.Send(open)
	})
}

// receiver turns what one link says into events. It names its session, so that
// the last words of an old link are not taken for those of a newer one.
type receiver struct {
	engine  *Engine
	replica block.ReplicaID
	session block.Session
}

// Receive implements wire.Receiver.
func (r *receiver) Receive(rep block.Reply) {
	r.engine.post(job{event: core.Event{Kind: core.EventReply, Replica: r.replica, Session: r.session, Reply: rep}})
}

// Lost implements wire.Receiver.
func (r *receiver) Lost(err error) {
	r.engine.post(job{event: core.Event{Kind: core.EventLost, Replica: r.replica, Session: r.session, Err: err}})
}
