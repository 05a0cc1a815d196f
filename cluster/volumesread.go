package cluster

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// GetVolume implements holdfastv1.VolumesServer.
func (s volumesService) GetVolume(ctx context.Context, req *holdfastv1.GetVolumeRequest) (*holdfastv1.Volume, error) {
	c := s.cluster
	if req.GetId() == "" && req.GetName() == "" {
		return nil, fmt.Errorf("get volume: an ID or a name must be given: %w", block.ErrInvalid)
	}
	var id block.VolumeID
	if req.GetId() != "" {
		var err error
		if id, err = parseVolumeID(req.GetId()); err != nil {
			return nil, fmt.Errorf("get volume: %w", err)
		}
	}
	if err := c.Sync(ctx); err != nil {
		return nil, fmt.Errorf("get volume: %w", err)
	}
	v, ok := c.State().Volume(id)
	if req.GetId() == "" {
		v, ok = c.State().VolumeByName(req.GetName())
	}
	if !ok {
		return nil, fmt.Errorf("get volume %s%s: %w", req.GetId(), req.GetName(), block.ErrNotFound)
	}
	shown := showVolume(&v)
	c.addScrubs([]*holdfastv1.Volume{shown})
	c.addEngines(ctx, []state.Volume{v}, []*holdfastv1.Volume{shown})
	if req.GetWithUsage() {
		c.addVolumeUsage(ctx, []state.Volume{v}, []*holdfastv1.Volume{shown})
	}
	return shown, nil
}

// ListVolumes implements holdfastv1.VolumesServer.
func (s volumesService) ListVolumes(ctx context.Context, req *holdfastv1.ListVolumesRequest) (*holdfastv1.ListVolumesResponse, error) {
	c := s.cluster
	if req.GetMaxEntries() < 0 {
		return nil, fmt.Errorf("list volumes: %d entries: %w", req.GetMaxEntries(), block.ErrInvalid)
	}
	entries := int(req.GetMaxEntries())
	var after block.VolumeID
	if req.GetStartingToken() != "" {
		var err error
		if after, err = parseVolumeID(req.GetStartingToken()); err != nil {
			return nil, fmt.Errorf("list volumes: starting token: %w", err)
		}
	}
	if err := c.Sync(ctx); err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	resp := &holdfastv1.ListVolumesResponse{}
	var page []state.Volume
	for v := range c.State().VolumesAfter(after) {
		if v.InTrash() != req.GetTrash() {
			continue
		}
		if entries > 0 && len(page) == entries {
			resp.NextToken = page[entries-1].ID.String()
			break
		}
		page = append(page, v)
		resp.Volumes = append(resp.Volumes, showVolume(&v))
	}
	c.addScrubs(resp.GetVolumes())
	c.addEngines(ctx, page, resp.GetVolumes())
	if req.GetWithUsage() {
		c.addVolumeUsage(ctx, page, resp.GetVolumes())
	}
	return resp, nil
}

func showVolume(v *state.Volume) *holdfastv1.Volume {
	p := v.Parameters
	shown := &holdfastv1.Volume{
		Id: v.ID.String(), Name: v.Name, SizeBytes: v.View.Size, State: holdfastv1.Volume_READY,
		Parameters: &holdfastv1.VolumeParameters{
			Replicas: int32(p.Replicas), MinInSync: int32(p.MinInSync),
			DiskClass: p.DiskClass, DiskTags: p.DiskTags, NodeTags: p.NodeTags,
			MaxSnapshots: int32(p.SnapshotsMax), MaxSnapshotSpace: showLimit(p.SnapshotSpace),
		},
		Epoch: uint64(v.View.Epoch), Revision: uint64(v.View.Revision),
		MaxSnapshotSpace: showLimit(v.SnapshotSpaceLimit()),
		TrashedAt:        timestamp(v.Trashed.Since), PurgedAt: timestamp(v.Trashed.Until),
		ExpandingToBytes: v.GrowTo, SnapshotCount: int32(len(v.View.Snapshots)),
		Revert: showRevert(v.Revert),
	}
	switch {
	case v.Source == nil:
	case v.Source.Clone:
		shown.SourceVolumeId = v.Source.Volume.String()
	default:
		shown.SourceSnapshotId = v.Source.Snapshot.String()
	}
	switch {
	case v.Deleting:
		shown.State = holdfastv1.Volume_DELETING
	case v.InTrash():
		shown.State = holdfastv1.Volume_TRASHED
	case len(v.Pending) > 0:
		shown.State = holdfastv1.Volume_CREATING
	}
	if !v.Published.IsZero() {
		shown.PublishedNodeId = v.Published.String()
	}
	if !v.View.Attachment.IsZero() {
		shown.AttachmentId = v.View.Attachment.String()
	}
	for _, m := range v.View.Replicas {
		shown.Replicas = append(shown.Replicas, &holdfastv1.Replica{
			Id: m.ID.String(), NodeId: m.Node.String(), DiskId: m.Disk.String(), InSync: m.InSync, Ready: !v.IsPending(m.ID),
			Leaving: v.ReplacementOf(m.ID) != nil,
		})
	}
	return shown
}

// addEngines asks the owners for the status of the engines, a few at a time and
// not for long. What does not answer is left out.
func (c *Cluster) addEngines(ctx context.Context, volumes []state.Volume, shown []*holdfastv1.Volume) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timing.EngineStatus)
	defer cancel()
	const askers = 8
	inParallel(len(volumes), askers, func(i int) {
		if !volumes[i].View.Owner.IsZero() {
			shown[i].Engine = c.engineStatus(ctx, &volumes[i])
		}
	})
}

func (c *Cluster) engineStatus(ctx context.Context, v *state.Volume) *holdfastv1.EngineStatus {
	node, ok := c.State().Node(v.View.Owner)
	if !ok {
		return nil
	}
	conn, err := c.peers.to(node.ControlAddress)
	if err != nil {
		return nil
	}
	status, err := holdfastv1.NewNodeAgentClient(conn).GetEngine(ctx, &holdfastv1.GetEngineRequest{VolumeId: v.ID.String()})
	if err != nil {
		c.logger.Debug("the status of an engine cannot be had", "volume", v.ID, "node", node.ID, "error", err)
		return nil
	}
	return status
}
