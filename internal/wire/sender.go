package wire

import (
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// headsKept bounds the memory of headers that is kept from batch to batch.
const headsKept = 1 << 20

// sender is the bounded queue of a connection and what sends from it. Who puts a
// message there sends it too, at the end of its turn, with all others that are there,
// and no other thread is woken for that. When the peer takes no more, the one goroutine
// of run goes on, and waits; it does the same for a connection that cannot be written
// without waiting (TLS).
type sender[M message] struct {
	// countMax and bytesMax bound what has been put and is not yet sent.
	countMax int
	bytesMax int64
	// encode appends header and metadata of a message.
	encode func(b []byte, m *M) ([]byte, error)
	// sent is told each batch that has ended, before its data are released. It may be
	// nil.
	sent func([]M)

	mu    sync.Mutex
	stuck sync.Cond
	// pending has been put and not yet taken.
	pending []M
	// taken and bytes count what has been put and is not yet sent.
	taken int
	bytes int64
	// sending: somebody has a batch, and what follows. left: it is for run, with err if
	// that is why.
	sending, left bool
	err           error
	closed        bool

	// These belong to who is sending. batch is what is being sent, spare the memory of
	// the batch before, heads that of headers and metadata, cuts where in it the data of
	// messages belong.
	batch, spare []M
	heads        []byte
	cuts         []cut
	out          *socket.Writer
}

// cut says that data follow the first end bytes of sender.heads.
type cut struct {
	end  int
	data []byte
}

func newSender[M message](conn *socket.Socket, countMax int, bytesMax int64, encode func([]byte, *M) ([]byte, error), sent func([]M)) *sender[M] {
	s := &sender[M]{countMax: countMax, bytesMax: bytesMax, encode: encode, sent: sent, out: socket.NewWriter(conn)}
	s.stuck.L = &s.mu
	return s
}

// putResult is what became of a message.
type putResult uint8

const (
	accepted putResult = iota
	// overflowed and refused leave the message with the caller.
	overflowed
	refused
)

// put queues a message, and never waits. The caller's turn must end with EndTurn.
func (s *sender[M]) put(m M) putResult {
	size := int64(0)
	if data := dataOf(&m); data != nil {
		size = int64(len(data.Data))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refused
	case len(s.pending)+s.taken >= s.countMax || s.bytes+size > s.bytesMax:
		return overflowed
	}
	s.pending = append(s.pending, m)
	s.bytes += size
	return accepted
}

// EndTurn implements turn.Ender: it sends what is there, as far as the peer takes it,
// unless somebody is at it.
func (s *sender[M]) EndTurn(*turn.Turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sending {
		return
	}
	for s.take() {
		s.mu.Unlock()
		all, err := false, s.load()
		if err == nil {
			all, err = s.out.Try()
		}
		s.mu.Lock()
		if (!all || err != nil) && !s.closed {
			s.left, s.err = true, err
			s.stuck.Signal()
			return
		}
		s.done()
	}
}

// run sends what others have left, until the sender is closed (nil) or the connection
// fails.
func (s *sender[M]) run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for !s.left && !s.closed {
			s.stuck.Wait()
		}
		if !s.left {
			return nil
		}
		s.left = false
		if err := s.finish(s.err); err != nil {
			s.closed = true
			return err
		}
	}
}

// finish sends the rest of a batch, which failed if err is not nil, and all that was put
// meanwhile. mu is held, but not while it waits.
func (s *sender[M]) finish(err error) error {
	for {
		s.mu.Unlock()
		if err == nil {
			err = s.out.Flush()
		}
		s.mu.Lock()
		s.done()
		if err != nil || !s.take() {
			return err
		}
		s.mu.Unlock()
		err = s.load()
		s.mu.Lock()
	}
}

// take makes what is pending the batch, unless there is nothing.
func (s *sender[M]) take() bool {
	if s.closed || len(s.pending) == 0 {
		return false
	}
	s.batch, s.pending = s.pending, s.spare[:0]
	s.taken = len(s.batch)
	s.sending = true
	return true
}

// load hands the batch to out.
func (s *sender[M]) load() error {
	s.heads, s.cuts = s.heads[:0], s.cuts[:0]
	for i := range s.batch {
		var err error
		if s.heads, err = s.encode(s.heads, &s.batch[i]); err != nil {
			return err
		}
		if data := dataOf(&s.batch[i]); data != nil {
			s.cuts = append(s.cuts, cut{end: len(s.heads), data: data.Data})
		}
	}
	start := 0
	for _, c := range s.cuts {
		s.out.Add(s.heads[start:c.end])
		s.out.Add(c.data)
		start = c.end
	}
	s.out.Add(s.heads[start:])
	return nil
}

// done ends the batch, sent or not. mu is held, but not while others are told.
func (s *sender[M]) done() {
	s.mu.Unlock()
	if s.sent != nil {
		s.sent(s.batch)
	}
	bytes := int64(0)
	for i := range s.batch {
		if data := dataOf(&s.batch[i]); data != nil {
			bytes += int64(len(data.Data))
			data.Release()
		}
	}
	clear(s.batch)
	clear(s.cuts)
	if cap(s.heads) > headsKept {
		s.heads = nil
	}
	s.mu.Lock()
	s.spare, s.batch = s.batch, nil
	s.taken = 0
	s.bytes -= bytes
	s.sending = false
}

// close ends the sender and returns what nobody will send any more.
func (s *sender[M]) close() []M {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	rest := s.pending
	s.pending = nil
	s.stuck.Signal()
	return rest
}

// dataOf is the data that a message carries, nil for none.
func dataOf[M message](m *M) *block.Buffer {
	switch m := any(m).(type) {
	case *block.Request:
		return m.Buf
	case *block.Reply:
		return m.Buf
	}
	return nil
}

// releaseAll gives back the data of messages that were not sent.
func releaseAll[M message](messages []M) {
	for i := range messages {
		dataOf(&messages[i]).Release()
	}
}
