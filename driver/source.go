package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// This file holds what a volume is made from: a snapshot, or another volume as it
// is at that moment.

// parseSource reads the source of a new volume; at most one of the IDs is set.
func parseSource(source *csi.VolumeContentSource) (snapshotID, volumeID string, err error) {
	if source == nil {
		return "", "", nil
	}
	switch {
	case source.GetSnapshot() != nil:
		snapshotID = source.GetSnapshot().GetSnapshotId()
	case source.GetVolume() != nil:
		volumeID = source.GetVolume().GetVolumeId()
	default:
		return "", "", invalid("the volume content source is neither a snapshot nor a volume")
	}
	if snapshotID+volumeID == "" {
		return "", "", invalid("the volume content source has no ID")
	}
	return snapshotID, volumeID, nil
}

// sourceOf describes what a volume was made from, nil if it began as zeros.
func sourceOf(volume *holdfastv1.Volume) *csi.VolumeContentSource {
	switch {
	case volume.GetSourceSnapshotId() != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: volume.GetSourceSnapshotId()},
		}}
	case volume.GetSourceVolumeId() != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume.GetSourceVolumeId()},
		}}
	default:
		return nil
	}
}

// origin says the same to people.
func origin(volume *holdfastv1.Volume) string {
	switch {
	case volume.GetSourceSnapshotId() != "":
		return "snapshot " + volume.GetSourceSnapshotId()
	case volume.GetSourceVolumeId() != "":
		return "volume " + volume.GetSourceVolumeId()
	default:
		return "nothing"
	}
}

// sourceSize is the size in bytes of what a volume is to be made from; NOT_FOUND if
// there is no such thing.
func (c *controller) sourceSize(ctx context.Context, create *holdfastv1.CreateVolumeRequest) (int64, error) {
	if create.GetSourceVolumeId() != "" {
		volume, err := c.findVolume(ctx, create.GetSourceVolumeId())
		return volume.GetSizeBytes(), err
	}
	snapshot, err := c.findSnapshot(ctx, create.GetSourceSnapshotId())
	return snapshot.GetSizeBytes(), err
}

// sizeFrom chooses the size of a volume that is made from something: what is
// required, but no less than the source, which is also the size if none is.
func sizeFrom(capacity *csi.CapacityRange, source int64) (int64, error) {
	if required := capacity.GetRequiredBytes(); required > 0 && required < source {
		return 0, status.Errorf(codes.OutOfRange, "%d bytes required: the source of the volume has %d, and a volume cannot be smaller than its source",
			required, source)
	}
	return parseSize(capacity, source, source)
}

// findSnapshot finds a snapshot; NOT_FOUND if there is none.
func (d daemon) findSnapshot(ctx context.Context, id string) (*holdfastv1.Snapshot, error) {
	if _, err := block.ParseID(id); err != nil {
		return nil, notFound("snapshot %q does not exist", id)
	}
	snapshot, err := d.snapshots.GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Id: id})
	if err != nil {
		return nil, fromDaemon(err, "find snapshot %s", id)
	}
	return snapshot, nil
}
