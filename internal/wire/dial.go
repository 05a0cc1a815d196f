package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// DialConfig says where a replica is reached and who asks for it.
type DialConfig struct {
	// Addr is host:port of the listener of the replica's node.
	Addr string
	// Cluster and Node are the caller's own.
	Cluster block.ClusterID
	Node    block.NodeID
	// Peer is the node that must answer; zero takes any of the cluster.
	Peer    block.NodeID
	Replica block.ReplicaID
	// TLS, if set, is begun with STARTTLS before anything else is said.
	TLS *tls.Config
	// Timeout bounds connecting and handshake together; zero means 5 s.
	Timeout time.Duration
	// Limits are those of the link; zero means LinkLimits.
	Limits Limits
}

// withDefaults fills in what was left out, and checks the rest.
func (c DialConfig) withDefaults() (DialConfig, error) {
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Limits == (Limits{}) {
		c.Limits = LinkLimits()
	}
	if c.Addr == "" || c.Cluster.IsZero() || c.Replica.IsZero() || c.Timeout < 0 {
		return c, fmt.Errorf("dial configuration for replica %s: %w", c.Replica, block.ErrInvalid)
	}
	return c, c.Limits.Validate()
}

// Dial makes a link to a replica on another node. ctx bounds the dialling only;
// the link lives until Close or Lost. The Link also has Done() <-chan struct{},
// closed when its goroutines have ended, for an owner that joins them.
//
// A node of another cluster is block.ErrForeign, one without a common version
// block.ErrVersion; one that cannot be reached is block.ErrUnavailable.
func Dial(ctx context.Context, config DialConfig, recv Receiver) (Link, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", config.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial replica %s: %w: %w", config.Replica, err, block.ErrUnavailable)
	}
	conn, err := config.handshake(ctx, raw)
	if err != nil {
		_ = raw.Close() // why it is of no use is said below
		return nil, fmt.Errorf("dial replica %s at %s: %w", config.Replica, config.Addr, asUnavailable(err))
	}
	return newRemoteLink(conn, config.Replica, config.Limits, recv), nil
}

// asUnavailable is the sentinel of network trouble, for an error that has none.
func asUnavailable(err error) error {
	for _, s := range block.Sentinels() {
		if errors.Is(err, s) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", err, block.ErrUnavailable)
}

// handshake turns a fresh connection into one of frames. The returned connection
// is raw itself or TLS on it.
func (c *DialConfig) handshake(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if err := tune(raw); err != nil {
		return nil, err
	}
	h, err := nbd.StartHandshake(ctx, raw, c.TLS)
	if err != nil {
		return nil, err
	}
	if err := c.introduce(h); err != nil {
		// The caller closes the connection; a farewell would have no reader.
		return nil, err
	}
	conn, in, err := h.Take()
	if err != nil {
		return nil, err
	}
	if in.Buffered() != 0 {
		return nil, fmt.Errorf("the peer sends frames before it was asked: %w", block.ErrProtocol)
	}
	return conn, nil
}

// introduce asks for frames.
func (c *DialConfig) introduce(handshake *nbd.ClientHandshake) error {
	h := hello{
		versionMin: versionMin, versionMax: Version, features: features,
		cluster: c.Cluster, node: c.Node, replica: c.Replica,
	}
	replies, err := handshake.Option(option, h.encode())
	if err != nil {
		return fmt.Errorf("ask for frames: %w", err)
	}
	if len(replies) != 1 || replies[0].Type != answerType {
		return fmt.Errorf("the peer's answer to the private option is not ours: %w", block.ErrProtocol)
	}
	var a helloAnswer
	if err := a.decode(replies[0].Payload); err != nil {
		return err
	}
	return c.judge(&a)
}

// judge says whether the answer to a hello is one to go on with.
func (c *DialConfig) judge(a *helloAnswer) error {
	switch {
	case a.status != statusOK:
		return errorOf(a.status, []byte(a.text))
	case a.cluster != c.Cluster:
		return fmt.Errorf("node %s answers for cluster %s, this is cluster %s: %w", a.node, a.cluster, c.Cluster, block.ErrForeign)
	case !c.Peer.IsZero() && a.node != c.Peer:
		return fmt.Errorf("node %s answers at the address of node %s: %w", a.node, c.Peer, block.ErrUnavailable)
	case a.version < versionMin || a.version > Version:
		return fmt.Errorf("node %s chose wire version %d of %d to %d: %w", a.node, a.version, versionMin, Version, block.ErrProtocol)
	}
	return nil
}
