package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// GetSnapshot implements holdfastv1.SnapshotsServer.
func (s snapshotsService) GetSnapshot(ctx context.Context, req *holdfastv1.GetSnapshotRequest) (*holdfastv1.Snapshot, error) {
	c := s.cluster
	if req.GetId() == "" && req.GetName() == "" {
		return nil, fmt.Errorf("get snapshot: an ID or a name must be given: %w", block.ErrInvalid)
	}
	var id block.SnapshotID
	if req.GetId() != "" {
		var err error
		if id, err = parseSnapshotID(req.GetId()); err != nil {
			return nil, fmt.Errorf("get snapshot: %w", err)
		}
	}
	if err := c.Sync(ctx); err != nil {
		return nil, fmt.Errorf("get snapshot: %w", err)
	}
	r, ok := c.State().Snapshot(id)
	if req.GetId() == "" {
		r, ok = c.State().SnapshotByName(req.GetName())
	}
	if !ok {
		return nil, fmt.Errorf("get snapshot %s%s: %w", req.GetId(), req.GetName(), block.ErrNotFound)
	}
	shown := showSnapshot(&r)
	if req.GetWithUsage() {
		c.addUsage(ctx, []state.Snapshot{r}, []*holdfastv1.Snapshot{shown})
	}
	return shown, nil
}

// ListSnapshots implements holdfastv1.SnapshotsServer.
func (s snapshotsService) ListSnapshots(ctx context.Context, req *holdfastv1.ListSnapshotsRequest) (*holdfastv1.ListSnapshotsResponse, error) {
	resp, err := s.cluster.listSnapshots(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return resp, nil
}

func (c *Cluster) listSnapshots(ctx context.Context, req *holdfastv1.ListSnapshotsRequest) (*holdfastv1.ListSnapshotsResponse, error) {
	entries := int(req.GetMaxEntries())
	if entries < 0 {
		return nil, fmt.Errorf("%d entries: %w", entries, block.ErrInvalid)
	}
	var only block.VolumeID
	var after block.SnapshotID
	var err error
	if req.GetVolumeId() != "" {
		if only, err = parseVolumeID(req.GetVolumeId()); err != nil {
			return nil, err
		}
	}
	if req.GetStartingToken() != "" {
		if after, err = parseSnapshotID(req.GetStartingToken()); err != nil {
			return nil, fmt.Errorf("starting token: %w", err)
		}
	}
	if err := c.Sync(ctx); err != nil {
		return nil, err
	}
	resp := &holdfastv1.ListSnapshotsResponse{}
	var page []state.Snapshot
	for r := range c.State().SnapshotsAfter(after) {
		if !only.IsZero() && r.Volume != only {
			continue
		}
		if entries > 0 && len(page) == entries {
			resp.NextToken = page[entries-1].ID.String()
			break
		}
		page = append(page, r)
		resp.Snapshots = append(resp.Snapshots, showSnapshot(&r))
	}
	if req.GetWithUsage() {
		c.addUsage(ctx, page, resp.GetSnapshots())
	}
	return resp, nil
}

func showSnapshot(r *state.Snapshot) *holdfastv1.Snapshot {
	return &holdfastv1.Snapshot{
		Id: r.ID.String(), Name: r.Name, VolumeId: r.Volume.String(), SizeBytes: r.Size, Ready: r.Ready(),
		Created: timestamppb.New(time.UnixMilli(r.Created)),
	}
}

// addUsage asks, volume by volume, a node with an in-sync replica what the snapshots
// take there. What cannot be had is left out.
func (c *Cluster) addUsage(ctx context.Context, page []state.Snapshot, shown []*holdfastv1.Snapshot) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	ctx, early := endEarly(ctx)
	defer early()
	byVolume := map[block.VolumeID][]int{}
	for i := range page {
		if page[i].Ready() {
			byVolume[page[i].Volume] = append(byVolume[page[i].Volume], i)
		}
	}
	for volume, indices := range byVolume {
		var ids []string
		for _, i := range indices {
			ids = append(ids, page[i].ID.String())
		}
		for n, usage := range c.usage(ctx, volume, ids) {
			shown[indices[n]].Usage = usage
		}
	}
}

// usage is what the first member that answers says, nil if none does.
func (c *Cluster) usage(ctx context.Context, volume block.VolumeID, snapshots []string) (usages []*holdfastv1.SnapshotUsage) {
	v, _ := c.State().Volume(volume)
	c.onMember(ctx, &v, func(ctx context.Context, agent holdfastv1.NodeAgentClient, replica block.ReplicaID) error {
		resp, err := agent.GetSnapshotUsage(ctx, &holdfastv1.GetSnapshotUsageRequest{ReplicaId: replica.String(), SnapshotIds: snapshots})
		if err == nil && len(resp.GetUsages()) != len(snapshots) {
			err = fmt.Errorf("%d answers to %d questions: %w", len(resp.GetUsages()), len(snapshots), block.ErrProtocol)
		}
		usages = resp.GetUsages()
		return err
	})
	return usages
}
