package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// This file is the trash of the canned cluster, and what its volumes take: a quarter of
// their size, and a MiB for each snapshot.

func inTrash(v *holdfastv1.Volume) bool { return v.State == holdfastv1.Volume_TRASHED }

func (c *cannedCluster) byName(name string) (*holdfastv1.Volume, error) {
	return c.find(func(v *holdfastv1.Volume) bool { return v.Name == name && !inTrash(v) })
}

// weighed is a volume with its usage, if that was asked for.
func weighed(v *holdfastv1.Volume, withUsage bool) *holdfastv1.Volume {
	if v == nil || !withUsage {
		return v
	}
	answer := proto.Clone(v).(*holdfastv1.Volume)
	answer.Usage = &holdfastv1.VolumeUsage{UsedBytes: v.SizeBytes / 4, SnapshotBytes: int64(v.SnapshotCount) << 20}
	return answer
}

// discard puts a volume into the trash.
func (d *cannedDaemon) discard(id string, keep int64) (*holdfastv1.DeleteVolumeResponse, error) {
	v, err := d.byID(id)
	if err != nil {
		return nil, err
	}
	v.State, v.TrashedAt = holdfastv1.Volume_TRASHED, d.tick()
	v.PurgedAt = timestamppb.New(v.TrashedAt.AsTime().Add(time.Duration(keep) * time.Second))
	return &holdfastv1.DeleteVolumeResponse{PurgedAt: v.PurgedAt}, nil
}

// bury deletes a volume for good.
func (d *cannedDaemon) bury(id string) {
	d.snapshots = slices.DeleteFunc(d.snapshots, func(s *holdfastv1.Snapshot) bool { return s.VolumeId == id })
	d.volumes = slices.DeleteFunc(d.volumes, func(v *holdfastv1.Volume) bool { return v.Id == id })
}

func (d *cannedDaemon) RestoreVolume(_ context.Context, req *holdfastv1.RestoreVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.Id)
	if err != nil {
		return nil, err
	}
	name := newName(v, req.Name)
	if _, err := d.byName(name); err == nil {
		return nil, status.Errorf(codes.AlreadyExists, "restore volume %s: its name %q was taken", v.Id, name)
	}
	v.Name, v.State, v.TrashedAt, v.PurgedAt = name, holdfastv1.Volume_READY, nil, nil
	return v, nil
}

func (d *cannedDaemon) PurgeVolume(_ context.Context, req *holdfastv1.PurgeVolumeRequest) (*holdfastv1.PurgeVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bury(req.Id)
	return &holdfastv1.PurgeVolumeResponse{}, nil
}

func (d *cannedDaemon) SetVolume(_ context.Context, req *holdfastv1.SetVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.Id)
	if err == nil && req.MaxSnapshotSpace != nil {
		v.MaxSnapshotSpace = req.MaxSnapshotSpace
	}
	return v, err
}

func TestSpaceLimitFlag(t *testing.T) {
	for text, want := range map[string]string{"none": "any amount", "50%": "50% of its size", "20GiB": "20GiB", "20Gi": "20GiB", "1000%": "1000% of its size"} {
		var l spaceLimit
		if err := l.Set(text); err != nil || l.forPeople() != want {
			t.Errorf("%s is read as %s, %v", text, l.forPeople(), err)
		}
	}
	for _, text := range []string{"", "0", "0%", "1001%", "-5%", "1.5%", "much"} {
		var l spaceLimit
		if err := l.Set(text); err == nil {
			t.Errorf("%q is read as %s", text, l.forPeople())
		}
	}
}
