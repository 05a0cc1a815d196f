package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Raft's own messages name neither the cluster nor the server they are meant
// for. An address that now belongs to another cluster, or to a node that lost its
// state, would be taken for the member it used to be. So every Raft connection
// begins with a greeting, and the address that Raft keeps for a server carries
// the ID of the node: "<node ID>@host:port".
//
//	greeting  offset 0 "HFR1", 4 cluster ID (zero: not known yet), 20 node ID of
//	          the one that is meant
//	answer    one byte: 0 welcome, 1 another cluster, 2 another node

const (
	greetingMagic  = "HFR1"
	greetingLength = len(greetingMagic) + 2*len(block.ID{})

	answerWelcome byte = 0
	answerCluster byte = 1
	answerNode    byte = 2

	// greetingTimeout bounds the handshake of an accepted connection.
	greetingTimeout = 5 * time.Second
	// pendingGreetings bounds the connections that have not greeted yet.
	pendingGreetings = 64
)

type greeting struct {
	cluster block.ClusterID
	node    block.NodeID
}

func (g greeting) encode() []byte {
	data := make([]byte, 0, greetingLength)
	data = append(data, greetingMagic...)
	data = append(data, g.cluster.ID[:]...)
	return append(data, g.node.ID[:]...)
}

func decodeGreeting(data []byte) (greeting, error) {
	if len(data) != greetingLength || string(data[:len(greetingMagic)]) != greetingMagic {
		return greeting{}, fmt.Errorf("decode greeting: %w", block.ErrProtocol)
	}
	var g greeting
	rest := data[len(greetingMagic):]
	copy(g.cluster.ID[:], rest)
	copy(g.node.ID[:], rest[len(g.cluster.ID):])
	return g, nil
}

// raftAddress is the address of a node as Raft keeps it.
func raftAddress(node block.NodeID, address string) raft.ServerAddress {
	return raft.ServerAddress(node.String() + "@" + address)
}

func splitRaftAddress(address raft.ServerAddress) (block.NodeID, string, error) {
	id, hostPort, ok := strings.Cut(string(address), "@")
	node, err := block.ParseID(id)
	if !ok || err != nil {
		return block.NodeID{}, "", fmt.Errorf("address %q of a Raft server: %w", address, block.ErrInvalid)
	}
	return block.NodeID{ID: node}, hostPort, nil
}

// streamLayer implements raft.StreamLayer on a listener, with greetings.
type streamLayer struct {
	net.Listener
	node    block.NodeID
	address raft.ServerAddress
	cluster func() block.ClusterID
	dial    func(address string, timeout time.Duration) (net.Conn, error)
	logger  *slog.Logger

	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
	slots    chan struct{}
	greeters sync.WaitGroup
	// handlers are the goroutines in which Raft serves connections.
	handlers sync.WaitGroup

	mu sync.Mutex
	// serving are the connections that Raft has and has not closed.
	serving map[*servedConn]struct{}
}

// newStreamLayer makes a layer on a listener for a node of a cluster.
func newStreamLayer(listener net.Listener, node block.NodeID, cluster func() block.ClusterID,
	dial func(address string, timeout time.Duration) (net.Conn, error), logger *slog.Logger) *streamLayer {
	return &streamLayer{
		Listener: listener, node: node, cluster: cluster, dial: dial, logger: logger,
		accepted: make(chan net.Conn), closed: make(chan struct{}), slots: make(chan struct{}, pendingGreetings),
		serving: make(map[*servedConn]struct{}),
	}
}

// run accepts and greets until the layer is closed, and joins the greeters and those
// who serve what was accepted.
func (l *streamLayer) run() error {
	defer func() {
		l.greeters.Wait()
		l.handlers.Wait()
	}()
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			select {
			case <-l.closed:
				return nil
			default:
				return fmt.Errorf("accept Raft connection: %w", err)
			}
		}
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return conn.Close()
		}
		l.greeters.Go(func() {
			defer func() { <-l.slots }()
			if err := l.welcome(conn); err != nil {
				l.logger.Warn("refused a Raft connection", "from", conn.RemoteAddr().String(), "error", errors.Join(err, conn.Close()))
			}
		})
	}
}

