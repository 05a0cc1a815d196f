package nbd

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
)

// transport moves the calls of a table over one connection.
type transport struct {
	table      *callTable
	socket     net.Conn
	in         *bufio.Reader
	structured bool
	contexts   map[uint32]string
}

// clientBufferBytes is the size of a client's read buffer.
const clientBufferBytes = 256 << 10

// newTransport takes over what a handshake has left.
func newTransport(table *callTable, h *ClientHandshake) (*transport, error) {
	socket, in, err := h.Take()
	if err != nil {
		return nil, err
	}
	unread := io.LimitReader(in, int64(in.Buffered()))
	t := &transport{
		table:      table,
		socket:     socket,
		in:         bufio.NewReaderSize(io.MultiReader(unread, socket), clientBufferBytes),
		structured: h.structured,
		contexts:   make(map[uint32]string, len(h.contexts)),
	}
	for _, m := range h.contexts {
		t.contexts[m.ID] = m.Name
	}
	return t, nil
}

// run sends and answers calls until the connection ends, and closes it. Both
// goroutines have ended when it returns; unanswered calls stay in the table.
func (t *transport) run() error {
	t.table.connect()
	var writer sync.WaitGroup
	var sendErr error
	writer.Go(func() {
		if sendErr = t.sendLoop(); sendErr != nil {
			_ = t.socket.Close()
		}
	})
	err := t.receiveLoop()
	t.table.disconnect()
	_ = t.socket.Close()
	writer.Wait()
	if sendErr != nil {
		return fmt.Errorf("send NBD requests: %w", sendErr)
	}
	return fmt.Errorf("receive NBD replies: %w", err)
}

func (t *transport) sendLoop() error {
	out := socket.NewWriter(socket.New(t.socket))
	batch := make([]outgoing, 0, maxSendBatch)
	headers := make([]byte, maxSendBatch*requestHeaderLength)
	for {
		batch = t.table.takeUnsent(batch[:0])
		if len(batch) == 0 {
			return nil
		}
		for i := range batch {
			header := headers[i*requestHeaderLength : (i+1)*requestHeaderLength]
			batch[i].header.encode(header)
			out.Add(header)
			out.Add(batch[i].data)
		}
		if err := out.Flush(); err != nil {
			return err
		}
		clear(batch)
	}
}

// receiveLoop always returns an error: connections end.
func (t *transport) receiveLoop() error {
	for {
		start, err := t.in.Peek(4)
		if err != nil {
			return err
		}
		n, err := replyLength(start)
		if err != nil {
			return err
		}
		raw, err := t.in.Peek(n)
		if err != nil {
			return err
		}
		var h replyHeader
		if err := h.decode(raw); err != nil {
			return err
		}
		if _, err := t.in.Discard(n); err != nil {
			return err
		}
		c := t.table.find(h.cookie)
		if c == nil {
			return fmt.Errorf("reply to unknown request %#x: %w", h.cookie, block.ErrProtocol)
		}
		if err := t.answer(c, &h); err != nil {
			return err
		}
	}
}

// answer takes one reply or chunk in.
func (t *transport) answer(c *Call, h *replyHeader) error {
	if h.structured {
		if !t.structured {
			return fmt.Errorf("structured reply was not negotiated: %w", block.ErrProtocol)
		}
		if err := t.chunk(c, h); err != nil {
			return err
		}
		if h.flags&chunkFlagDone == 0 {
			return nil
		}
		return t.complete(c)
	}
	switch {
	case h.errno != 0:
		c.Err = h.errno
	case t.structured && (c.Kind == KindRead || c.Kind == KindStatus):
		return fmt.Errorf("%s answered without chunks: %w", c.Kind, block.ErrProtocol)
	case c.Kind == KindRead:
		if _, err := io.ReadFull(t.in, c.Data); err != nil {
			return err
		}
		c.got = c.Length
	}
	return t.complete(c)
}

// complete ends a call whose last chunk has arrived.
func (t *transport) complete(c *Call) error {
	if c.Err == nil && c.Kind == KindRead && c.got != c.Length {
		return fmt.Errorf("read of %d bytes answered with %d: %w", c.Length, c.got, block.ErrProtocol)
	}
	if c.Err == nil && c.Kind == KindStatus && len(c.Status) == 0 {
		return fmt.Errorf("status answered without extents: %w", block.ErrProtocol)
	}
	t.table.finish(c)
	return nil
}

// chunk takes the payload of one chunk in.
func (t *transport) chunk(c *Call, h *replyHeader) error {
	switch {
	case h.chunk == chunkNone:
		return nil
	case h.chunk&chunkErrorBit != 0:
		return t.errorChunk(c, h)
	case h.chunk == chunkOffsetData && c.Kind == KindRead:
		return t.dataChunk(c, int64(h.length)-readChunkPrefix)
	case h.chunk == chunkOffsetHole && c.Kind == KindRead:
		return t.holeChunk(c)
	case h.chunk == chunkBlockStatus && c.Kind == KindStatus:
		return t.statusChunk(c, h)
	default:
		return fmt.Errorf("chunk type %d for a %s: %w", h.chunk, c.Kind, block.ErrProtocol)
	}
}

func (t *transport) errorChunk(c *Call, h *replyHeader) error {
	payload := make([]byte, h.length)
	if _, err := io.ReadFull(t.in, payload); err != nil {
		return err
	}
	errno, _, err := decodeErrorChunk(payload)
	if err != nil {
		return err
	}
	if c.Err == nil {
		c.Err = errno
	}
	return nil
}

// target is the part of a read's buffer that a chunk of n bytes fills.
func (t *transport) target(c *Call, n int64) ([]byte, error) {
	var raw [readChunkPrefix]byte
	if _, err := io.ReadFull(t.in, raw[:]); err != nil {
		return nil, err
	}
	if n < 0 {
		var length [4]byte
		if _, err := io.ReadFull(t.in, length[:]); err != nil {
			return nil, err
		}
		n = int64(binary.BigEndian.Uint32(length[:]))
	}
	offset := binary.BigEndian.Uint64(raw[:])
	if offset < uint64(c.Offset) || offset-uint64(c.Offset) > uint64(c.Length) ||
		n == 0 || n > c.Length-int64(offset-uint64(c.Offset)) || c.got+n > c.Length {
		return nil, fmt.Errorf("chunk of %d bytes at %d for a read at %d of %d: %w",
			n, offset, c.Offset, c.Length, block.ErrProtocol)
	}
	c.got += n
	start := int64(offset) - c.Offset
	return c.Data[start : start+n], nil
}

func (t *transport) dataChunk(c *Call, n int64) error {
	target, err := t.target(c, n)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(t.in, target)
	return err
}

func (t *transport) holeChunk(c *Call) error {
	target, err := t.target(c, -1)
	if err != nil {
		return err
	}
	clear(target)
	return nil
}

func (t *transport) statusChunk(c *Call, h *replyHeader) error {
	payload := make([]byte, h.length)
	if _, err := io.ReadFull(t.in, payload); err != nil {
		return err
	}
	id, extents, err := decodeStatusChunk(payload)
	if err != nil {
		return err
	}
	name, ok := t.contexts[id]
	if !ok {
		return fmt.Errorf("status of meta context %d: %w", id, block.ErrProtocol)
	}
	if c.Status == nil {
		c.Status = make(map[string][]Extent, len(t.contexts))
	}
	c.Status[name] = append(c.Status[name], extents...)
	if len(c.Status[name]) > maxStatusExtents {
		return fmt.Errorf("status of more than %d extents: %w", maxStatusExtents, block.ErrProtocol)
	}
	return nil
}
