package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// volumesService answers about volumes.
type volumesService struct {
	holdfastv1.UnimplementedVolumesServer
	cluster *Cluster
}

// CreateVolume implements holdfastv1.VolumesServer.
func (s volumesService) CreateVolume(ctx context.Context, req *holdfastv1.CreateVolumeRequest) (*holdfastv1.Volume, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.Volume, error) {
			v, err := s.cluster.createVolume(ctx, req)
			if err != nil {
				return nil, fmt.Errorf("create volume %q: %w", req.GetName(), err)
			}
			return showVolume(&v), nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.Volume, error) {
			return holdfastv1.NewVolumesClient(conn).CreateVolume(ctx, req)
		})
}

// createVolume decides on a placement, on the leader, and waits for the replicas.
func (c *Cluster) createVolume(ctx context.Context, req *holdfastv1.CreateVolumeRequest) (state.Volume, error) {
	if err := checkName(req.GetName()); err != nil {
		return state.Volume{}, err
	}
	size, err := checkSize(req.GetSizeBytes())
	if err != nil {
		return state.Volume{}, err
	}
	p, err := checkParameters(req.GetParameters())
	if err != nil {
		return state.Volume{}, err
	}
	waiting, cancel := endEarly(ctx)
	defer cancel()
	source, release, err := c.sourceOf(waiting, req)
	if err != nil {
		return state.Volume{}, err
	}
	defer release()
	v, err := c.placeVolume(ctx, state.CreateVolume{Name: req.GetName(), Size: size, Parameters: p, Source: source})
	if err != nil {
		return state.Volume{}, err
	}
	err = c.Wait(waiting, func(s *state.State) bool {
		current, ok := s.Volume(v.ID)
		if ok {
			v = current
		}
		return !ok || len(current.Pending) == 0
	})
	if err != nil {
		return state.Volume{}, fmt.Errorf("%d of %d replicas are not made yet, repeat the request to wait on: %w", len(v.Pending), p.Replicas, block.ErrUnavailable)
	}
	if current, ok := c.State().Volume(v.ID); !ok || current.Deleting {
		return state.Volume{}, fmt.Errorf("it was deleted meanwhile: %w", block.ErrUnavailable)
	}
	return v, nil
}

// endEarly ends a little before ctx does, so that there is time for an answer
// that says more than that the deadline has passed.
func endEarly(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	const share, most = 10, time.Second
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/share, most)))
}

// placeVolume makes the record that is wanted. One at a time, so that no two creations
// count on the same space.
func (c *Cluster) placeVolume(ctx context.Context, wanted state.CreateVolume) (state.Volume, error) {
	release, err := c.lockPlacement(ctx)
	if err != nil {
		return state.Volume{}, err
	}
	defer release()
	const attempts = 8
	for range attempts {
		s := c.State()
		command := wanted
		command.DecidedAt = s.Index()
		// A volume of this name is found by the state machine; it needs no room.
		if _, taken := s.VolumeByName(command.Name); !taken {
			if err := c.decide(s, &command); err != nil {
				return state.Volume{}, err
			}
		}
		r, err := c.do(ctx, command)
		if err == nil {
			return *r.Volume, nil
		}
		// Another volume of this name went away, or any was dropped, meanwhile.
		_, taken := s.VolumeByName(command.Name)
		if again := errors.Is(err, block.ErrConflict) || taken && errors.Is(err, block.ErrInvalid); !again {
			return state.Volume{}, err
		}
	}
	return state.Volume{}, fmt.Errorf("volumes come and go too fast: %w", block.ErrUnavailable)
}

// decide draws the IDs of a volume and chooses its disks.
func (c *Cluster) decide(s *state.State, command *state.CreateVolume) error {
	p := command.Parameters
	if n := s.NodeCount(); p.Replicas > n {
		return fmt.Errorf("%d replicas on different nodes are wanted, the cluster has %d: %w", p.Replicas, n, block.ErrNoCapacity)
	}
	id, err := block.NewID(c.options.Random)
	if err != nil {
		return err
	}
	command.Volume = block.VolumeID{ID: id}
	var shared, chosen []candidate
	if command.Source == nil {
		chosen, err = place(c.candidates(s), command.Size, p)
	} else if err = checkSource(s, command); err == nil {
		shared, chosen, err = placeCopy(c.candidates(s), command.Size, p, sharers(s, command.Source))
	}
	if err != nil {
		return err
	}
	for i, k := range append(shared, chosen...) {
		if id, err = block.NewID(c.options.Random); err != nil {
			return err
		}
		command.Replicas = append(command.Replicas, state.Placement{
			Replica: block.ReplicaID{ID: id}, Node: k.node.ID, Disk: k.disk.ID, Absent: command.Source != nil && i >= len(shared),
		})
	}
	return nil
}

// lockPlacement waits for the end of other decisions about space.
func (c *Cluster) lockPlacement(ctx context.Context) (release func(), err error) {
	select {
	case c.placing <- struct{}{}:
		return func() { <-c.placing }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other creations: %w: %w", ctx.Err(), block.ErrUnavailable)
	}
}

// PublishVolume implements holdfastv1.VolumesServer.
func (s volumesService) PublishVolume(ctx context.Context, req *holdfastv1.PublishVolumeRequest) (*holdfastv1.PublishVolumeResponse, error) {
	id, err := parseVolumeID(req.GetVolumeId())
	if err != nil {
		return nil, fmt.Errorf("publish volume: %w", err)
	}
	node, err := parseNodeID(req.GetNodeId())
	if err != nil {
		return nil, fmt.Errorf("publish volume %s: %w", id, err)
	}
	if err := s.cluster.publishVolume(ctx, state.Publish{Volume: id, Node: node}); err != nil {
		return nil, err
	}
	return &holdfastv1.PublishVolumeResponse{}, nil
}

