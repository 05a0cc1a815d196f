package wire

import (
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
)

// outbox is the bounded queue between those who send and the one writer of a
// connection. Putting never waits.
type outbox[M message] struct {
	// countMax and bytesMax bound what has been put and is not yet written.
	countMax int
	bytesMax int64

	mu    sync.Mutex
	ready sync.Cond
	// pending has been put and not yet taken.
	pending []M
	// taken and bytes count what has been put and is not yet written.
	taken  int
	bytes  int64
	closed bool
}

func newOutbox[M message](countMax int, bytesMax int64) *outbox[M] {
	o := &outbox[M]{countMax: countMax, bytesMax: bytesMax}
	o.ready.L = &o.mu
	return o
}

// putResult is what became of a message.
type putResult uint8

const (
	accepted putResult = iota
	// overflowed and refused leave the message with the caller.
	overflowed
	refused
)

// put queues a message with size bytes of data.
func (o *outbox[M]) put(m M, size int) putResult {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return refused
	case len(o.pending)+o.taken >= o.countMax || o.bytes+int64(size) > o.bytesMax:
		return overflowed
	}
	o.pending = append(o.pending, m)
	o.bytes += int64(size)
	if len(o.pending) == 1 {
		o.ready.Signal()
	}
	return accepted
}

// take waits for messages and returns all there are, in order; none after
// close. written is the batch of the last call, which has been dealt with and
// had writtenBytes of data; its memory is used again.
func (o *outbox[M]) take(written []M, writtenBytes int64) []M {
	clear(written)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken = 0
	o.bytes -= writtenBytes
	for len(o.pending) == 0 && !o.closed {
		o.ready.Wait()
	}
	if o.closed {
		return nil
	}
	batch := o.pending
	o.pending = written[:0]
	o.taken = len(batch)
	return batch
}

// close ends the outbox and returns what nobody will write any more.
func (o *outbox[M]) close() []M {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	rest := o.pending
	o.pending = nil
	o.ready.Signal()
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
