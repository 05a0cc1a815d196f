package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
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

// detourPatience bounds the wait for a connection to one stop: members are on one
// network.
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
	for _, stop := range c.stops() {
		if ctx.Err() != nil {
			break
		}
		if err := c.reach(ctx, stop.conn); err != nil {
			c.failures.add(stop.node)
			continue
		}
		result, err := there(metadata.AppendToOutgoingContext(ctx, detourKey, "1"), stop.conn)
		switch {
		case err == nil:
			c.metrics.detours.Inc()
			return result, nil
		case !errors.Is(err, block.ErrNotLeader):
			c.failures.add(stop.node)
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

// stop is a member that may pass a request on.
type stop struct {
	node block.NodeID
	conn *grpc.ClientConn
}

// stops are the other voters, which know who leads: first the one whose last
// failure is the longest ago. A frozen one keeps its connection, so that the state
// of that does not tell; and if they took turns, requests could meet the frozen one
// each time while heartbeats meet the other. The last leader that was known here is
// none: either it leads no more, or its silence is the reason for the detour.
func (c *Cluster) stops() []stop {
	future := c.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	last, _ := c.lastLeader.Load().(raft.ServerID)
	var all []stop
	for _, s := range future.Configuration().Servers {
		node, _, err := splitRaftAddress(s.Address)
		if err != nil || s.Suffrage != raft.Voter || s.ID == last || node == c.NodeID() {
			continue
		}
		record, ok := c.State().Node(node)
		if !ok {
			continue
		}
		if conn, err := c.peers.to(record.ControlAddress); err == nil {
			all = append(all, stop{node: node, conn: conn})
		}
	}
	c.failures.sort(all)
	return all
}

// failures remembers which stop failed last. Its zero value is empty.
type failures struct {
	mu    sync.Mutex
	count uint64
	last  map[block.NodeID]uint64 // the count at its last failure; bounded by the nodes
}

func (f *failures) add(node block.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = map[block.NodeID]uint64{}
	}
	f.count++
	f.last[node] = f.count
}

// sort puts the stops into the order in which they are asked.
func (f *failures) sort(stops []stop) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(stops, func(a, b stop) int {
		return cmp.Compare(f.last[a.node], f.last[b.node])
	})
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