// publishVolume waits for the engine that has borrowed the volume, if there is one, or
// that is to revert it, as long as there is time.
func (c *Cluster) publishVolume(ctx context.Context, command state.Publish) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	for {
		r, err := c.do(ctx, command)
		if !errors.Is(err, block.ErrUnavailable) || r.Volume == nil || !r.Volume.Borrowed() && !r.Volume.Reverting() {
			return err
		}
		waiting, cancel := endEarly(ctx)
		waitErr := c.Wait(waiting, func(s *state.State) bool {
			v, ok := s.Volume(command.Volume)
			return !ok || !v.Borrowed() && !v.Reverting()
		})
		cancel()
		if waitErr != nil {
			return c.notPublished(ctx, command.Volume, err)
		}
	}
}

// UnpublishVolume implements holdfastv1.VolumesServer.
func (s volumesService) UnpublishVolume(ctx context.Context, req *holdfastv1.UnpublishVolumeRequest) (*holdfastv1.UnpublishVolumeResponse, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.UnpublishVolumeResponse, error) {
			if err := s.cluster.unpublishVolume(ctx, req); err != nil {
				return nil, err
			}
			return &holdfastv1.UnpublishVolumeResponse{}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.UnpublishVolumeResponse, error) {
			return holdfastv1.NewVolumesClient(conn).UnpublishVolume(ctx, req)
		})
}

func (c *Cluster) unpublishVolume(ctx context.Context, req *holdfastv1.UnpublishVolumeRequest) error {
	id, err := parseVolumeID(req.GetVolumeId())
	if err != nil {
		return fmt.Errorf("unpublish volume: %w", err)
	}
	v, ok := c.State().Volume(id)
	if !ok {
		return fmt.Errorf("unpublish volume %s: %w", id, block.ErrNotFound)
	}
	node := v.Published
	if req.GetNodeId() != "" {
		if node, err = parseNodeID(req.GetNodeId()); err != nil {
			return fmt.Errorf("unpublish volume %s: %w", id, err)
		}
	}
	if node.IsZero() || node != v.Published {
		return nil
	}
	if v.View.Owner == node {
		if err := c.unstage(ctx, id, node); err != nil {
			return fmt.Errorf("unpublish volume %s: %w", id, err)
		}
	}
	_, err = c.do(ctx, state.Unpublish{Volume: id, Node: node, EndAttachment: true})
	return err
}

// unstage asks a node to let go of a volume. An error is the node's own answer
// that it will not. A node that does not answer in time is passed over: ending
// its attachment fences it.
func (c *Cluster) unstage(ctx context.Context, volume block.VolumeID, node block.NodeID) error {
	record, ok := c.State().Node(node)
	if !ok || !c.leases.alive(node) {
		c.logger.Warn("a volume is taken from a dead node", "volume", volume, "node", node)
		return nil
	}
	conn, err := c.peers.to(record.ControlAddress)
	if err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, c.options.Timing.Unstage)
	defer cancel()
	asked, stop := c.whileHeard(asked, node)
	defer stop()
	_, err = holdfastv1.NewNodeAgentClient(conn).UnstageVolume(asked, &holdfastv1.UnstageVolumeRequest{VolumeId: volume.String()})
	switch {
	case err == nil || ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, block.ErrUnavailable), asked.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		c.logger.Warn("a volume is taken from a node that does not let go of it", "volume", volume, "node", node, "error", err)
		return nil
	default:
		return fmt.Errorf("node %s: %w", record.Name, err)
	}
}

// whileHeard bounds a context by the silence of a node: one that has frozen or
// vanished never answers. stop ends the watching.
func (c *Cluster) whileHeard(ctx context.Context, node block.NodeID) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for c.leases.quietFor(node) < c.options.Timing.Silence && c.pause(ctx, c.options.Timing.Heartbeat/4) == nil {
		}
		cancel()
	})
	return ctx, func() {
		cancel()
		watching.Wait()
	}
}

// GetCapacity implements holdfastv1.VolumesServer.
func (s volumesService) GetCapacity(ctx context.Context, req *holdfastv1.GetCapacityRequest) (*holdfastv1.GetCapacityResponse, error) {
	return route(ctx, s.cluster,
		func(context.Context) (*holdfastv1.GetCapacityResponse, error) {
			resp, err := s.cluster.getCapacity(req)
			if err != nil {
				return nil, fmt.Errorf("get capacity: %w", err)
			}
			return resp, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.GetCapacityResponse, error) {
			return holdfastv1.NewVolumesClient(conn).GetCapacity(ctx, req)
		})
}

func (c *Cluster) getCapacity(req *holdfastv1.GetCapacityRequest) (*holdfastv1.GetCapacityResponse, error) {
	p, err := checkParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	var node block.NodeID
	if req.GetNodeId() != "" {
		if node, err = parseNodeID(req.GetNodeId()); err != nil {
			return nil, err
		}
	}
	total, largest := room(c.candidates(c.State()), p, node)
	return &holdfastv1.GetCapacityResponse{AvailableBytes: total, MaximumVolumeBytes: min(largest, block.MaxVolumeSize)}, nil
}
