package driver

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// snapshotMetadataPrefixes are keys that the external-snapshotter adds when it runs
// with --extra-create-metadata. They name the VolumeSnapshot and change nothing.
func snapshotMetadataPrefixes() []string {
	return []string{"csi.storage.k8s.io/volumesnapshot/", "csi.storage.k8s.io/volumesnapshotcontent/"}
}

// CreateSnapshot keeps a volume as it is now. It is cut and ready when this answers.
func (c *controller) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if req.GetSourceVolumeId() == "" {
		return nil, invalid("no source volume ID given")
	}
	if err := parseName("snapshot", req.GetName()); err != nil {
		return nil, err
	}
	if err := parseSnapshotParameters(req.GetParameters()); err != nil {
		return nil, err
	}
	if _, err := block.ParseID(req.GetSourceVolumeId()); err != nil {
		return nil, notFound("volume %q does not exist", req.GetSourceVolumeId())
	}
	// Names of snapshots and of volumes are apart.
	done, err := c.running.begin("snapshot "+req.GetName(), req.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	snapshot, err := c.snapshots.CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{
		Name: req.GetName(), VolumeId: req.GetSourceVolumeId(),
	})
	if err != nil {
		return nil, fromDaemon(err, "create snapshot %q of volume %s", req.GetName(), req.GetSourceVolumeId())
	}
	if snapshot.GetVolumeId() != req.GetSourceVolumeId() {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %q exists, of volume %s", req.GetName(), snapshot.GetVolumeId())
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshotToCSI(snapshot)}, nil
}

// parseSnapshotParameters refuses parameters: snapshots have none.
func parseSnapshotParameters(given map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(snapshotMetadataPrefixes(), func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			return invalid("unknown parameter %q; snapshots have none", key)
		}
	}
	return nil
}

// DeleteSnapshot deletes a snapshot. One that does not exist is deleted already.
func (c *controller) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("no snapshot ID given")
	}
	if _, err := block.ParseID(req.GetSnapshotId()); err != nil {
		// What cannot be an ID names nothing.
		return &csi.DeleteSnapshotResponse{}, nil
	}
	done, err := c.running.begin(req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	defer done()
	_, err = c.snapshots.DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: req.GetSnapshotId()})
	if err != nil && status.Code(err) != codes.NotFound {
		return nil, fromDaemon(err, "delete snapshot %s", req.GetSnapshotId())
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// GetSnapshot describes one snapshot.
func (c *controller) GetSnapshot(ctx context.Context, req *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("no snapshot ID given")
	}
	snapshot, err := c.findSnapshot(ctx, req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: snapshotToCSI(snapshot)}, nil
}

// ListSnapshots lists the snapshots that are cut: all, those of a volume, or one. A
// filter that names nothing lists nothing.
func (c *controller) ListSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if req.GetMaxEntries() < 0 {
		return nil, invalid("max_entries is %d, below zero", req.GetMaxEntries())
	}
	var found []*holdfastv1.Snapshot
	var next string
	var err error
	if req.GetSnapshotId() != "" {
		var one *holdfastv1.Snapshot
		if one, err = c.findSnapshot(ctx, req.GetSnapshotId()); err == nil {
			found = append(found, one)
		}
	} else {
		found, next, err = c.snapshotPage(ctx, req)
	}
	if status.Code(err) == codes.NotFound {
		return &csi.ListSnapshotsResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	response := &csi.ListSnapshotsResponse{NextToken: next}
	for _, snapshot := range found {
		other := req.GetSourceVolumeId() != "" && snapshot.GetVolumeId() != req.GetSourceVolumeId()
		if snapshot.GetReady() && !other {
			response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotToCSI(snapshot)})
		}
	}
	return response, nil
}

// snapshotPage asks the daemon for the snapshots of a volume, or for all.
func (c *controller) snapshotPage(ctx context.Context, req *csi.ListSnapshotsRequest) ([]*holdfastv1.Snapshot, string, error) {
	if source := req.GetSourceVolumeId(); source != "" {
		if _, err := block.ParseID(source); err != nil {
			return nil, "", notFound("volume %q does not exist", source)
		}
	}
	return listPage(req.GetMaxEntries(), req.GetStartingToken(), "snapshots", func(maxEntries int32, token string) ([]*holdfastv1.Snapshot, string, error) {
		page, err := c.snapshots.ListSnapshots(ctx, &holdfastv1.ListSnapshotsRequest{
			VolumeId: req.GetSourceVolumeId(), MaxEntries: maxEntries, StartingToken: token,
		})
		return page.GetSnapshots(), page.GetNextToken(), err
	})
}

// snapshotToCSI describes a snapshot. It names no topology: it can be restored
// everywhere.
func snapshotToCSI(snapshot *holdfastv1.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: snapshot.GetId(), SourceVolumeId: snapshot.GetVolumeId(), SizeBytes: snapshot.GetSizeBytes(),
		CreationTime: snapshot.GetCreated(), ReadyToUse: snapshot.GetReady(),
	}
}
