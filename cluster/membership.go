package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// votersMax bounds the voters: more would only make each commit slower.
	votersMax = 5
	// promotionLag is how many entries a member may lag behind to become a voter.
	promotionLag = 64
	// raftChangeTimeout bounds one change of the Raft configuration.
	raftChangeTimeout = 10 * time.Second
)

// register makes this node a member and keeps its addresses in the cluster's
// state true. It ends when that has succeeded once, or with block.ErrForeign if
// the node belongs to another cluster.
func (c *Cluster) register(ctx context.Context) error {
	ticker := time.NewTicker(c.options.Timing.Heartbeat)
	defer ticker.Stop()
	for attempt := 0; ; attempt++ {
		err := c.registerOnce(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, block.ErrForeign):
			return fmt.Errorf("join cluster: %w", err)
		}
		const reminder = 10
		if attempt%reminder == reminder-1 {
			c.logger.Warn("this node is not registered with its cluster yet", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Cluster) registerOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*raftChangeTimeout)
	defer cancel()
	req := &holdfastv1.JoinNodeRequest{Node: c.ownNode()}
	if id := c.ClusterID(); !id.IsZero() {
		req.ClusterId = id.String()
	}
	over := func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.JoinNodeResponse, error) {
		return holdfastv1.NewClusterClient(conn).JoinNode(ctx, req)
	}
	resp, err := onLeaderOnce(ctx, c, func(ctx context.Context) (*holdfastv1.JoinNodeResponse, error) { return c.joinNode(ctx, req) }, over)
	for _, address := range c.options.Join {
		if err == nil || errors.Is(err, block.ErrForeign) {
			break
		}
		conn, connErr := c.peers.to(address)
		if connErr != nil {
			return connErr
		}
		if resp, err = over(ctx, conn); err != nil {
			err = fmt.Errorf("join through %s: %w", address, err)
		}
	}
	if err != nil {
		return err
	}
	id, err := block.ParseID(resp.GetClusterId())
	if err != nil {
		return fmt.Errorf("cluster ID in the answer: %w", err)
	}
	if own := c.ClusterID(); !own.IsZero() && own.ID != id {
		return fmt.Errorf("this node belongs to cluster %s, the one that answered is %s: %w", own, id, block.ErrForeign)
	}
	return c.joined(block.ClusterID{ID: id})
}

func (c *Cluster) ownNode() *holdfastv1.Node {
	o := &c.options
	return &holdfastv1.Node{
		Id: c.NodeID().String(), Name: o.Name, Tags: o.Tags,
		ControlAddress: o.ControlAddress, DataAddress: o.DataAddress, RaftAddress: o.RaftAddress,
	}
}

// joinNode takes a node in, on the leader. It begins as a non-voter: promote
// makes it a voter once it is known to follow, so that a node that never comes up
// cannot take the quorum with it.
func (c *Cluster) joinNode(ctx context.Context, req *holdfastv1.JoinNodeRequest) (*holdfastv1.JoinNodeResponse, error) {
	node, err := parseNode(req.GetNode())
	if err != nil {
		return nil, fmt.Errorf("join node: %w", err)
	}
	s := c.State()
	if id := req.GetClusterId(); id != "" && id != s.Cluster().String() {
		return nil, fmt.Errorf("join node %s: it belongs to cluster %s, this is cluster %s; "+
			"to use it here, empty its state directory first: %w", node.Name, id, s.Cluster(), block.ErrForeign)
	}
	if err := c.probe(node); err != nil {
		return nil, fmt.Errorf("join node %s: %w", node.Name, err)
	}
	if known, ok := s.Node(node.ID); !ok || !reflect.DeepEqual(known, node) {
		if _, err := c.do(ctx, state.SetNode{Node: node}); err != nil {
			return nil, fmt.Errorf("join node %s: %w", node.Name, err)
		}
	}
	if err := c.addServer(ctx, node); err != nil {
		return nil, fmt.Errorf("join node %s: %w", node.Name, err)
	}
	return &holdfastv1.JoinNodeResponse{ClusterId: s.Cluster().String(), Incarnation: uint64(s.Incarnation())}, nil
}

