package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

func TestFollowing(t *testing.T) {
	var f following
	stays, endStays := f.begin(t.Context(), "a")
	defer endStays()
	leaves, endLeaves := f.begin(t.Context(), "b")
	defer endLeaves()
	f.changed("a")
	if stays.Err() != nil || !errors.Is(context.Cause(leaves), errLeaderLeft) {
		t.Errorf("the ends are %v and %v", stays.Err(), context.Cause(leaves))
	}
	endStays()
	if len(f.calls) != 1 {
		t.Errorf("%d requests are remembered", len(f.calls))
	}
}

// TestSilentLeader: requests that wait for a leader that never answers end when
// another one leads. What may be repeated succeeds there; a proposal is unknown.
func TestSilentLeader(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	leader, follower := g.leader(ctx), g.follower(ctx)
	created, err := follower.volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil {
		t.Fatal(err)
	}
	v := follower.attach(ctx, created.GetId())

	leader.silent.Store(true)
	verdict := make(chan block.Verdict, 1)
	go func() {
		p := block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision}
		got, _ := follower.Propose(ctx, p)
		verdict <- got
	}()
	made := make(chan error, 1)
	go func() {
		_, err := follower.volumes().CreateVolume(ctx, createRequest("more", 3))
		made <- err
	}()
	waiting := map[string]bool{}
	for !waiting[holdfastv1.Peer_Apply_FullMethodName] || !waiting[holdfastv1.Volumes_CreateVolume_FullMethodName] {
		select {
		case method := <-leader.heard:
			waiting[method] = true
		case <-ctx.Done():
			t.Fatalf("the leader heard only of %v", waiting)
		}
	}
	waitFor(ctx, t, "another leader", func() bool {
		return leader.raft.State() != raft.Leader || leader.raft.LeadershipTransfer().Error() == nil
	})
	const soon = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	select {
	case got := <-verdict:
		if got != block.Unknown {
			t.Errorf("the verdict is %v", got)
		}
	case <-ctx.Done():
		t.Error("the proposal waits on")
	}
	select {
	case err := <-made:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("the creation waits on")
	}
	// The replica on the silent node is made all the same; it stops below.
	leader.silent.Store(false)
}

// TestWhileHeard: what asks a node ends with the node's silence, long before its lease.
func TestWhileHeard(t *testing.T) {
	const silence = 50 * time.Millisecond
	c := &Cluster{closed: make(chan struct{}), leases: newLeases(clock.System{}, time.Hour)}
	c.options.Timing.Heartbeat, c.options.Timing.Silence = 4*time.Millisecond, silence
	node := block.NodeID{ID: placeID('n', 1)}
	asked, stop := c.whileHeard(testContext(t), node)
	defer stop()
	c.leases.heard(node, 1, nil)
	if asked.Err() != nil {
		t.Error("a node that was heard is not asked")
	}
	<-asked.Done()
	if quiet := c.leases.quietFor(node); quiet < silence {
		t.Errorf("a node is given up after %v", quiet)
	}
	if !c.leases.alive(node) {
		t.Error("its lease is over")
	}
}

// TestHandOver: a leader that ends in order asks another one to lead, and does not
// let the others wait until they miss it.
func TestHandOver(t *testing.T) {
	g := newGroupOf(t, 3, (*node).patient)
	ctx := testContext(t)
	leader := g.leader(ctx)
	const pending = 16
	votes := make(chan raft.Observation, pending)
	for _, member := range g {
		if member != leader {
			member.raft.RegisterObserver(raft.NewObserver(votes, false, func(o *raft.Observation) bool {
				_, ok := o.Data.(raft.RequestVoteRequest)
				return ok
			}))
		}
	}
	leader.halt()
	g.leader(ctx)
	for len(votes) > 0 {
		if vote, ok := (<-votes).Data.(raft.RequestVoteRequest); ok && vote.LeadershipTransfer {
			return
		}
	}
	t.Error("the next leader was elected for its predecessor's silence")
}
