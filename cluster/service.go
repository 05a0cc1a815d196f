package cluster

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/cluster/rpcerr"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// Register adds the services of the member to a server, which must have
// rpcerr.UnaryServerInterceptor.
func (c *Cluster) Register(server grpc.ServiceRegistrar) {
	holdfastv1.RegisterPeerServer(server, peerService{cluster: c})
	holdfastv1.RegisterClusterServer(server, clusterService{cluster: c})
	holdfastv1.RegisterVolumesServer(server, volumesService{cluster: c})
	holdfastv1.RegisterSnapshotsServer(server, snapshotsService{cluster: c})
}

// forwardedKey marks a request that a member has passed on, so that two members
// that take each other for the leader do not play ball with it.
const forwardedKey = "holdfast-forwarded"

// route answers a request on the leader. All requests may be repeated.
func route[T any](ctx context.Context, c *Cluster, here func(context.Context) (T, error), there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	forward := func(ctx context.Context, conn *grpc.ClientConn) (T, error) {
		return there(metadata.AppendToOutgoingContext(ctx, forwardedKey, "1"), conn)
	}
	switch {
	case onDetour(ctx) && !c.leading.Load():
		return passOn(ctx, c, forward)
	case len(metadata.ValueFromIncomingContext(ctx, forwardedKey)) > 0:
		if !c.leading.Load() {
			var none T
			return none, block.ErrNotLeader
		}
		return here(ctx)
	}
	retry := func(err error) bool {
		return errors.Is(err, block.ErrUnknown) || errors.Is(err, block.ErrUnavailable) && lostOnTheWay(err)
	}
	return onLeader(ctx, c, retry, here, forward)
}

// lostOnTheWay reports whether err came from the transport of a forwarded request
// rather than from a daemon's own code.
func lostOnTheWay(err error) bool {
	var sent interface{ GRPCStatus() *status.Status }
	return errors.As(err, &sent) && !rpcerr.Answered(err)
}

// checkCluster refuses what comes from another cluster.
func (c *Cluster) checkCluster(id string) error {
	if own := c.ClusterID(); own.IsZero() || id != own.String() {
		return fmt.Errorf("the sender belongs to cluster %s, this is cluster %s: %w", id, own, block.ErrForeign)
	}
	return nil
}
