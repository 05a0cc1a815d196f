package driver

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/mount"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// mounter is what the node service needs done to the file system tree.
type mounter interface {
	Mounts(devices mount.Devices) ([]mount.Point, error)
	IsMounted(path string) (bool, error)
	FormatAndMount(ctx context.Context, r mount.Request) error
	Grow(ctx context.Context, device, target, fsType string) error
	Trim(ctx context.Context, target string) (string, error)
	Bind(source, target string, readOnly bool) error
	Unmount(target string) error
	FileSystemUsage(path string) (mount.Usage, error)
	DeviceSize(path string) (int64, error)
}

// node is the CSI Node service.
type node struct {
	csi.UnimplementedNodeServer
	daemon
	mounter mounter
	devices mount.Devices
	running *inFlight
}

// NodeGetCapabilities announces what is implemented.
func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return response, nil
}

// NodeGetInfo names the node as the cluster knows it.
func (n *node) NodeGetInfo(ctx context.Context, _ *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	self, err := n.agent.GetNode(ctx, &holdfastv1.GetNodeRequest{})
	if err != nil {
		return nil, fromDaemon(err, "describe the node")
	}
	return &csi.NodeGetInfoResponse{
		NodeId:             self.GetId(),
		AccessibleTopology: &csi.Topology{Segments: map[string]string{TopologyKey: self.GetName()}},
	}, nil
}

// NodeStageVolume makes the volume a block device of this node and, unless the
// device itself is wanted, mounts its file system at the staging path.
func (n *node) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetStagingTargetPath() == "":
		return nil, invalid("no staging target path given")
	}
	a, err := parseCapability(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	done, err := n.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	volume, err := n.findVolume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	staging := mount.Resolve(req.GetStagingTargetPath())
	staged, err := n.checkStaged(volume, staging, a)
	if err != nil {
		return nil, err
	}
	name, err := n.stageDevice(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if a.block {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if !staged {
		if err := n.mountStaging(ctx, name, staging, a); err != nil {
			return nil, err
		}
	}
	// A volume that was restored into a larger one has a file system to grow, also if
	// a call before this one got no further than mounting it.
	if !a.readOnly {
		if err := n.mounter.Grow(ctx, n.devices.Path(name), staging, a.fsType); err != nil {
			return nil, fromMount(err, "stage volume %s", req.GetVolumeId())
		}
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// mountStaging mounts the file system of a device at the staging path.
func (n *node) mountStaging(ctx context.Context, name mount.DeviceName, staging string, a access) error {
	options := a.options
	if a.readOnly {
		options = append(options, "ro")
	}
	if err := makeDirectory(staging); err != nil {
		return status.Errorf(codes.Internal, "make staging path: %v", err)
	}
	err := n.mounter.FormatAndMount(ctx, mount.Request{
		Device: n.devices.Path(name), Target: staging, FSType: a.fsType, Options: options, UUID: name.UUID(),
	})
	if err != nil {
		return fromMount(err, "stage volume %s", name.Volume)
	}
	klog.FromContext(ctx).Info("Volume mounted", "path", staging, "attachment", name.Attachment)
	return nil
}

// checkStaged looks at what is mounted before anything is done: it reports whether
// the volume is mounted at the staging path already.
func (n *node) checkStaged(volume *holdfastv1.Volume, staging string, a access) (bool, error) {
	points, err := n.mountsNow(volume, "stage")
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(points, func(p mount.Point) bool { return p.Path == staging })
	if i < 0 {
		return false, n.checkFree(staging)
	}
	if p := points[i]; a.block || p.FSType != a.fsType || p.ReadOnly != a.readOnly {
		return false, status.Errorf(codes.AlreadyExists,
			"stage volume %s: mounted at %s already as %s with read-only=%v; unstage it first", volume.GetId(), staging, p.FSType, p.ReadOnly)
	}
	return true, nil
}

// mountsNow lists the mounts of a volume and refuses those that belong to an
// attachment that has ended. Mounting over them, or going on with them, would let old
// dirty pages meet a newer volume.
func (n *node) mountsNow(volume *holdfastv1.Volume, op string) ([]mount.Point, error) {
	points, err := n.mountsOf(volume.GetId())
	if err != nil {
		return nil, err
	}
	var stale []string
	for _, p := range points {
		if p.Device.Attachment.String() != volume.GetAttachmentId() {
			stale = append(stale, p.Path)
		}
	}
	if len(stale) > 0 {
		return nil, failedPrecondition("%s volume %s: still mounted from an attachment that has ended: %s; "+
			"stop the pods that use it, so that these paths are unpublished and unstaged, and stage it again",
			op, volume.GetId(), strings.Join(stale, ", "))
	}
	return points, nil
}

// checkFree refuses a path at which something else is mounted.
func (n *node) checkFree(path string) error {
	mounted, err := n.mounter.IsMounted(path)
	if err != nil {
		return status.Errorf(codes.Internal, "%v", err)
	}
	if mounted {
		return failedPrecondition("something other than this volume is mounted at %s; unmount it first", path)
	}
	return nil
}

// stageDevice has the daemon show the volume as a device and names that after its
// attachment.
func (n *node) stageDevice(ctx context.Context, volumeID string) (mount.DeviceName, error) {
	staged, err := n.agent.StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: volumeID})
	if err != nil {
		return mount.DeviceName{}, fromDaemon(err, "stage volume %s", volumeID)
	}
	var name mount.DeviceName
	if name.Volume.ID, err = block.ParseID(volumeID); err != nil {
		return mount.DeviceName{}, status.Errorf(codes.Internal, "stage volume %s: %v", volumeID, err)
	}
	if name.Attachment.ID, err = block.ParseID(staged.GetAttachmentId()); err != nil {
		return mount.DeviceName{}, status.Errorf(codes.Internal, "stage volume %s: the daemon's attachment: %v", volumeID, err)
	}
	if !filepath.IsAbs(staged.GetDevicePath()) {
		return mount.DeviceName{}, failedPrecondition("stage volume %s: the daemon of this node shows it as %s, which is not a block device "+
			"and cannot be mounted; start that daemon without --frontend socket", volumeID, staged.GetDevicePath())
	}
	if err := n.linkDevice(name, staged.GetDevicePath()); err != nil {
		return mount.DeviceName{}, err
	}
	return name, nil
}

// linkDevice makes the device node, unless the attachment is mounted with another
// device number than it has now.
func (n *node) linkDevice(name mount.DeviceName, path string) error {
	major, minor, err := n.devices.Link(name, path)
	if err != nil {
		return fromMount(err, "stage volume %s", name.Volume)
	}
	points, err := n.mountsOf(name.Volume.String())
	if err != nil {
		return err
	}
	for _, p := range points {
		if p.Major != major || p.Minor != minor {
			return failedPrecondition("stage volume %s: %s shows device %d:%d, while the volume is %d:%d now; "+
				"stop the pods that use it and stage it again", name.Volume, p.Path, p.Major, p.Minor, major, minor)
		}
	}
	return nil
}

// mountsOf lists the mounts of one volume.
func (n *node) mountsOf(volumeID string) ([]mount.Point, error) {
	points, err := n.mounter.Mounts(n.devices)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "%v", err)
	}
	return slices.DeleteFunc(points, func(p mount.Point) bool { return p.Device.Volume.String() != volumeID }), nil
}

