package driver

import (
	"context"
	"fmt"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// volumeHealth tells what is wrong with a volume; no entries if nothing is.
func volumeHealth(volume *holdfastv1.Volume) *csi.VolumeHealth {
	health := &csi.VolumeHealth{VolumeId: volume.GetId()}
	var inSync int32
	for _, replica := range volume.GetReplicas() {
		if replica.GetInSync() {
			inSync++
		}
	}
	if want := volume.GetParameters().GetReplicas(); inSync < want {
		health.HealthStatuses = append(health.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
			Status:  csi.VolumeHealthErrorType_DEGRADED,
			Reason:  "ReplicasNotInSync",
			Message: fmt.Sprintf("%d of %d replicas are in sync", inSync, want),
		})
	}
	health.HealthStatuses = append(health.HealthStatuses, engineHealth(volume.GetEngine())...)
	return health
}

// engineHealth tells what is wrong with a serving engine.
func engineHealth(engine *holdfastv1.EngineStatus) []*csi.VolumeHealth_VolumeHealthEntry {
	if engine.GetFrozen() == "" {
		return nil
	}
	return []*csi.VolumeHealth_VolumeHealthEntry{{
		Status:  csi.VolumeHealthErrorType_INACCESSIBLE,
		Reason:  "IOWaits",
		Message: "I/O waits: " + engine.GetFrozen(),
	}}
}

// ControllerGetVolumeHealth tells how a volume is.
func (c *controller) ControllerGetVolumeHealth(ctx context.Context, req *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("no volume ID given")
	}
	volume, err := c.findVolume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: volumeHealth(volume)}, nil
}

// ControllerListVolumeHealth lists the volumes with which something is wrong. A
// page may hold fewer entries than asked for: it covers that many volumes.
func (c *controller) ControllerListVolumeHealth(ctx context.Context, req *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	volumes, next, err := c.volumePage(ctx, req.GetMaxEntries(), req.GetStartingToken())
	if err != nil {
		return nil, err
	}
	response := &csi.ControllerListVolumeHealthResponse{NextToken: next}
	for _, volume := range volumes {
		if volume.GetState() != holdfastv1.Volume_READY {
			continue
		}
		if health := volumeHealth(volume); len(health.GetHealthStatuses()) > 0 {
			response.Entries = append(response.Entries, health)
		}
	}
	return response, nil
}

// NodeGetVolumeHealth tells how a volume is as seen from this node.
func (n *node) NodeGetVolumeHealth(ctx context.Context, req *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("no volume ID given")
	}
	volume, err := n.findVolume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	health := volumeHealth(volume)
	mounts, err := n.mountsOf(volume.GetId())
	if err != nil {
		return nil, err
	}
	for _, point := range mounts {
		if point.Device.Attachment.String() != volume.GetAttachmentId() {
			health.HealthStatuses = append(health.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
				Status:  csi.VolumeHealthErrorType_INACCESSIBLE,
				Reason:  "AttachmentEnded",
				Message: point.Path + " is mounted from an attachment that has ended; restart the pods that use it",
			})
			break
		}
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// NodeGetStorageHealth tells which disks of this node have failed.
func (n *node) NodeGetStorageHealth(ctx context.Context, _ *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	self, err := n.agent.GetNode(ctx, &holdfastv1.GetNodeRequest{})
	if err != nil {
		return nil, fromDaemon(err, "describe the node")
	}
	disks, err := n.cluster.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		return nil, fromDaemon(err, "list disks")
	}
	var failed []string
	for _, disk := range disks.GetDisks() {
		if disk.GetNodeId() == self.GetId() && disk.GetFailure() != "" {
			failed = append(failed, disk.GetPath()+": "+disk.GetFailure())
		}
	}
	response := &csi.NodeGetStorageHealthResponse{}
	if len(failed) > 0 {
		// One entry, because status and reason may occur together only once.
		response.BackendHealth = append(response.BackendHealth, &csi.NodeGetStorageHealthResponse_StorageBackendHealth{
			Status:  csi.StorageHealthErrorType_STORAGE_DEGRADED,
			Reason:  "DiskFailed",
			Message: strings.Join(failed, "; "),
		})
	}
	return response, nil
}
