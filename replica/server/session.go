package server

import (
	"fmt"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// session is the replica's end of one connection. It stands for nothing until
// its OpOpen was let in by a door.
type session struct {
	host  *Host
	reply wire.Reply

	closed atomic.Bool
	// door is set by the first OpOpen that names a replica of this host.
	door atomic.Pointer[door]
	// fence is what that OpOpen asked for; written before door is set.
	fence block.Fence

	// inFlight counts unanswered requests; guarded by the door's mutex.
	inFlight int
}

// Handle implements wire.Session.
func (s *session) Handle(req block.Request, t *turn.Turn) {
	if s.closed.Load() {
		req.Buf.Release()
		return
	}
	if req.Op == block.OpOpen {
		s.open(req)
		return
	}
	d := s.door.Load()
	if d == nil {
		s.refuse(&req, fmt.Errorf("operation %d before a session is open: %w", req.Op, block.ErrProtocol))
		return
	}
	d.take(s, req, t)
}

// Close implements wire.Session. It is idempotent.
func (s *session) Close() {
	if s.closed.Swap(true) {
		return
	}
	if d := s.door.Load(); d != nil {
		d.leave(s)
	}
}

func (s *session) open(req block.Request) {
	if req.Open == nil || req.Buf != nil || s.door.Load() != nil {
		s.refuse(&req, fmt.Errorf("open session: %w", block.ErrProtocol))
		return
	}
	d, err := s.host.admissible(&req)
	if err != nil {
		s.refuse(&req, fmt.Errorf("open replica %s: %w", req.Open.Replica, err))
		return
	}
	s.fence = req.Open.Fence
	s.door.Store(d)
	d.enter(s, req)
}

// refuse answers a request that goes no further.
func (s *session) refuse(req *block.Request, err error) {
	req.Buf.Release()
	s.deliver(replyTo(req, err), nil)
}

// deliver hands a reply over, or drops it after Close.
func (s *session) deliver(rep block.Reply, t *turn.Turn) {
	if s.closed.Load() {
		rep.Buf.Release()
		return
	}
	s.reply(rep, t)
}
