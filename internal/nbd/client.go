package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
)

// defaultClientInFlight bounds the unanswered calls of a client.
const defaultClientInFlight = 256

// ClientConfig describes what a client asks for.
type ClientConfig struct {
	Export string
	// TLS turns TLS on; nil does without.
	TLS *tls.Config
	// Contexts are the meta contexts to select; a client that selects some also
	// asks for structured replies.
	Contexts []string
	// Structured asks for structured replies in any case.
	Structured bool
	// MaxInFlight bounds the unanswered calls; zero takes 256. Past it Submit
	// waits.
	MaxInFlight int
}

// Client is a connection to an export. It is safe for concurrent use. A call
// ends when it is answered or when the connection does; Close ends it.
type Client struct {
	caller
	info   ExportInfo
	socket net.Conn
	loops  sync.WaitGroup
}

// Connect negotiates over a fresh connection and owns it from then on, also on
// failure. ctx bounds the handshake only.
func Connect(ctx context.Context, socket net.Conn, config ClientConfig) (*Client, error) {
	c := &Client{}
	c.init(config.MaxInFlight)
	t, info, err := handshake(ctx, socket, &c.table, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to export %q: %w", config.Export, err), closeQuietly(socket))
	}
	c.info, c.socket, c.maxBlock = info, t.socket, int64(info.MaxBlock)
	c.loops.Go(func() {
		err := t.run()
		c.table.end(fmt.Errorf("NBD connection: %w: %w", block.ErrClosed, err))
	})
	return c, nil
}

// handshake negotiates up to the transmission phase.
func handshake(ctx context.Context, socket net.Conn, table *callTable, config ClientConfig) (*transport, ExportInfo, error) {
	h, err := StartHandshake(ctx, socket, config.TLS)
	if err != nil {
		return nil, ExportInfo{}, err
	}
	defer h.stop()
	if config.Structured || len(config.Contexts) > 0 {
		if err := h.StructuredReplies(); err != nil {
			return nil, ExportInfo{}, err
		}
	}
	if len(config.Contexts) > 0 && h.structured {
		if _, err := h.SelectContexts(config.Export, config.Contexts); err != nil {
			return nil, ExportInfo{}, err
		}
	}
	info, err := h.choose(config.Export)
	if err != nil {
		return nil, ExportInfo{}, err
	}
	t, err := newTransport(table, h)
	return t, info, err
}

// Info describes the export; Contexts are those that were selected.
func (c *Client) Info() ExportInfo { return c.info }

// Close disconnects. Unanswered calls fail with block.ErrClosed. It is
// idempotent and joins the client's goroutines.
func (c *Client) Close() error {
	var raw [requestHeaderLength]byte
	h := requestHeader{command: cmdDisconnect}
	h.encode(raw[:])
	if c.table.idle() {
		// A farewell may only be sent between whole requests.
		_, _ = c.socket.Write(raw[:])
	}
	err := closeQuietly(c.socket)
	c.loops.Wait()
	return err
}

// caller is the part that Client and Resilient share: calls and the blocking
// methods on top of them. Offsets and lengths must be multiples of the export's
// minimum block.
type caller struct {
	table    callTable
	maxBlock int64
	waits    sync.Pool
}

func (c *caller) init(maxInFlight int) {
	if maxInFlight <= 0 {
		maxInFlight = defaultClientInFlight
	}
	c.table.init(maxInFlight)
	c.maxBlock = DefaultMaxBlock
}

// Submit starts a call. It waits only while the limit of unanswered calls is
// reached.
func (c *caller) Submit(call *Call) error {
	if err := call.check(); err != nil {
		return fmt.Errorf("%s at %d of %d: %w", call.Kind, call.Offset, call.Length, err)
	}
	c.table.submit(call)
	return nil
}

// waitingCall is a call whose goroutine sleeps on done.
type waitingCall struct {
	Call
	done   chan struct{}
	notify func(*Call)
}

// do makes a call and waits for its end.
func (c *caller) do(call Call) (Call, error) {
	w, _ := c.waits.Get().(*waitingCall)
	if w == nil {
		done := make(chan struct{}, 1)
		w = &waitingCall{done: done, notify: func(*Call) { done <- struct{}{} }}
	}
	w.Call = call
	w.Done = w.notify
	if err := c.Submit(&w.Call); err != nil {
		return Call{}, err
	}
	<-w.done
	result := w.Call
	w.Call = Call{}
	c.waits.Put(w)
	if result.Err != nil {
		return result, fmt.Errorf("%s at %d of %d: %w", call.Kind, call.Offset, call.Length, result.Err)
	}
	return result, nil
}

// ReadAt implements io.ReaderAt, but that it never reads less: past the end is
// an error.
func (c *caller) ReadAt(p []byte, offset int64) (int, error) {
	return c.pieces(KindRead, p, offset, false)
}

// WriteAt implements io.WriterAt. The data is durable after Flush.
func (c *caller) WriteAt(p []byte, offset int64) (int, error) {
	return c.pieces(KindWrite, p, offset, false)
}

// WriteDurably writes with FUA.
func (c *caller) WriteDurably(p []byte, offset int64) (int, error) {
	return c.pieces(KindWrite, p, offset, true)
}

// pieces reads or writes in pieces that the server takes.
func (c *caller) pieces(kind Kind, p []byte, offset int64, fua bool) (int, error) {
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+int(c.maxBlock))]
		if _, err := c.do(Call{
			Kind: kind, FUA: fua, Offset: offset + int64(done), Length: int64(len(piece)), Data: piece,
		}); err != nil {
			return done, err
		}
		done += len(piece)
	}
	return done, nil
}

// Flush makes every write that was answered before it durable.
func (c *caller) Flush() error {
	_, err := c.do(Call{Kind: KindFlush})
	return err
}

// Trim gives a range back; on a Holdfast volume it reads as zeros then.
func (c *caller) Trim(span block.Span) error { return c.ranges(KindTrim, span) }

// WriteZeroes makes a range read as zeros.
func (c *caller) WriteZeroes(span block.Span) error { return c.ranges(KindZero, span) }

// maxRange is the longest trim sent at once.
const maxRange = 1 << 30

func (c *caller) ranges(kind Kind, span block.Span) error {
	for span.Length > 0 {
		n := min(span.Length, maxRange)
		if _, err := c.do(Call{Kind: kind, Offset: span.Offset, Length: n}); err != nil {
			return err
		}
		span.Offset += n
		span.Length -= n
	}
	return nil
}

// BlockStatus asks for the extents of a range, by meta context. The answer may
// end before the range does.
func (c *caller) BlockStatus(span block.Span) (map[string][]Extent, error) {
	result, err := c.do(Call{Kind: KindStatus, Offset: span.Offset, Length: span.Length})
	return result.Status, err
}
