package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// clusterService answers about nodes and disks.
type clusterService struct {
	holdfastv1.UnimplementedClusterServer
	cluster *Cluster
}

// GetCluster implements holdfastv1.ClusterServer from local knowledge, so that it
// answers in a cluster without a leader too.
func (s clusterService) GetCluster(context.Context, *holdfastv1.GetClusterRequest) (*holdfastv1.ClusterInfo, error) {
	c := s.cluster
	current := c.State()
	_, leader := c.raft.LeaderWithID()
	volumes := 0
	for v := range current.Volumes() {
		if v.Named() {
			volumes++
		}
	}
	info := &holdfastv1.ClusterInfo{
		LeaderNodeId: string(leader), AnsweringNodeId: c.NodeID().String(),
		Incarnation: uint64(current.Incarnation()),
		NodeCount:   int32(current.NodeCount()), VolumeCount: int32(volumes),
		RaftTerm: c.raft.CurrentTerm(), RaftAppliedIndex: c.raft.AppliedIndex(),
	}
	if id := c.ClusterID(); !id.IsZero() {
		info.Id = id.String()
	}
	return info, nil
}

// JoinNode implements holdfastv1.ClusterServer.
func (s clusterService) JoinNode(ctx context.Context, req *holdfastv1.JoinNodeRequest) (*holdfastv1.JoinNodeResponse, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.JoinNodeResponse, error) { return s.cluster.joinNode(ctx, req) },
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.JoinNodeResponse, error) {
			return holdfastv1.NewClusterClient(conn).JoinNode(ctx, req)
		})
}

// ListNodes implements holdfastv1.ClusterServer. Only the leader knows who is
// alive.
func (s clusterService) ListNodes(ctx context.Context, req *holdfastv1.ListNodesRequest) (*holdfastv1.ListNodesResponse, error) {
	return route(ctx, s.cluster, s.cluster.listNodes,
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.ListNodesResponse, error) {
			return holdfastv1.NewClusterClient(conn).ListNodes(ctx, req)
		})
}

func (c *Cluster) listNodes(ctx context.Context) (*holdfastv1.ListNodesResponse, error) {
	servers, err := c.servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	resp := &holdfastv1.ListNodesResponse{}
	for n := range c.State().Nodes() {
		id := serverID(n.ID)
		resp.Nodes = append(resp.Nodes, &holdfastv1.Node{
			Id: n.ID.String(), Name: n.Name, Tags: n.Tags,
			ControlAddress: n.ControlAddress, DataAddress: n.DataAddress, RaftAddress: n.RaftAddress,
			Alive: c.leases.alive(n.ID), Leader: n.ID == c.NodeID(), AppliedIndex: c.leases.applied(n.ID),
			Voter: slices.ContainsFunc(servers, func(s raft.Server) bool { return s.ID == id && s.Suffrage == raft.Voter }),
		})
	}
	return resp, nil
}
