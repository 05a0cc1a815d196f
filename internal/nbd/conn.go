package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// Defaults and bounds of ConnConfig.
const (
	defaultMaxInFlight      = 128
	defaultMaxInFlightBytes = 64 << 20
	// inputBufferBytes is the size of a busy connection's read buffer: some 60
	// writes of 4 KiB by one system call.
	inputBufferBytes = 256 << 10
	// quiesceWriteTimeout bounds how long replies are pushed to a client that
	// does not read, once the connection is to end.
	quiesceWriteTimeout = 2 * time.Second
)

// ConnConfig describes the transmission phase of a connection.
type ConnConfig struct {
	Info    ExportInfo
	Backend Backend
	// Structured: structured replies were negotiated.
	Structured bool
	// Contexts were selected by the client, in this order.
	Contexts []MetaContext
	// MaxInFlight and MaxInFlightBytes bound what is between socket and socket;
	// zero takes the default.
	MaxInFlight      int
	MaxInFlightBytes int64
	// HoldErrors ends the connection without an answer when a request failed
	// for a reason that speaks of the server only, see the package comment.
	HoldErrors bool
	Logger     *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c *ConnConfig) Validate() error {
	if c.Backend == nil {
		return fmt.Errorf("connection without a backend: %w", block.ErrInvalid)
	}
	if c.MaxInFlight < 0 || c.MaxInFlightBytes < 0 {
		return fmt.Errorf("connection with negative limits: %w", block.ErrInvalid)
	}
	return c.Info.Validate()
}

// Conn is the transmission phase of one connection, see the package comment.
type Conn struct {
	socket  *socket.Socket
	backend Backend
	info    ExportInfo
	// size is what requests are held to; it may grow.
	size     atomic.Int64
	flags    TransmissionFlags
	config   ConnConfig
	contexts []string
	log      *slog.Logger
	in       *socket.Input
	reader   *turn.Reader
	// whenDone releases what the connection used, after the last request.
	whenDone func() error

	mu sync.Mutex
	// slotFree wakes the reader, workReady writeLoop, settled who waits in
	// Quiesce.
	slotFree  turn.Room
	workReady sync.Cond
	settled   sync.Cond

	phase phase
	// serving: Serve runs.
	serving bool
	// quiescing: nothing more is read.
	quiescing bool
	// aborted: nothing more is written either.
	aborted bool
	// cause is the first error that ended the connection.
	cause error

	// free is the stack of idle requests; made counts the existing ones.
	free *Request
	made int
	// inFlight requests hold inFlightBytes; a request is in flight from its
	// header until its reply is written or dropped.
	inFlight      int
	inFlightBytes int64
	// doneHead and doneTail are the finished requests to be answered.
	doneHead, doneTail *Request
	// sending: somebody has a batch, and what follows. left: it is for writeLoop.
	sending, left bool

	// batch and out belong to who is sending: requests whose replies are on their way.
	batch *Request
	out   *socket.Writer
}

// phase orders the life of a connection.
type phase uint8

const (
	// phaseReading: the reader may submit.
	phaseReading phase = iota
	// phaseDraining: the reader has ended; replies are still written.
	phaseDraining
	// phaseOver: the writer has ended; completions are dropped.
	phaseOver
)

// NewConn takes over a socket in the transmission phase: one half of a socket
// pair whose other half the kernel has, or what a handshake has left.
func NewConn(conn net.Conn, config ConnConfig) (*Conn, error) {
	return newConn(conn, config, nil, nil)
}

