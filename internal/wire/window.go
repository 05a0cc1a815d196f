package wire

import (
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// window bounds the requests of one connection that are unanswered. When it is
// full, the connection is not read, which holds the peer back through TCP.
type window struct {
	limits Limits

	reader *turn.Reader

	mu   sync.Mutex
	room turn.Room
	// open are the unanswered requests and the bytes each may hold: its data, or
	// those of its answer.
	open   map[uint64]int64
	bytes  int64
	closed bool
}

func newWindow(limits Limits, reader *turn.Reader) *window {
	w := &window{limits: limits, reader: reader, open: make(map[uint64]int64)}
	w.room.Init(&w.mu, reader)
	return w
}

// enter waits until a request fits; before that it ends the reader's turn. A sequence number that is already in use
// breaks the protocol; after close it is block.ErrClosed.
func (w *window) enter(req *block.Request) error {
	cost := int64(0)
	switch {
	case req.Buf != nil:
		cost = int64(len(req.Buf.Data))
	case req.Op == block.OpRead:
		// One that is out of bounds is refused behind the window.
		cost = min(max(req.Length, 0), block.MaxTransfer)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	full := func() bool {
		return !w.closed && (len(w.open) >= w.limits.Requests || w.bytes+cost > w.limits.Bytes)
	}
	if full() {
		w.mu.Unlock()
		w.reader.Turn().End()
		w.mu.Lock()
	}
	for full() {
		w.room.Wait()
	}
	if w.closed {
		return block.ErrClosed
	}
	if _, twice := w.open[req.Seq]; twice {
		return fmt.Errorf("sequence %d is in use: %w", req.Seq, block.ErrProtocol)
	}
	w.open[req.Seq] = cost
	w.bytes += cost
	return nil
}

// leave makes room when replies have been written.
func (w *window) leave(replies []block.Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range replies {
		w.bytes -= w.open[replies[i].Seq]
		delete(w.open, replies[i].Seq)
	}
	w.room.Signal()
}

// close lets a waiting enter go.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.room.Signal()
}
