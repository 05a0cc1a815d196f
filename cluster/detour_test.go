package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// links are the connections between the members of a group, by who dialed whom.
// A cut ends those of a pair and refuses new ones, in both directions: where one
// direction is silent, TCP has none.
type links struct {
	mu    sync.Mutex
	cut   map[[2]string]bool
	conns map[[2]string][]net.Conn
}

func newLinks() *links {
	return &links{cut: map[[2]string]bool{}, conns: map[[2]string][]net.Conn{}}
}

// dial connects a member to an address unless that link is cut.
func (l *links) dial(ctx context.Context, from, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pair := [2]string{from, address}
	if l.cut[pair] {
		return nil, syscall.EHOSTUNREACH
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		l.conns[pair] = append(l.conns[pair], conn)
	}
	return conn, err
}

// between cuts or mends the links of two members.
func (l *links) between(a, b *node, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set([2]string{a.options.Name, b.options.ControlAddress}, cut)
	l.set([2]string{b.options.Name, a.options.ControlAddress}, cut)
	l.set([2]string{a.options.Name, b.options.RaftAddress}, cut)
	l.set([2]string{b.options.Name, a.options.RaftAddress}, cut)
}

// cutRaft cuts only what Raft says.
func (l *links) cutRaft(a, b *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set([2]string{a.options.Name, b.options.RaftAddress}, true)
	l.set([2]string{b.options.Name, a.options.RaftAddress}, true)
}

// set cuts or mends one link. l.mu is held.
func (l *links) set(pair [2]string, cut bool) {
	l.cut[pair] = cut
	for _, conn := range l.conns[pair] {
		_ = conn.Close() // its owner hears of it
	}
	delete(l.conns, pair)
}

// carry makes a member dial over the links.
func (l *links) carry(n *node) {
	name := n.options.Name
	n.options.DialRaft = func(address string, timeout time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return l.dial(ctx, name, address)
	}
	n.options.DialOptions = []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return l.dial(ctx, name, address) }),
	}
}

// TestDetour: a member that cannot reach the leader, while both reach a third one,
// goes on changing the views of its volumes, and counts as alive. Nobody is
// elected for that. Once the link is back, the direct way is taken again.
func TestDetour(t *testing.T) {
	l := newLinks()
	g := newGroupOf(t, 3, func(n *node) {
		l.carry(n)
		n.patient()
	})
	ctx := testContext(t)
	leader, member := g.leader(ctx), g.follower(ctx)
	created, err := member.volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil {
		t.Fatal(err)
	}
	v := member.attach(ctx, created.GetId())
	term := leader.raft.CurrentTerm()

	l.between(leader, member, true)
	waitFor(ctx, t, "the leader to be out of sight", func() bool {
		_, known := member.raft.LeaderWithID()
		return known == ""
	})
	// A no-op raises the revision.
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	verdict, view := member.Propose(soon, block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision})
	if verdict != block.Committed || view.Revision <= v.View.Revision {
		t.Errorf("the proposal is %v, the revision %d after %d", verdict, view.Revision, v.View.Revision)
	}
	// What any client may ask goes the same way.
	list, err := member.nodes().ListNodes(soon, &holdfastv1.ListNodesRequest{})
	if err != nil || len(list.GetNodes()) != 3 {
		t.Errorf("the nodes are %v, %v", list, err)
	}
	// A lease later, the member is heard of all the same.
	heard := leader.options.Clock.Now() + block.Instant(leader.options.Timing.NodeLease)
	waitFor(ctx, t, "a lease to pass", func() bool { return leader.options.Clock.Now() > heard })
	if !leader.leases.alive(member.NodeID()) {
		t.Error("the member counts as dead")
	}
	if now := leader.raft.CurrentTerm(); now != term || leader.raft.State() != raft.Leader {
		t.Errorf("the leader of term %d is a %v of term %d", term, leader.raft.State(), now)
	}

	l.between(leader, member, false)
	if err := member.Sync(ctx); err != nil {
		t.Error(err)
	}
	now, _ := member.State().Volume(v.ID)
	if now.View.Revision != view.Revision {
		t.Errorf("the member shows revision %d, want %d", now.View.Revision, view.Revision)
	}
}

// TestDetourLeavesTheSilent: a stop that was asked once and did not answer is not
// asked again while another one does, however the requests alternate.
func TestDetourLeavesTheSilent(t *testing.T) {
	l := newLinks()
	g := newGroupOf(t, 5, l.carry)
	ctx := testContext(t)
	leader, member := g.leader(ctx), g.follower(ctx)
	byNode := map[block.NodeID]*node{}
	for _, n := range g {
		byNode[n.NodeID()] = n
	}
	l.between(leader, member, true)
	waitFor(ctx, t, "the leader to be out of sight, and three others to be asked", func() bool {
		_, known := member.raft.LeaderWithID()
		return known == "" && len(member.stops()) == 3
	})
	for range 2 {
		frozen := byNode[member.stops()[0].node]
		frozen.silent.Store(true)
		// Heartbeats ask around, too.
		waitFor(ctx, t, "the silent one to be the last that is asked", func() bool {
			return member.stops()[0].node != frozen.NodeID()
		})
		for len(frozen.heard) > 0 {
			<-frozen.heard
		}
		for range 10 {
			if _, err := member.nodes().ListNodes(ctx, &holdfastv1.ListNodesRequest{}); err != nil {
				t.Error(err)
			}
		}
		if len(frozen.heard) > 0 {
			t.Errorf("the silent one was asked again: %s", <-frozen.heard)
		}
		frozen.silent.Store(false)
	}
}

// TestDetourHasOneStop: a member that knows no leader either does not ask around
// for somebody else.
func TestDetourHasOneStop(t *testing.T) {
	l := newLinks()
	g := newGroupOf(t, 3, l.carry)
	ctx := testContext(t)
	for i, a := range g {
		for _, b := range g[:i] {
			l.cutRaft(a, b)
		}
	}
	for _, member := range g {
		waitFor(ctx, t, "nobody to lead", func() bool {
			_, known := member.raft.LeaderWithID()
			return known == ""
		})
	}
	third := g[2]
	third.silent.Store(true)
	defer third.silent.Store(false)
	asking := metadata.AppendToOutgoingContext(ctx, detourKey, "1")
	_, err := holdfastv1.NewPeerClient(g[1].conn).ReadIndex(asking, &holdfastv1.ReadIndexRequest{ClusterId: g[0].ClusterID().String()})
	if !errors.Is(err, block.ErrNotLeader) {
		t.Errorf("the answer is %v", err)
	}
	for len(third.heard) > 0 {
		if method := <-third.heard; method == holdfastv1.Peer_ReadIndex_FullMethodName {
			t.Error("the request went on to another member")
		}
	}
}
