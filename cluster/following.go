package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/holdfast-io/holdfast/internal/block"
)

// errLeaderLeft ends what waits for the answer of a node that leads no more.
var errLeaderLeft = errors.New("the leader has changed")

// silentPeer is how long bytes sent to another daemon may stay unacknowledged
// before the connection is given up. A node that vanished sends no reset, and once
// it is back an old connection would wait for the kernel's next retransmission.
const silentPeer = 3 * time.Second

// following are the requests that wait for an answer of the leader. One that has
// vanished never gives it; so they end when this member follows another one.
type following struct {
	mu    sync.Mutex
	next  int
	calls map[int]followingCall
}

type followingCall struct {
	leader raft.ServerID
	end    context.CancelCauseFunc
}

// begin bounds a context by the leadership of a server, until end is called.
func (f *following) begin(ctx context.Context, leader raft.ServerID) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[int]followingCall{}
	}
	id := f.next
	f.next++
	f.calls[id] = followingCall{leader: leader, end: cancel}
	return ctx, func() {
		f.mu.Lock()
		delete(f.calls, id)
		f.mu.Unlock()
		cancel(nil)
	}
}

// changed ends the requests that wait for anybody else.
func (f *following) changed(leader raft.ServerID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, call := range f.calls {
		if call.leader != leader {
			call.end(errLeaderLeft)
		}
	}
}

// watchLeader tells the waiting requests of changes of the leader.
func (c *Cluster) watchLeader(ctx context.Context) error {
	const pending = 16
	changes := make(chan raft.Observation, pending)
	observer := raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	c.raft.RegisterObserver(observer)
	defer c.raft.DeregisterObserver(observer)
	for {
		select {
		case <-changes:
			// One that was dropped is made up for by the next look.
			_, leader := c.raft.LeaderWithID()
			if leader != "" {
				c.lastLeader.Store(leader)
			}
			c.following.changed(leader)
		case <-ctx.Done():
			return nil
		}
	}
}

// askLeader does something over a connection to the leader for as long as that
// leads. Nothing was sent if the answer is block.ErrNotLeader.
func askLeader[T any](ctx context.Context, c *Cluster, leader raft.ServerID, conn *grpc.ClientConn,
	there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	var none T
	asking, end := c.following.begin(ctx, leader)
	defer end()
	if _, now := c.raft.LeaderWithID(); now != leader {
		return none, fmt.Errorf("%w: %w", errLeaderLeft, block.ErrNotLeader)
	}
	if err := connected(asking, conn); err != nil {
		return none, fmt.Errorf("leader %s: %s: %w: %w", leader, err.Error(), errNoWay, block.ErrNotLeader)
	}
	result, err := there(asking, conn)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(asking), errLeaderLeft) {
		return result, fmt.Errorf("%w while it was asked: %w: %w", errLeaderLeft, err, block.ErrUnknown)
	}
	return result, err
}

// connected waits until a connection stands, or fails to.
func connected(ctx context.Context, conn *grpc.ClientConn) error {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fmt.Errorf("no connection: %w", block.ErrUnavailable)
		case connectivity.Idle:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("no connection: %w", context.Cause(ctx))
		}
	}
}

// dialPeer connects to another daemon.
func dialPeer(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silentPeer.Milliseconds()))
		})
		return errors.Join(controlErr, err)
	}}
	return dialer.DialContext(ctx, "tcp", address)
}
