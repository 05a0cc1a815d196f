package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// sendHeartbeats renews this node's lease with the leader and reports its disks.
func (c *Cluster) sendHeartbeats(ctx context.Context) error {
	ticker := time.NewTicker(c.options.Timing.Heartbeat)
	defer ticker.Stop()
	for missed := 0; ; {
		err := c.sendHeartbeat(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, block.ErrForeign):
			return fmt.Errorf("report to the leader: %w", err)
		case err == nil:
			missed = 0
		default:
			missed++
			const reminder = 10
			if missed%reminder == 0 {
				c.logger.Warn("the leader cannot be told that this node is alive", "missed", missed, "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Cluster) sendHeartbeat(ctx context.Context) error {
	id := c.ClusterID()
	if id.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timing.NodeLease/2)
	defer cancel()
	reports, index := c.options.Disks.Disks(), c.State().Index()
	_, err := onLeaderOnce(ctx, c,
		func(context.Context) (struct{}, error) {
			c.leases.heard(c.NodeID(), index, reports)
			return struct{}{}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (struct{}, error) {
			req := &holdfastv1.HeartbeatRequest{ClusterId: id.String(), NodeId: c.NodeID().String(), AppliedIndex: index}
			for _, d := range reports {
				req.Disks = append(req.Disks, &holdfastv1.DiskReport{
					DiskId: d.ID.String(), CapacityBytes: d.Capacity, FreeBytes: d.Free, Failure: d.Failure, Warning: d.Warning, Device: d.Device,
				})
			}
			resp, err := holdfastv1.NewPeerClient(conn).Heartbeat(ctx, req)
			if err != nil {
				return struct{}{}, err
			}
			leader, err := parseNodeID(resp.GetLeaderId())
			if err != nil {
				return struct{}{}, fmt.Errorf("leader that answered a heartbeat: %w", err)
			}
			c.leases.answered(leader)
			return struct{}{}, nil
		})
	return err
}
