package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Defaults of ResilientConfig.
const (
	defaultBackoffMin = 5 * time.Millisecond
	defaultBackoffMax = 500 * time.Millisecond
	dialTimeout       = 5 * time.Second
)

// ResilientConfig describes a Resilient.
type ResilientConfig struct {
	ClientConfig
	// Dial makes a fresh connection.
	Dial func(ctx context.Context) (net.Conn, error)
	// Size is the size the export must have at least, as its users know it; a smaller
	// one is not used.
	Size int64
	// BackoffMin and BackoffMax bound the pause between attempts; zero takes
	// 5 and 500 ms.
	BackoffMin, BackoffMax time.Duration
	Logger                 *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c *ResilientConfig) Validate() error {
	switch {
	case c.Dial == nil:
		return fmt.Errorf("resilient NBD client without a way to dial: %w", block.ErrInvalid)
	case c.Size <= 0:
		return fmt.Errorf("resilient NBD client of size %d: %w", c.Size, block.ErrInvalid)
	case c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin:
		return fmt.Errorf("resilient NBD client with backoff %v..%v: %w", c.BackoffMin, c.BackoffMax, block.ErrInvalid)
	}
	return nil
}

// Resilient is a client that outlives its server. Calls wait, however long,
// until a server answers them: when a connection breaks, the unanswered calls
// are sent again on the next one, in the order in which they were submitted.
// That is safe on a server that ends the old connection's requests before it
// serves the new one (Conn.Quiesce). It is safe for concurrent use.
type Resilient struct {
	caller
	config ResilientConfig
	log    *slog.Logger
	// connections counts the connections made so far.
	connections atomic.Int64
	// size is Size, or what it has grown to.
	size atomic.Int64
}

// NewResilient checks the configuration. Nothing moves before Run.
func NewResilient(config ResilientConfig) (*Resilient, error) {
	if config.BackoffMin == 0 && config.BackoffMax == 0 {
		config.BackoffMin, config.BackoffMax = defaultBackoffMin, defaultBackoffMax
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Resilient{config: config, log: config.Logger}
	r.size.Store(config.Size)
	r.init(config.MaxInFlight)
	return r, nil
}

// Connections counts the connections made so far.
func (r *Resilient) Connections() int64 { return r.connections.Load() }

// Grow says that the users of the export know a larger size from now on.
func (r *Resilient) Grow(size int64) { r.size.Store(max(size, r.size.Load())) }

// Run dials and serves calls until ctx ends, which fails all calls with
// block.ErrClosed, or until the server says that the export does not exist,
// which fails them with block.ErrDetached. Later calls fail in the same way.
func (r *Resilient) Run(ctx context.Context) error {
	backoff := r.config.BackoffMin
	for {
		served, err := r.once(ctx)
		select {
		case <-ctx.Done():
			r.table.end(fmt.Errorf("NBD client: %w", block.ErrClosed))
			return nil
		default:
		}
		if exportGone(err) {
			r.table.end(fmt.Errorf("export %q: %w", r.config.Export, block.ErrDetached))
			return fmt.Errorf("export %q: %w", r.config.Export, block.ErrDetached)
		}
		if served {
			backoff = r.config.BackoffMin
			r.log.Info("NBD connection lost", "export", r.config.Export, "err", err)
		} else {
			r.log.Debug("NBD connection not made", "export", r.config.Export, "err", err)
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, r.config.BackoffMax)
	}
}

// exportGone: only the server's clear word ends a Resilient.
func exportGone(err error) bool {
	var refused *OptionError
	return errors.As(err, &refused) && refused.Reply == RepErrUnknown
}

// once makes one connection and serves it to its end.
func (r *Resilient) once(ctx context.Context) (served bool, err error) {
	t, err := r.dial(ctx)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = t.socket.Close() })
	defer stop()
	n := r.connections.Add(1)
	r.log.Info("NBD connection made", "export", r.config.Export, "connections", n)
	return true, t.run()
}

func (r *Resilient) dial(ctx context.Context) (*transport, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	socket, err := r.config.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	t, info, err := handshake(ctx, socket, &r.table, r.config.ClientConfig)
	if size := r.size.Load(); err == nil && info.Size < size {
		err = fmt.Errorf("export %q has %d bytes, not %d: %w", r.config.Export, info.Size, size, block.ErrConflict)
	}
	if err != nil {
		return nil, errors.Join(err, closeQuietly(socket))
	}
	return t, nil
}