func parseNode(n *holdfastv1.Node) (state.Node, error) {
	id, err := block.ParseID(n.GetId())
	if err != nil || id.IsZero() {
		return state.Node{}, fmt.Errorf("node ID %q: %w", n.GetId(), block.ErrInvalid)
	}
	if err := checkName(n.GetName()); err != nil {
		return state.Node{}, err
	}
	for _, address := range []string{n.GetControlAddress(), n.GetDataAddress(), n.GetRaftAddress()} {
		if err := checkAddress(address); err != nil {
			return state.Node{}, err
		}
	}
	tags, err := checkTags(n.GetTags())
	return state.Node{
		ID: block.NodeID{ID: id}, Name: n.GetName(), Tags: tags,
		ControlAddress: n.GetControlAddress(), DataAddress: n.GetDataAddress(), RaftAddress: n.GetRaftAddress(),
	}, err
}

// probe makes sure that the Raft address of a node leads to that node.
func (c *Cluster) probe(node state.Node) error {
	if node.ID == c.NodeID() {
		return nil
	}
	const probeTimeout = 3 * time.Second
	conn, err := c.stream.Dial(raftAddress(node.ID, node.RaftAddress), probeTimeout)
	if err != nil {
		sentinel := block.ErrUnavailable
		if errors.Is(err, block.ErrForeign) {
			sentinel = block.ErrForeign
		}
		return fmt.Errorf("its Raft address %s: %s: %w", node.RaftAddress, err.Error(), sentinel)
	}
	return conn.Close()
}

// addServer brings a node and its address into the Raft configuration. A server
// that had the address before is gone for good: probe has just found another node
// there.
func (c *Cluster) addServer(ctx context.Context, node state.Node) error {
	servers, err := c.servers(ctx)
	if err != nil {
		return err
	}
	id, address := serverID(node.ID), raftAddress(node.ID, node.RaftAddress)
	suffrage := raft.Nonvoter
	for _, s := range servers {
		if s.ID == id && s.Address == address {
			return nil
		}
		if s.ID == id {
			suffrage = s.Suffrage
			continue
		}
		_, hostPort, err := splitRaftAddress(s.Address)
		if err != nil {
			return err
		}
		if hostPort == node.RaftAddress {
			c.logger.Info("a node took over the address of a lost one", "node", node.ID, "lost_node", string(s.ID), "address", hostPort)
			if err := c.settle(ctx, func() raft.Future { return c.raft.RemoveServer(s.ID, 0, raftChangeTimeout) }); err != nil {
				return fmt.Errorf("remove lost node %s from Raft: %w", s.ID, err)
			}
		}
	}
	err = c.settle(ctx, func() raft.Future {
		if suffrage == raft.Voter {
			return c.raft.AddVoter(id, address, 0, raftChangeTimeout)
		}
		return c.raft.AddNonvoter(id, address, 0, raftChangeTimeout)
	})
	if err != nil {
		return fmt.Errorf("add node to Raft: %w", err)
	}
	return nil
}

func (c *Cluster) servers(ctx context.Context) ([]raft.Server, error) {
	future := c.raft.GetConfiguration()
	if err := c.settle(ctx, func() raft.Future { return future }); err != nil {
		return nil, fmt.Errorf("read Raft configuration: %w", err)
	}
	return future.Configuration().Servers, nil
}

// promote makes members that follow closely voters.
func (c *Cluster) promote(ctx context.Context) error {
	servers, err := c.servers(ctx)
	if err != nil {
		return err
	}
	index := c.State().Index()
	floor := index - min(index, promotionLag)
	chosen := choosePromotions(servers, func(id block.NodeID) bool { return c.leases.follows(id, floor) })
	for _, s := range chosen {
		if err := c.settle(ctx, func() raft.Future { return c.raft.AddVoter(s.ID, s.Address, 0, raftChangeTimeout) }); err != nil {
			return fmt.Errorf("make node %s a voter: %w", s.ID, err)
		}
		c.logger.Info("a member became a voter", "node", string(s.ID))
	}
	return nil
}

// choosePromotions picks the members to make voters now: one, three or five
// voters, never an even number, which would bear no more failures than one less.
func choosePromotions(servers []raft.Server, follows func(block.NodeID) bool) []raft.Server {
	voters := 0
	var candidates []raft.Server
	for _, s := range servers {
		node, _, err := splitRaftAddress(s.Address)
		switch {
		case s.Suffrage == raft.Voter:
			voters++
		case err == nil && follows(node):
			candidates = append(candidates, s)
		}
	}
	take := min(votersMax-voters, len(candidates))
	if take > 0 && (voters+take)%2 == 0 {
		take--
	}
	slices.SortFunc(candidates, func(a, b raft.Server) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return candidates[:max(take, 0)]
}