// welcome reads the greeting of a connection and hands it to Raft if it is for
// this node of this cluster.
func (l *streamLayer) welcome(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	data := make([]byte, greetingLength)
	if _, err := io.ReadFull(conn, data); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	g, err := decodeGreeting(data)
	if err != nil {
		return err
	}
	answer := answerWelcome
	own := l.cluster()
	switch {
	case !own.IsZero() && !g.cluster.IsZero() && g.cluster != own:
		answer, err = answerCluster, fmt.Errorf("it is of cluster %s, this is %s: %w", g.cluster, own, block.ErrForeign)
	case g.node != l.node:
		answer, err = answerNode, fmt.Errorf("it looks for node %s, this is %s: %w", g.node, l.node, block.ErrNotFound)
	}
	if _, writeErr := conn.Write([]byte{answer}); writeErr != nil || err != nil {
		return errors.Join(err, writeErr)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	served := l.adopt(conn)
	select {
	case l.accepted <- served:
		return nil
	case <-l.closed:
		served.release()
		return block.ErrClosed
	}
}

// servedConn is a connection from another node, until Raft closes it.
type servedConn struct {
	net.Conn
	layer *streamLayer
	once  sync.Once
}

func (l *streamLayer) adopt(conn net.Conn) *servedConn {
	c := &servedConn{Conn: conn, layer: l}
	l.handlers.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serving[c] = struct{}{}
	return c
}

// Read implements net.Conn. However a connection ends, to Raft it is the end: the reset
// by a daemon that was killed is nothing to complain of.
func (c *servedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// Close implements net.Conn. It is the last that Raft's goroutine does.
func (c *servedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// release lets run end without the connection.
func (c *servedConn) release() {
	c.once.Do(func() {
		c.layer.mu.Lock()
		delete(c.layer.serving, c)
		c.layer.mu.Unlock()
		c.layer.handlers.Done()
	})
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It ends the connections, too.
func (l *streamLayer) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.serving {
			_ = c.Conn.Close() // whose turn to close it was does not matter
		}
	})
	return err
}

// Addr implements net.Listener with the address that Raft keeps.
func (l *streamLayer) Addr() net.Addr { return advertised(l.address) }

type advertised raft.ServerAddress

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// Dial implements raft.StreamLayer.
func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	redial := func() (net.Conn, error) { return l.dialNode(address, timeout) }
	conn, err := redial()
	if err != nil {
		return nil, err
	}
	return &pooledConn{Conn: conn, redial: redial}, nil
}

// pooledConn is a connection to another node that Raft may keep for later. A daemon
// that was restarted has closed those to its predecessor, and a vote that is asked for
// over one of them is lost: the election would take another round. Raft sets a
// deadline before each exchange, so a connection that was closed is replaced then.
type pooledConn struct {
	net.Conn
	redial func() (net.Conn, error)
}

// SetDeadline implements net.Conn.
func (c *pooledConn) SetDeadline(t time.Time) error {
	if !t.IsZero() && hungUp(c.Conn) {
		fresh, err := c.redial()
		if err != nil {
			return err
		}
		_ = c.Conn.Close() // the other side has closed it
		c.Conn = fresh
	}
	return c.Conn.SetDeadline(t)
}

// hungUp reports whether the other side has closed an idle connection. On TLS a farewell
// comes before that, and nothing else while it is idle.
func hungUp(conn net.Conn) bool {
	secure, farewell := conn.(*tls.Conn)
	if farewell {
		conn = secure.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	// Not raw.Read: the last deadline has passed.
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		closed = err == nil && (n == 0 || farewell) || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	return err != nil || closed
}

// dialNode connects to a node and greets it.
func (l *streamLayer) dialNode(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, hostPort, err := splitRaftAddress(address)
	if err != nil {
		return nil, err
	}
	conn, err := l.dial(hostPort, timeout)
	if err != nil {
		return nil, fmt.Errorf("dial node %s: %w", node, err)
	}
	if err := greet(conn, greeting{cluster: l.cluster(), node: node}, timeout); err != nil {
		return nil, errors.Join(fmt.Errorf("greet node %s at %s: %w", node, hostPort, err), conn.Close())
	}
	return conn, nil
}

func greet(conn net.Conn, g greeting, timeout time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(g.encode()); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case answerWelcome:
		return conn.SetDeadline(time.Time{})
	case answerCluster:
		return fmt.Errorf("the node there belongs to another cluster: %w", block.ErrForeign)
	case answerNode:
		return fmt.Errorf("another node has that address: %w", block.ErrNotFound)
	default:
		return fmt.Errorf("answer %d: %w", answer[0], block.ErrProtocol)
	}
}

// DialTCP opens a plain connection to another member's Raft listener.
func DialTCP(address string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	// What was not sent when Raft gives a connection up is not to be sent later: a
	// heartbeat that the kernel still delivers after the leader's death puts the
	// election off.
	if socket, ok := conn.(*net.TCPConn); ok {
		err = socket.SetLinger(0)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
