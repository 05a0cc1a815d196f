package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
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
		if !v.Deleting {
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

// ListDisks implements holdfastv1.ClusterServer.
func (s clusterService) ListDisks(ctx context.Context, req *holdfastv1.ListDisksRequest) (*holdfastv1.ListDisksResponse, error) {
	return route(ctx, s.cluster,
		func(context.Context) (*holdfastv1.ListDisksResponse, error) {
			resp := &holdfastv1.ListDisksResponse{}
			for _, k := range s.cluster.candidates(s.cluster.State()) {
				resp.Disks = append(resp.Disks, s.cluster.showDisk(k))
			}
			return resp, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.ListDisksResponse, error) {
			return holdfastv1.NewClusterClient(conn).ListDisks(ctx, req)
		})
}

// showDisk shows a disk; one that has not reported yet is as it was added.
func (c *Cluster) showDisk(k candidate) *holdfastv1.Disk {
	report, ok := c.leases.disk(k.disk.ID)
	if !ok {
		report.Capacity, report.Free = k.disk.Capacity, k.disk.Capacity
	}
	return &holdfastv1.Disk{
		Id: k.disk.ID.String(), NodeId: k.disk.Node.String(), Path: k.disk.Path, Class: k.disk.Class, Tags: k.disk.Tags,
		CapacityBytes: report.Capacity, FreeBytes: report.Free, Failure: report.Failure,
		ProvisionedBytes: k.provisioned, ReplicaCount: int32(k.replicas),
	}
}

// AddDisk implements holdfastv1.ClusterServer on the node that has the disk.
func (s clusterService) AddDisk(ctx context.Context, req *holdfastv1.AddDiskRequest) (*holdfastv1.Disk, error) {
	c := s.cluster
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if req.GetNodeId() == "" || req.GetNodeId() == c.NodeID().String() {
		disk, err := c.addDisk(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("add disk %s: %w", req.GetPath(), err)
		}
		return disk, nil
	}
	node, err := parseNodeID(req.GetNodeId())
	if err != nil {
		return nil, fmt.Errorf("add disk %s: %w", req.GetPath(), err)
	}
	record, ok := c.State().Node(node)
	if !ok {
		return nil, fmt.Errorf("add disk %s: node %s: %w", req.GetPath(), node, block.ErrNotFound)
	}
	conn, err := c.peers.to(record.ControlAddress)
	if err != nil {
		return nil, err
	}
	return holdfastv1.NewClusterClient(conn).AddDisk(ctx, req)
}

func (c *Cluster) addDisk(ctx context.Context, req *holdfastv1.AddDiskRequest) (*holdfastv1.Disk, error) {
	if !filepath.IsAbs(req.GetPath()) {
		return nil, fmt.Errorf("the path must be absolute: %w", block.ErrInvalid)
	}
	if err := checkClass(req.GetClass()); err != nil {
		return nil, err
	}
	tags, err := checkTags(req.GetTags())
	if err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		return nil, fmt.Errorf("this node has not joined its cluster yet: %w", block.ErrUnavailable)
	}
	added, err := c.options.Disks.AddDisk(ctx, c.ClusterID(), filepath.Clean(req.GetPath()))
	if err != nil {
		return nil, err
	}
	command := state.AddDisk{Disk: state.Disk{
		ID: added.ID, Node: c.NodeID(), Path: added.Path, Class: req.GetClass(), Tags: tags, Capacity: added.Capacity,
	}}
	r, err := c.do(ctx, command)
	if errors.Is(err, block.ErrExists) {
		if command.From, err = c.goneOwner(ctx, added.ID); err != nil {
			return nil, err
		}
		r, err = c.do(ctx, command)
	}
	if err != nil {
		return nil, err
	}
	return c.showDisk(candidate{disk: *r.Disk}), nil
}

// goneOwner is the node that a disk belonged to, if that is not alive: its disk
// may be taken over. A live one that has a disk of the same ID means a copied
// disk, and neither may be opened (rule 1).
func (c *Cluster) goneOwner(ctx context.Context, id block.DiskID) (block.NodeID, error) {
	disk, ok := c.State().Disk(id)
	if !ok {
		return block.NodeID{}, fmt.Errorf("disk %s: %w", id, block.ErrUnavailable)
	}
	nodes, err := clusterService{cluster: c}.ListNodes(ctx, &holdfastv1.ListNodesRequest{})
	if err != nil {
		return block.NodeID{}, err
	}
	for _, n := range nodes.GetNodes() {
		if n.GetId() == disk.Node.String() && n.GetAlive() {
			return block.NodeID{}, fmt.Errorf("disk %s belongs to node %s, which is alive: %w", id, n.GetName(), block.ErrExists)
		}
	}
	return disk.Node, nil
}