// NodeUnstageVolume unmounts the staging path and ends the attachment.
func (n *node) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetStagingTargetPath() == "":
		return nil, invalid("no staging target path given")
	}
	id, err := block.ParseID(req.GetVolumeId())
	if err != nil {
		return nil, notFound("volume %q does not exist", req.GetVolumeId())
	}
	done, err := n.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	if err := n.unmountStaging(req.GetVolumeId(), mount.Resolve(req.GetStagingTargetPath())); err != nil {
		return nil, err
	}
	names, err := n.devices.List(block.VolumeID{ID: id})
	if err != nil {
		return nil, status.Errorf(codes.Internal, "unstage volume %s: %v", req.GetVolumeId(), err)
	}
	for _, name := range names {
		busy, err := n.devices.Busy(name)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "unstage volume %s: %v", req.GetVolumeId(), err)
		}
		if busy {
			return nil, failedPrecondition("unstage volume %s: its device %s is still in use, mounted in a container for example",
				req.GetVolumeId(), n.devices.Path(name))
		}
	}
	if _, err := n.agent.UnstageVolume(ctx, &holdfastv1.UnstageVolumeRequest{VolumeId: req.GetVolumeId()}); err != nil && status.Code(err) != codes.NotFound {
		return nil, fromDaemon(err, "unstage volume %s", req.GetVolumeId())
	}
	for _, name := range names {
		if err := n.devices.Remove(name); err != nil {
			return nil, status.Errorf(codes.Internal, "unstage volume %s: %v", req.GetVolumeId(), err)
		}
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// unmountStaging unmounts the staging path, once nothing else shows the volume.
func (n *node) unmountStaging(volumeID, staging string) error {
	points, err := n.mountsOf(volumeID)
	if err != nil {
		return err
	}
	var published []string
	var layers int
	for _, p := range points {
		if p.Path == staging {
			layers++
		} else {
			published = append(published, p.Path)
		}
	}
	if len(published) > 0 {
		return failedPrecondition("unstage volume %s: still published at %s; unpublish it there first", volumeID, strings.Join(published, ", "))
	}
	if layers == 0 {
		return n.checkFree(staging)
	}
	for range layers {
		if err := n.mounter.Unmount(staging); err != nil {
			return fromMount(err, "unstage volume %s", volumeID)
		}
	}
	return nil
}
