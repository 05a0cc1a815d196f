package cluster

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// ExpandVolume implements holdfastv1.VolumesServer.
func (s volumesService) ExpandVolume(ctx context.Context, req *holdfastv1.ExpandVolumeRequest) (*holdfastv1.Volume, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.Volume, error) {
			v, err := s.cluster.expandVolume(ctx, req)
			if err != nil {
				return nil, fmt.Errorf("expand volume %s: %w", req.GetId(), err)
			}
			return showVolume(&v), nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.Volume, error) {
			return holdfastv1.NewVolumesClient(conn).ExpandVolume(ctx, req)
		})
}

// expandVolume records the intent (rule 27), on the leader, and has it done.
func (c *Cluster) expandVolume(ctx context.Context, req *holdfastv1.ExpandVolumeRequest) (state.Volume, error) {
	id, err := parseVolumeID(req.GetId())
	if err != nil {
		return state.Volume{}, err
	}
	size, err := checkSize(req.GetSizeBytes())
	if err != nil {
		return state.Volume{}, err
	}
	if err := c.intendGrowth(ctx, id, size); err != nil {
		return state.Volume{}, err
	}
	waiting, cancel := endEarly(ctx)
	defer cancel()
	var v state.Volume
	// A volume that is attached has its size when the device has: its node is asked
	// even if the size is committed.
	asked := false
	err = c.onWorker(waiting, id,
		func(s *state.State) (done bool, err error) {
			v, _ = s.Volume(id)
			return v.View.Size >= size && (asked || v.View.Owner.IsZero() || v.Borrowed()), nil
		},
		func(ctx context.Context, agent holdfastv1.NodeAgentClient) error {
			_, err := agent.GrowVolume(ctx, &holdfastv1.GrowVolumeRequest{VolumeId: id.String(), SizeBytes: size})
			asked = err == nil
			return err
		})
	return v, err
}

// intendGrowth looks for room and records the intent. One at a time with creations, so
// that no two count on the same space.
func (c *Cluster) intendGrowth(ctx context.Context, id block.VolumeID, size int64) error {
	release, err := c.lockPlacement(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := c.State()
	v, ok := s.Volume(id)
	switch {
	case !ok || v.Deleting:
		return block.ErrNotFound
	case v.InTrash():
		return fmt.Errorf("it is in the trash: %w", block.ErrNotFound)
	case size < v.View.Size:
		return fmt.Errorf("it has %d bytes, and %d are asked for: volumes never shrink: %w", v.View.Size, size, block.ErrInvalid)
	case size <= max(v.View.Size, v.GrowTo):
		return nil
	}
	if err := roomToGrow(c.candidates(s), &v, size); err != nil {
		return err
	}
	_, err = c.do(ctx, state.GrowVolume{Volume: id, Size: size})
	return err
}

// roomToGrow wants what a volume is to have more on each of its disks.
func roomToGrow(candidates []candidate, v *state.Volume, size int64) error {
	more := size - max(v.View.Size, v.GrowTo)
	for _, m := range v.View.Replicas {
		for i := range candidates {
			if k := &candidates[i]; k.disk.ID == m.Disk && k.offer() < more {
				return fmt.Errorf("%s more are needed on each of its disks; disk %s of node %s %s: %w",
					showBytes(more), m.Disk.Short(), k.node.Name, k.describe(), block.ErrNoCapacity)
			}
		}
	}
	return nil
}