// newConn also takes the bytes that the handshake has read too many, and what
// to call when the last request is over.
func newConn(conn net.Conn, config ConnConfig, unread []byte, whenDone func() error) (*Conn, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.MaxInFlight == 0 {
		config.MaxInFlight = defaultMaxInFlight
	}
	if config.MaxInFlightBytes == 0 {
		config.MaxInFlightBytes = defaultMaxInFlightBytes
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Conn{
		socket:   socket.New(conn),
		backend:  config.Backend,
		info:     config.Info.withDefaults(),
		flags:    config.Info.Flags(),
		config:   config,
		log:      config.Logger,
		whenDone: whenDone,
	}
	c.size.Store(config.Info.Size)
	for _, m := range config.Contexts {
		c.contexts = append(c.contexts, m.Name)
	}
	c.reader = turn.NewReader(c.socket)
	c.in = socket.NewInput(c.reader, inputBufferBytes, unread)
	c.out = socket.NewWriter(c.socket)
	c.workReady.L, c.settled.L = &c.mu, &c.mu
	c.slotFree.Init(&c.mu, c.reader)
	return c, nil
}

// Grow lets the client ask for up to size bytes, if that is more than before. It is not
// told: it must learn of it in another way.
func (c *Conn) Grow(size int64) { c.size.Store(max(size, c.size.Load())) }

// HungUp reports whether the client will send no more, which is known before all that it
// has sent is read, or the connection has ended.
func (c *Conn) HungUp() bool { return c.socket.HungUp() }

// Serve runs the connection until the client disconnects, the connection
// breaks, ctx ends, or Quiesce or Close is called; then it closes the socket.
// Both goroutines have ended when it returns. Requests that the backend still
// has may complete later, unanswered: Quiesce waits for them. Serve is called
// once. The error is nil after an orderly end.
func (c *Conn) Serve(ctx context.Context) error {
	c.mu.Lock()
	if c.serving || c.phase != phaseReading {
		c.mu.Unlock()
		return fmt.Errorf("serve NBD connection: %w", block.ErrClosed)
	}
	c.serving = true
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.abort(nil) })
	defer stop()

	var writer sync.WaitGroup
	writer.Go(c.writeLoop)
	err := c.reader.Run(c.readLoop)
	c.readerEnded(err)
	writer.Wait()

	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked()
	c.serving = false
	c.settled.Broadcast()
	return c.cause
}

// readerEnded moves on to draining; a reader that failed takes the connection
// with it.
func (c *Conn) readerEnded(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = phaseDraining
	if err != nil && !c.quiescing && !c.aborted {
		c.cause = err
		c.abortLocked()
	}
	c.workReady.Signal()
}

// Quiesce ends the connection in order: it stops reading, waits until every
// submitted request has completed and Serve has returned, and drops what was
// not submitted. Replies are still sent as long as the client takes them. When
// ctx ends first, the error wraps its cause and the connection must be taken
// for alive: its socket may still deliver replies until Close.
func (c *Conn) Quiesce(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settled.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopReadingLocked()
	if !c.serving {
		// Never served, or already over: there is no reader to end the phase.
		c.endLocked()
	}
	for c.serving || c.inFlight > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("quiesce NBD connection with %d requests in flight: %w", c.inFlight, context.Cause(ctx))
		}
		c.settled.Wait()
	}
	return nil
}

// stopReadingLocked makes the reader end at once, also out of a blocking read.
func (c *Conn) stopReadingLocked() {
	if c.quiescing {
		return
	}
	c.quiescing = true
	now := time.Now()
	// An error here means that the socket is closed, which ends both loops too.
	_ = c.socket.SetReadDeadline(now)
	_ = c.socket.SetWriteDeadline(now.Add(quiesceWriteTimeout))
	c.reader.Stop()
	c.slotFree.Signal()
}

// Close ends the connection at once. No reply is sent any more; requests that
// the backend still has complete unanswered, and Quiesce can wait for them.
func (c *Conn) Close() error {
	c.abort(nil)
	return nil
}

func (c *Conn) abort(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil && !c.quiescing {
		c.cause = cause
	}
	c.abortLocked()
}

func (c *Conn) abortLocked() {
	if c.aborted {
		return
	}
	c.aborted = true
	_ = c.socket.Close()
	c.reader.Stop()
	c.slotFree.Signal()
	c.workReady.Signal()
}

// endLocked closes the socket and drops every reply that was not sent.
func (c *Conn) endLocked() {
	c.phase = phaseOver
	c.abortLocked()
	for c.doneHead != nil {
		r := c.doneHead
		c.doneHead = r.next
		c.recycleLocked(r)
	}
	c.doneTail = nil
}

// Run serves the connection, waits for its last request, and then closes the
// export it was negotiated for.
func (c *Conn) Run(ctx context.Context) error {
	err := c.Serve(ctx)
	// The backend completes what it has taken, whatever becomes of ctx.
	if quiesceErr := c.Quiesce(context.WithoutCancel(ctx)); err == nil {
		err = quiesceErr
	}
	if c.whenDone == nil {
		return err
	}
	return errors.Join(err, c.whenDone())
}

// recycleLocked gives a request and what it holds back.
func (c *Conn) recycleLocked(r *Request) {
	r.reply.Release()
	r.reply, r.extra, r.held = nil, nil, false
	c.inFlight--
	c.inFlightBytes -= r.accounted
	r.next = c.free
	c.free = r
	if c.inFlight == 0 && c.phase == phaseOver {
		c.settled.Broadcast()
	}
}
