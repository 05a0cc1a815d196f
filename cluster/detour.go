package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/holdfast-io/holdfast/internal/block"
)

// errNoWay: this member knows no leader, or no connection to it stands, so that
// nothing was sent to it.
var errNoWay = errors.New("no way to the leader")

// detourKey marks a request for the leader that its sender cannot reach. A member
// that does not lead passes it on, to the leader that it reaches itself and to
// nobody else: so a detour has one stop.
const detourKey = "holdfast-detour"

// detourPatience bounds the wait for a connection to one stop. A connection that
// stands is tried first, and members are on one network.
const detourPatience = 300 * time.Millisecond

// onDetour reports whether an incoming request may be passed on.
func onDetour(ctx context.Context) bool {
	return len(metadata.ValueFromIncomingContext(ctx, detourKey)) > 0
}

// detour asks the leader by way of another member, for a leader that is well and
// that only this member does not reach. It goes on to the next one as long as the
// answer is that nothing was done.
func detour[T any](ctx context.Context, c *Cluster, cause error,
	there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	var none T
	for _, conn := range c.stops() {
		if err := c.reach(ctx, conn); err != nil || ctx.Err() != nil {
			continue
		}
		result, err := there(metadata.AppendToOutgoingContext(ctx, detourKey, "1"), conn)
		if err == nil {
			c.metrics.detours.Inc()
		}
		if err == nil || !errors.Is(err, block.ErrNotLeader) {
			return result, err
		}
	}
	return none, fmt.Errorf("%s, not even through another member: %w", cause.Error(), block.ErrNotLeader)
}

// passOn hands a request on a detour to the leader. Nothing was done if the answer
// is block.ErrNotLeader.
func passOn[T any](ctx context.Context, c *Cluster, there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	var none T
	self, leader, address, err := c.leader()
	if err == nil && self {
		err = errNoWay // it has begun to lead this very moment
	}
	if err != nil {
		return none, fmt.Errorf("pass on: %s: %w", err.Error(), block.ErrNotLeader)
	}
	result, err := directly(ctx, c, leader, address, there)
	if errors.Is(err, block.ErrUnknown) {
		// That is the answer; the status of a broken call would hide it.
		err = fmt.Errorf("pass on: %s: %w", err.Error(), block.ErrUnknown)
	}
	return result, err
}

// directly asks the leader over a connection of this member.
func directly[T any](ctx context.Context, c *Cluster, leader raft.ServerID, address string,
	there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	conn, err := c.peers.to(address)
	if err != nil {
		var none T
		return none, err
	}
	return askLeader(ctx, c, leader, conn, there)
}

// stops are connections to the other voters, which know who leads: those that
// stand come first, and no voter is always the first of them. The last leader that
// was known here is none: either it leads no more, or its silence is the reason for
// the detour, and a connection to it may look as if it stood.
func (c *Cluster) stops() []*grpc.ClientConn {
	future := c.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	last, _ := c.lastLeader.Load().(raft.ServerID)
	var standing, others []*grpc.ClientConn
	for _, s := range future.Configuration().Servers {
		node, _, err := splitRaftAddress(s.Address)
		if err != nil || s.Suffrage != raft.Voter || s.ID == last || node == c.NodeID() {
			continue
		}
		record, ok := c.State().Node(node)
		if !ok {
			continue
		}
		conn, err := c.peers.to(record.ControlAddress)
		switch {
		case err != nil:
		case conn.GetState() == connectivity.Ready:
			standing = append(standing, conn)
		default:
			others = append(others, conn)
		}
	}
	if n := len(standing); n > 1 {
		first := int(c.turns.Add(1) % uint32(n))
		standing = slices.Concat(standing[first:], standing[:first])
	}
	return append(standing, others...)
}

// perhapsBounded bounds a call that takes Raft's time and no more, if it is on a
// detour: a stop that is frozen keeps its connection, and another may be asked.
// The leader itself needs no bound, as its silence ends its leadership.
func (c *Cluster) perhapsBounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if sent, ok := metadata.FromOutgoingContext(ctx); ok && len(sent.Get(detourKey)) > 0 {
		return context.WithTimeout(ctx, 2*c.options.Timing.Election)
	}
	return context.WithCancel(ctx)
}

// reach waits for a connection to one stop.
func (c *Cluster) reach(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, detourPatience)
	defer cancel()
	return connected(ctx, conn)
}
