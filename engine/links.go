package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// dialTimeout bounds the making of one link, to the end of its handshake.
const dialTimeout = 2 * time.Second

// links are the connections of an engine, one for each replica at most.
//
// Nothing here waits for the network: a link only queues what is sent, and one
// whose peer does not read is closed by the core when its deadline has passed.
type links struct {
	// ending are the links whose goroutines are not joined yet.
	ending sync.WaitGroup

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

// want notes that session is the newest one with a replica, and closes the link
// of the one before.
func (l *links) want(id block.ReplicaID, session block.Session) {
	l.mu.Lock()
	old := l.byID[id]
	l.byID[id] = &peer{session: session}
	l.mu.Unlock()
	if old != nil && old.link != nil {
		l.end(old.link)
	}
}

// made keeps a new link if its session is still the newest, else ends it.
func (l *links) made(id block.ReplicaID, session block.Session, link wire.Link) bool {
	l.mu.Lock()
	p := l.byID[id]
	wanted := !l.closed && p != nil && p.session == session
	if wanted {
		p.link = link
	}
	l.mu.Unlock()
	if !wanted {
		l.end(link)
	}
	return wanted
}

func (l *links) send(id block.ReplicaID, req block.Request, t *turn.Turn) {
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
	link.Send(req, t)
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
		l.end(p.link)
	}
}

// end closes a link and joins its goroutines in closeAll.
func (l *links) end(link wire.Link) {
	link.Close()
	if joined, ok := link.(interface{ Done() <-chan struct{} }); ok {
		l.ending.Go(func() { <-joined.Done() })
	}
}

// closeAll closes every link and joins them all.
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
		l.end(link)
	}
	l.ending.Wait()
}

// connect makes a link to a replica and sends open on it.
func (e *Engine) connect(id block.ReplicaID, open block.Request) {
	e.links.want(id, open.Session)
	recv := &receiver{engine: e, replica: id, session: open.Session}
	// The view of now: replicas come and go within an epoch.
	view := e.core.Status().View
	member := view.Member(id)
	if member == nil {
		e.chores.add(func(context.Context) {
			recv.Lost(fmt.Errorf("connect replica %s: it is not of the volume: %w", id, block.ErrNotFound))
		})
		return
	}
	e.chores.add(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		link, err := e.config.Dialer.Dial(ctx, *member, recv)
		if err != nil {
			recv.Lost(fmt.Errorf("connect replica %s: %w", id, err))
			return
		}
		if e.links.made(id, open.Session, link) {
			link.Send(open, nil)
		}
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
func (r *receiver) Receive(rep block.Reply, t *turn.Turn) {
	r.engine.postIn(t, job{event: core.Event{Kind: core.EventReply, Replica: r.replica, Session: r.session, Reply: rep}})
}

// Lost implements wire.Receiver.
func (r *receiver) Lost(err error) {
	r.engine.post(job{event: core.Event{Kind: core.EventLost, Replica: r.replica, Session: r.session, Err: err}})
}
