package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/rpcerr"
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// snapshotsService answers about snapshots.
type snapshotsService struct {
	holdfastv1.UnimplementedSnapshotsServer
	cluster *Cluster
}

// CreateSnapshot implements holdfastv1.SnapshotsServer.
func (s snapshotsService) CreateSnapshot(ctx context.Context, req *holdfastv1.CreateSnapshotRequest) (*holdfastv1.Snapshot, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.Snapshot, error) {
			volume, err := parseVolumeID(req.GetVolumeId())
			if err == nil {
				err = checkName(req.GetName())
			}
			var r state.Snapshot
			if err == nil {
				r, err = s.cluster.createSnapshot(ctx, req.GetName(), volume)
			}
			if err != nil {
				return nil, fmt.Errorf("create snapshot %q: %w", req.GetName(), err)
			}
			return showSnapshot(&r), nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.Snapshot, error) {
			return holdfastv1.NewSnapshotsClient(conn).CreateSnapshot(ctx, req)
		})
}

// createSnapshot reserves a name, on the leader, and has the snapshot taken. The
// reservation of what cannot be taken in time is taken back, so that a snapshot never
// comes into being after its request has failed.
func (c *Cluster) createSnapshot(ctx context.Context, name string, volume block.VolumeID) (state.Snapshot, error) {
	waiting, cancel := endEarly(ctx)
	defer cancel()
	release, err := c.naming.take(waiting, name)
	if err != nil {
		return state.Snapshot{}, err
	}
	defer release()
	if err := c.checkSnapshotSpace(waiting, name, volume); err != nil {
		return state.Snapshot{}, err
	}
	for {
		r, err := c.reserveSnapshot(ctx, name, volume)
		if err != nil {
			return state.Snapshot{}, err
		}
		r, err = c.takeSnapshot(waiting, r)
		if err == nil {
			return r, nil
		}
		if backErr := c.takeBack(ctx, r.ID); backErr != nil {
			c.logger.Warn("the reservation of a snapshot stays", "snapshot", r.ID, "name", name, "error", backErr)
		}
		if !errors.Is(err, block.ErrConflict) {
			return state.Snapshot{}, err
		}
		if c.pause(waiting, retryDelay) != nil {
			return state.Snapshot{}, fmt.Errorf("%s; the same request may be repeated: %w", err.Error(), block.ErrUnavailable)
		}
	}
}

// reserveSnapshot makes the record; one that is there is left as it is.
func (c *Cluster) reserveSnapshot(ctx context.Context, name string, volume block.VolumeID) (state.Snapshot, error) {
	const attempts = 8
	for range attempts {
		id, err := block.NewID(c.options.Random)
		if err != nil {
			return state.Snapshot{}, err
		}
		r, err := c.do(ctx, state.CreateSnapshot{
			Snapshot: block.SnapshotID{ID: id}, Name: name, Volume: volume,
			Created: time.Now().UnixMilli(), DecidedAt: c.State().Index(),
		})
		if err == nil {
			return *r.Snapshot, nil
		}
		if !errors.Is(err, block.ErrConflict) {
			return state.Snapshot{}, err
		}
	}
	return state.Snapshot{}, fmt.Errorf("snapshots of volume %s come and go too fast: %w", volume, block.ErrUnavailable)
}

// takeBack frees the name of a snapshot that was not taken. The request may be over.
func (c *Cluster) takeBack(ctx context.Context, id block.SnapshotID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.options.Timing.NodeLease)
	defer cancel()
	_, err := c.do(ctx, state.DeleteSnapshot{Snapshot: id, Untaken: true})
	return err
}

// takeSnapshot has a reserved snapshot taken, trying until ctx ends. block.ErrConflict:
// it is reserved no longer, or it was begun and has not come to an end: some replica may
// hold what was given up, so that its ID is not used again (rule 1).
func (c *Cluster) takeSnapshot(ctx context.Context, r state.Snapshot) (state.Snapshot, error) {
	err := c.onWorker(ctx, r.Volume,
		func(s *state.State) (done bool, err error) {
			current, ok := s.Snapshot(r.ID)
			if !ok {
				return false, fmt.Errorf("it was deleted meanwhile: %w", block.ErrConflict)
			}
			r = current
			return r.Ready(), nil
		},
		func(ctx context.Context, agent holdfastv1.NodeAgentClient) error {
			_, err := agent.TakeSnapshot(ctx, &holdfastv1.TakeSnapshotRequest{
				VolumeId: r.Volume.String(), SnapshotId: r.ID.String(), Created: r.Created,
			})
			if notBegun := rpcerr.Answered(err) && errors.Is(err, block.ErrUnavailable); err != nil && !notBegun && !pointless(err) {
				err = fmt.Errorf("%s: %w", err.Error(), block.ErrConflict)
			}
			return err
		})
	return r, err
}

// DeleteSnapshot implements holdfastv1.SnapshotsServer.
func (s snapshotsService) DeleteSnapshot(ctx context.Context, req *holdfastv1.DeleteSnapshotRequest) (*holdfastv1.DeleteSnapshotResponse, error) {
	id, err := parseSnapshotID(req.GetId())
	if err != nil {
		return nil, fmt.Errorf("delete snapshot: %w", err)
	}
	if _, err := s.cluster.do(ctx, state.DeleteSnapshot{Snapshot: id}); err != nil {
		return nil, err
	}
	return &holdfastv1.DeleteSnapshotResponse{}, nil
}
