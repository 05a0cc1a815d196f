package main

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// This file is the Snapshots service of the canned cluster, and what snapshots do to
// its volumes. The nth snapshot is made n minutes after midnight and holds n MiB.

func (c *cannedCluster) findSnapshot(match func(s *holdfastv1.Snapshot) bool) (*holdfastv1.Snapshot, error) {
	i := slices.IndexFunc(c.snapshots, match)
	if i < 0 {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return c.snapshots[i], nil
}

func (d *cannedDaemon) CreateSnapshot(_ context.Context, req *holdfastv1.CreateSnapshotRequest) (*holdfastv1.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.VolumeId)
	if err != nil {
		return nil, err
	}
	if s, err := d.findSnapshot(func(s *holdfastv1.Snapshot) bool { return s.Name == req.Name }); err == nil {
		if s.VolumeId == req.VolumeId {
			return s, nil
		}
		return nil, status.Errorf(codes.AlreadyExists, "create snapshot %q: already exists, of another volume", req.Name)
	}
	if v.GetMaxSnapshotSpace().GetBytes() == 1 {
		return nil, status.Errorf(codes.ResourceExhausted, "create snapshot %q: the %d snapshots of volume %q hold 1 MiB and may hold 0 MiB", req.Name, v.SnapshotCount, v.Name)
	}
	d.cut++
	v.SnapshotCount++
	s := &holdfastv1.Snapshot{
		Id: id("s", d.cut), Name: req.Name, VolumeId: v.Id, SizeBytes: v.SizeBytes, Ready: true,
		Created: timestamppb.New(time.Date(2026, time.November, 29, 0, d.cut, 0, 0, time.UTC)),
	}
	d.snapshots = append(d.snapshots, s)
	return s, nil
}

func (d *cannedDaemon) DeleteSnapshot(_ context.Context, req *holdfastv1.DeleteSnapshotRequest) (*holdfastv1.DeleteSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, err := d.findSnapshot(func(s *holdfastv1.Snapshot) bool { return s.Id == req.Id }); err == nil {
		if v, err := d.byID(s.VolumeId); err == nil {
			v.SnapshotCount--
		}
	}
	d.snapshots = slices.DeleteFunc(d.snapshots, func(s *holdfastv1.Snapshot) bool { return s.Id == req.Id })
	return &holdfastv1.DeleteSnapshotResponse{}, nil
}

func (d *cannedDaemon) GetSnapshot(_ context.Context, req *holdfastv1.GetSnapshotRequest) (*holdfastv1.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.findSnapshot(func(s *holdfastv1.Snapshot) bool { return s.Id == req.Id || req.Id == "" && s.Name == req.Name })
	if err != nil {
		return nil, err
	}
	return d.measured(s, req.WithUsage), nil
}

// ListSnapshots answers one snapshot a page, so that paging is seen to work.
func (d *cannedDaemon) ListSnapshots(_ context.Context, req *holdfastv1.ListSnapshotsRequest) (*holdfastv1.ListSnapshotsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.findSnapshot(func(s *holdfastv1.Snapshot) bool {
		return s.Id > req.StartingToken && (req.VolumeId == "" || req.VolumeId == s.VolumeId)
	})
	if err != nil {
		return &holdfastv1.ListSnapshotsResponse{}, nil
	}
	return &holdfastv1.ListSnapshotsResponse{Snapshots: []*holdfastv1.Snapshot{d.measured(s, req.WithUsage)}, NextToken: s.Id}, nil
}

// measured is a snapshot with its usage, if that was asked for.
func (d *cannedDaemon) measured(s *holdfastv1.Snapshot, withUsage bool) *holdfastv1.Snapshot {
	answer := proto.Clone(s).(*holdfastv1.Snapshot)
	if withUsage {
		n := int64(answer.Created.AsTime().Minute()) << 20
		answer.Usage = &holdfastv1.SnapshotUsage{UniqueBytes: n, FreedIfDeletedBytes: n / 2}
	}
	return answer
}

func (d *cannedDaemon) RevertVolume(_ context.Context, req *holdfastv1.RevertVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.Id)
	if err != nil {
		return nil, err
	}
	if r := v.Revert; r != nil && !r.Done {
		return v, nil
	}
	v.Revision++
	v.Revert = &holdfastv1.RevertStatus{SnapshotId: req.SnapshotId, Done: true}
	if !req.DiscardHead {
		v.Revert.KeptAs = "before-revert-20261129-000000"
	}
	return v, nil
}

// reverting is a volume of which a revert has come so far.
func (c *cannedCluster) reverting(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.volumes {
		if v.Name == name {
			of := slices.IndexFunc(c.snapshots, func(s *holdfastv1.Snapshot) bool { return s.VolumeId == v.Id })
			v.Revert = &holdfastv1.RevertStatus{SnapshotId: c.snapshots[of].Id, KeptAs: "before-revert-20261129-000000"}
			v.Engine = &holdfastv1.EngineStatus{Serving: true, Revert: &holdfastv1.RevertProgress{DoneBytes: 1 << 30, TotalBytes: 4 << 30}}
		}
	}
}
