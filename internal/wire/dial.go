package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Parts of the NBD handshake, as the client speaks it (the NBD protocol,
// "Fixed newstyle negotiation").
const (
	nbdMagic       uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOptionMagic uint64 = 0x49484156454f5054 // "IHAVEOPT"
	nbdReplyMagic  uint64 = 0x0003e889045565a9

	nbdGreetingSize = 18
	nbdReplySize    = 20

	nbdFixedNewstyle = 1
	nbdNoZeroes      = 2

	nbdOptStartTLS = 5
	nbdRepAck      = 1
	nbdRepError    = 1 << 31
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
		hangUp(raw)
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
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := tune(raw); err != nil {
		return nil, err
	}
	if err := greet(raw); err != nil {
		return nil, err
	}
	conn := raw
	if c.TLS != nil {
		if _, err := ask(raw, nbdOptStartTLS, nil); err != nil {
			return nil, fmt.Errorf("start TLS: %w", err)
		}
		secure := tls.Client(raw, c.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		conn = secure
	}
	if err := c.introduce(conn); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return conn, nil
}

// introduce asks for frames.
func (c *DialConfig) introduce(conn net.Conn) error {
	h := hello{
		versionMin: versionMin, versionMax: Version, features: features,
		cluster: c.Cluster, node: c.Node, replica: c.Replica,
	}
	payload, err := ask(conn, option, h.append(nil))
	if err != nil {
		return fmt.Errorf("ask for frames: %w", err)
	}
	var a helloAnswer
	switch err := a.decode(payload); {
	case err != nil:
		return err
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

// greet exchanges the greetings.
func greet(conn net.Conn) error {
	var b [nbdGreetingSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if binary.BigEndian.Uint64(b[:]) != nbdMagic || binary.BigEndian.Uint64(b[8:]) != nbdOptionMagic {
		return fmt.Errorf("the peer's greeting is not NBD's: %w", block.ErrProtocol)
	}
	if binary.BigEndian.Uint16(b[16:])&nbdFixedNewstyle == 0 {
		return fmt.Errorf("the peer does not speak fixed newstyle NBD: %w", block.ErrProtocol)
	}
	flags := binary.BigEndian.AppendUint32(nil, nbdFixedNewstyle|nbdNoZeroes)
	_, err := conn.Write(flags)
	return err
}

// ask sends one option and reads its acknowledgement. It reads not a byte more,
// so that TLS or frames can follow.
func ask(conn net.Conn, option uint32, payload []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint64(nil, nbdOptionMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	if _, err := conn.Write(append(b, payload...)); err != nil {
		return nil, err
	}
	var head [nbdReplySize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	kind, size := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != nbdReplyMagic || binary.BigEndian.Uint32(head[8:]) != option || size > helloMax {
		return nil, fmt.Errorf("the answer is not one to option %#x: %w", option, block.ErrProtocol)
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	switch {
	case kind == nbdRepAck:
		return answer, nil
	case kind&nbdRepError != 0:
		return nil, fmt.Errorf("the peer refuses option %#x with %#x (%q): %w", option, kind, answer, block.ErrVersion)
	default:
		return nil, fmt.Errorf("the peer answers option %#x with %#x: %w", option, kind, block.ErrProtocol)
	}
}
