package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// defaultMaxConns is the number of connections that a node serves unless told
// otherwise: a thousand volumes with three replicas, and room for as many
// sessions that have not ended yet.
const defaultMaxConns = 8192

// ServerConfig describes the listener of a node.
type ServerConfig struct {
	// Cluster and Node are those of this node.
	Cluster block.ClusterID
	Node    block.NodeID
	// Acceptor serves the engines that ask for frames.
	Acceptor Acceptor
	// Exports are what all other clients can read. They must be read-only.
	Exports nbd.Exports
	// TLS offers STARTTLS; RequireTLS refuses everything before it.
	TLS        *tls.Config
	RequireTLS bool
	// HandshakeTimeout bounds a handshake; zero means 10 s.
	HandshakeTimeout time.Duration
	// MaxConns bounds the connections; zero means 8192.
	MaxConns int
	// Limits are those of one connection of frames; zero means ServerLimits.
	Limits Limits
	// Logger is told of connections that end in trouble; nil for silence.
	Logger *slog.Logger
}

// Server serves replicas to engines, and read-only exports to everybody else,
// on one listener.
type Server struct {
	config ServerConfig
	nbd    *nbd.Server
	log    *slog.Logger
}

// NewServer checks the configuration.
func NewServer(config ServerConfig) (*Server, error) {
	if config.Limits == (Limits{}) {
		config.Limits = ServerLimits()
	}
	if config.MaxConns == 0 {
		config.MaxConns = defaultMaxConns
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Acceptor == nil || config.Cluster.IsZero() {
		return nil, fmt.Errorf("wire server without cluster or acceptor: %w", block.ErrInvalid)
	}
	if err := config.Limits.Validate(); err != nil {
		return nil, err
	}
	s := &Server{config: config, log: config.Logger}
	var err error
	s.nbd, err = nbd.NewServer(nbd.ServerConfig{
		Exports:          config.Exports,
		TLS:              config.TLS,
		RequireTLS:       config.RequireTLS,
		Options:          map[nbd.Option]nbd.OptionHandler{option: s.frames},
		HandshakeTimeout: config.HandshakeTimeout,
		MaxConns:         config.MaxConns,
		Logger:           config.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("wire server: %w", err)
	}
	return s, nil
}

// Serve accepts connections until ctx ends; then it closes the listener and all
// connections, and joins them.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.nbd.Serve(ctx, listener)
}

// frames serves the private option.
func (s *Server) frames(ctx context.Context, n *nbd.Negotiation, payload []byte) (took bool, err error) {
	var h hello
	if err := h.decode(payload); err != nil {
		return false, n.Refuse(nbd.RepErrInvalid, err.Error())
	}
	a := negotiate(&h, s.config.Cluster, s.config.Node)
	if err := n.Reply(answerType, a.encode()); err != nil {
		return false, err
	}
	if err := n.Reply(nbd.RepAck, nil); err != nil {
		return false, err
	}
	if a.status != statusOK {
		s.log.Warn("engine refused", "node", h.node.Short(), "replica", h.replica.Short(), "err", a.text)
		return true, nil
	}
	conn, in, err := n.Take()
	if err != nil {
		return true, err
	}
	if in.Buffered() != 0 {
		return true, fmt.Errorf("frames before the answer to the private option: %w", block.ErrProtocol)
	}
	return true, s.serveReplica(ctx, conn, &h)
}

// serveReplica serves one connection of frames to its end.
func (s *Server) serveReplica(ctx context.Context, conn net.Conn, h *hello) error {
	if err := tune(underlying(conn)); err != nil {
		return err
	}
	err := serveReplica(ctx, conn, h.replica, s.config.Limits, s.config.Acceptor)
	if err != nil && ctx.Err() == nil {
		level := slog.LevelInfo
		if errors.Is(err, block.ErrProtocol) {
			level = slog.LevelWarn
		}
		s.log.Log(ctx, level, "connection of an engine ended",
			"node", h.node.Short(), "replica", h.replica.Short(), "peer", conn.RemoteAddr().String(), "err", err)
	}
	// It has been reported here, with what is known of the engine.
	return nil
}
