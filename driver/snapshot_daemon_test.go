package driver

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// This file is the Snapshots service of the scripted daemon: what snapshot.proto
// says, for the one volume there is and for otherVolume, which has no size.

const otherVolume = "fedcba9876543210fedcba9876543210"

// snapshotID is the ID of the nth snapshot that is made.
func snapshotID(n int) string { return fmt.Sprintf("%032x", 0x5000+n) }

func (d *scriptedDaemon) snapshot(match func(s *holdfastv1.Snapshot) bool) *holdfastv1.Snapshot {
	if i := slices.IndexFunc(d.snapshots, match); i >= 0 {
		return d.snapshots[i]
	}
	return nil
}

func (d *scriptedDaemon) CreateSnapshot(ctx context.Context, req *holdfastv1.CreateSnapshotRequest) (*holdfastv1.Snapshot, error) {
	if err := d.enter(ctx, "CreateSnapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.VolumeId != d.volume.GetId() && req.VolumeId != otherVolume {
		return nil, status.Errorf(codes.NotFound, "volume %s not found", req.VolumeId)
	}
	if s := d.snapshot(func(s *holdfastv1.Snapshot) bool { return s.Name == req.Name }); s != nil {
		if s.VolumeId != req.VolumeId {
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %q is one of volume %s", req.Name, s.VolumeId)
		}
		return s, nil
	}
	s := &holdfastv1.Snapshot{
		Id: snapshotID(len(d.snapshots)), Name: req.Name, VolumeId: req.VolumeId, Created: timestamppb.Now(), Ready: true,
	}
	if req.VolumeId == d.volume.GetId() {
		s.SizeBytes = d.volume.GetSizeBytes()
		d.volume.SnapshotCount++
	}
	d.snapshots = append(d.snapshots, s)
	return s, nil
}

func (d *scriptedDaemon) DeleteSnapshot(ctx context.Context, req *holdfastv1.DeleteSnapshotRequest) (*holdfastv1.DeleteSnapshotResponse, error) {
	if err := d.enter(ctx, "DeleteSnapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.snapshots = slices.DeleteFunc(d.snapshots, func(s *holdfastv1.Snapshot) bool {
		gone := s.Id == req.Id
		if gone && s.VolumeId == d.volume.GetId() {
			d.volume.SnapshotCount--
		}
		return gone
	})
	return &holdfastv1.DeleteSnapshotResponse{}, nil
}

func (d *scriptedDaemon) GetSnapshot(ctx context.Context, req *holdfastv1.GetSnapshotRequest) (*holdfastv1.Snapshot, error) {
	if err := d.enter(ctx, "GetSnapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.snapshot(func(s *holdfastv1.Snapshot) bool {
		return s.Id == req.Id || req.Id == "" && s.Name == req.Name
	})
	if s == nil {
		return nil, status.Errorf(codes.NotFound, "snapshot %s not found", req.Id)
	}
	return s, nil
}

func (d *scriptedDaemon) ListSnapshots(ctx context.Context, req *holdfastv1.ListSnapshotsRequest) (*holdfastv1.ListSnapshotsResponse, error) {
	if err := d.enter(ctx, "ListSnapshots"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.StartingToken != "" && len(req.StartingToken) != len(testVolume) {
		return nil, status.Errorf(codes.InvalidArgument, "%q is no token", req.StartingToken)
	}
	response := &holdfastv1.ListSnapshotsResponse{}
	for _, s := range d.snapshots {
		if s.Id <= req.StartingToken || req.VolumeId != "" && s.VolumeId != req.VolumeId {
			continue
		}
		if req.MaxEntries > 0 && len(response.Snapshots) == int(req.MaxEntries) {
			response.NextToken = response.Snapshots[req.MaxEntries-1].Id
			break
		}
		response.Snapshots = append(response.Snapshots, s)
	}
	return response, nil
}
