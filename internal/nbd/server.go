package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Defaults of ServerConfig.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxConns         = 256
)

// OptionHandler serves a private option. It is given the payload and the
// negotiation, answers with Reply or Refuse, and returns true when it took the
// connection over and is done with it: the connection is closed then. With
// false the handshake goes on. An error ends the connection.
type OptionHandler func(ctx context.Context, n *Negotiation, payload []byte) (took bool, err error)

// ServerConfig describes a Server.
type ServerConfig struct {
	Exports Exports
	// TLS offers STARTTLS; nil refuses it.
	TLS *tls.Config
	// RequireTLS refuses everything before STARTTLS.
	RequireTLS bool
	// Options are private options by number; no number of the standard may be
	// among them.
	Options map[Option]OptionHandler
	// HandshakeTimeout bounds a whole handshake; zero takes 10 s. A private
	// option that takes the connection over is not bound by it.
	HandshakeTimeout time.Duration
	// MaxConns bounds the connections of Serve; zero takes 256. Past it the
	// listener is not read.
	MaxConns int
	// MaxInFlight, MaxInFlightBytes and HoldErrors are those of ConnConfig.
	MaxInFlight      int
	MaxInFlightBytes int64
	HoldErrors       bool
	Logger           *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c *ServerConfig) Validate() error {
	if c.Exports == nil {
		return fmt.Errorf("NBD server without exports: %w", block.ErrInvalid)
	}
	if c.RequireTLS && c.TLS == nil {
		return fmt.Errorf("NBD server requires TLS but has no configuration for it: %w", block.ErrInvalid)
	}
	if c.HandshakeTimeout < 0 || c.MaxConns < 0 {
		return fmt.Errorf("NBD server with negative limits: %w", block.ErrInvalid)
	}
	for option := range c.Options {
		// The standard keeps numbers below 32 Ki for itself.
		if option < 1<<15 {
			return fmt.Errorf("NBD server: private option %d: %w", option, block.ErrInvalid)
		}
	}
	return nil
}

// Server negotiates and serves connections.
type Server struct {
	config ServerConfig
	log    *slog.Logger
}

// NewServer checks the configuration.
func NewServer(config ServerConfig) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.HandshakeTimeout == 0 {
		config.HandshakeTimeout = defaultHandshakeTimeout
	}
	if config.MaxConns == 0 {
		config.MaxConns = defaultMaxConns
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{config: config, log: config.Logger}, nil
}

// Serve accepts and serves connections until ctx ends, and then closes the
// listener and joins all connections.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer func() { _ = listener.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	// One token for each connection; taken here only, not on the I/O path.
	tokens := make(chan struct{}, s.config.MaxConns)
	for {
		select {
		case tokens <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		socket, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept NBD connection: %w", err)
		}
		conns.Go(func() {
			defer func() { <-tokens }()
			if err := s.ServeConn(ctx, socket); err != nil && !errors.Is(err, block.ErrClosed) && ctx.Err() == nil {
				s.log.Info("NBD connection ended", "peer", socket.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// ServeConn negotiates and serves one connection to its end and closes it.
func (s *Server) ServeConn(ctx context.Context, socket net.Conn) error {
	conn, err := s.Negotiate(ctx, socket)
	if err != nil || conn == nil {
		return err
	}
	return conn.Run(ctx)
}
