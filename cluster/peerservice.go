package cluster

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// peerService is what members ask of the leader. Another member passes on what
// comes to it on a detour, and refuses the rest.
type peerService struct {
	holdfastv1.UnimplementedPeerServer
	cluster *Cluster
}

// Heartbeat implements holdfastv1.PeerServer.
func (p peerService) Heartbeat(ctx context.Context, req *holdfastv1.HeartbeatRequest) (*holdfastv1.HeartbeatResponse, error) {
	c := p.cluster
	if err := c.checkCluster(req.GetClusterId()); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	if !c.leading.Load() {
		return relay(ctx, c, "heartbeat", req, holdfastv1.PeerClient.Heartbeat)
	}
	node, err := parseNodeID(req.GetNodeId())
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	if _, ok := c.State().Node(node); !ok {
		return nil, fmt.Errorf("heartbeat of node %s: %w", node, block.ErrNotFound)
	}
	var reports []DiskReport
	for _, d := range req.GetDisks() {
		id, err := block.ParseID(d.GetDiskId())
		if err != nil {
			return nil, fmt.Errorf("heartbeat of node %s: disk %w", node, err)
		}
		// A node that still reports a disk which has moved is not to be believed.
		if disk, ok := c.State().Disk(block.DiskID{ID: id}); ok && disk.Node == node {
			reports = append(reports, DiskReport{
				ID: disk.ID, Capacity: d.GetCapacityBytes(), Free: d.GetFreeBytes(), Failure: d.GetFailure(),
				Warning: d.GetWarning(), Device: d.GetDevice(),
			})
		}
	}
	c.leases.heard(node, req.GetAppliedIndex(), reports)
	return &holdfastv1.HeartbeatResponse{LeaderId: c.NodeID().String()}, nil
}

// Apply implements holdfastv1.PeerServer. A command that this leader cannot read
// never reaches the log.
func (p peerService) Apply(ctx context.Context, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
	c := p.cluster
	if err := c.checkCluster(req.GetClusterId()); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if !c.leading.Load() {
		return relay(ctx, c, "apply", req, holdfastv1.PeerClient.Apply)
	}
	if _, err := state.Decode(req.GetCommand()); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	a, err := c.applyHere(ctx, req.GetCommand())
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	result, err := state.EncodeResult(a.result)
	if err != nil {
		return nil, fmt.Errorf("apply: %w: %w", err, block.ErrUnknown)
	}
	return &holdfastv1.ApplyResponse{Result: result, Index: a.index}, nil
}

// ReadIndex implements holdfastv1.PeerServer.
func (p peerService) ReadIndex(ctx context.Context, req *holdfastv1.ReadIndexRequest) (*holdfastv1.ReadIndexResponse, error) {
	c := p.cluster
	if err := c.checkCluster(req.GetClusterId()); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if !c.leading.Load() {
		return relay(ctx, c, "read index", req, holdfastv1.PeerClient.ReadIndex)
	}
	index, err := c.readIndexHere(ctx)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return &holdfastv1.ReadIndexResponse{Index: index}, nil
}

// relay passes a request that is on a detour on to the leader.
func relay[Q, A any](ctx context.Context, c *Cluster, what string, req Q,
	call func(holdfastv1.PeerClient, context.Context, Q, ...grpc.CallOption) (A, error)) (A, error) {
	if !onDetour(ctx) {
		var none A
		return none, fmt.Errorf("%s: %w", what, block.ErrNotLeader)
	}
	return passOn(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (A, error) {
		answer, err := call(holdfastv1.NewPeerClient(conn), ctx, req)
		if err != nil && !definite(err) {
			err = fmt.Errorf("%s: %w: %w", what, err, block.ErrUnknown)
		}
		return answer, err
	})
}
