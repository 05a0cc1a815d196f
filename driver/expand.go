package driver

import (
	"context"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/driver/mount"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// ControllerExpandVolume makes a volume larger, while it is in use or not. One that
// is large enough already is left as it is; its file system may still have to grow.
func (c *controller) ControllerExpandVolume(ctx context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetCapacityRange() == nil:
		return nil, invalid("no capacity range given")
	}
	device, err := asksForDevice(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	size, err := parseSize(req.GetCapacityRange(), sizeStep, sizeStep)
	if err != nil {
		return nil, err
	}
	done, err := c.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	volume, err := c.findVolume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if limit := req.GetCapacityRange().GetLimitBytes(); limit != 0 && volume.GetSizeBytes() > limit {
		return nil, status.Errorf(codes.OutOfRange, "expand volume %s: it has %d bytes, more than the limit of %d, and cannot be made smaller",
			req.GetVolumeId(), volume.GetSizeBytes(), limit)
	}
	if volume.GetSizeBytes() < size {
		volume, err = c.volumes.ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: req.GetVolumeId(), SizeBytes: size})
		if err != nil {
			return nil, fromDaemon(err, "expand volume %s to %d bytes", req.GetVolumeId(), size)
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: volume.GetSizeBytes(), NodeExpansionRequired: !device}, nil
}

// NodeExpandVolume makes the file system of a volume as large as its device, which
// ControllerExpandVolume has made larger. There is nothing to do for the device
// itself. How large both are is seen each time, so the call can be repeated.
func (n *node) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetVolumePath() == "":
		return nil, invalid("no volume path given")
	}
	device, err := asksForDevice(req.GetVolumeCapability())
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
	points, err := n.mountsNow(volume, "expand")
	if err != nil {
		return nil, err
	}
	path := mount.Resolve(req.GetVolumePath())
	i := slices.IndexFunc(points, func(p mount.Point) bool { return p.Path == path })
	switch {
	case i < 0 && device:
		// kubelet may ask before it has published the device, which grows by itself.
		return &csi.NodeExpandVolumeResponse{CapacityBytes: volume.GetSizeBytes()}, nil
	case i < 0:
		return nil, notFound("volume %q is not at %s", req.GetVolumeId(), req.GetVolumePath())
	}
	size, err := n.grownDevice(points[i], req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	if points[i].FSType != "" {
		if err := n.growMounted(ctx, points); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

// grownDevice is the size in bytes of a mounted device, which must be in the range.
func (n *node) grownDevice(p mount.Point, capacity *csi.CapacityRange) (int64, error) {
	size, err := n.mounter.DeviceSize(n.devices.Path(p.Device))
	required, limit := capacity.GetRequiredBytes(), capacity.GetLimitBytes()
	switch {
	case err != nil:
		return 0, status.Errorf(codes.Internal, "expand volume %s: %v", p.Device.Volume, err)
	case required < 0 || limit < 0:
		return 0, invalid("capacity range %d to %d bytes: sizes are above zero", required, limit)
	case limit != 0 && size > limit:
		return 0, status.Errorf(codes.OutOfRange, "expand volume %s: it has %d bytes, more than the limit of %d", p.Device.Volume, size, limit)
	case size < required:
		return 0, status.Errorf(codes.Unavailable, "expand volume %s: its device has %d bytes yet, of the %d required; call again", p.Device.Volume, size, required)
	}
	return size, nil
}

// growMounted grows a file system by one of its mounts that can be written.
func (n *node) growMounted(ctx context.Context, points []mount.Point) error {
	i := slices.IndexFunc(points, func(p mount.Point) bool { return p.FSType != "" && !p.ReadOnly })
	if i < 0 {
		return failedPrecondition("expand volume %s: it is mounted read-only, and its file system cannot grow", points[0].Device.Volume)
	}
	p := points[i]
	return fromMount(n.mounter.Grow(ctx, n.devices.Path(p.Device), p.Path, p.FSType), "expand volume %s", p.Device.Volume)
}

// asksForDevice reports whether a request is about a raw device. It need not say.
func asksForDevice(capability *csi.VolumeCapability) (bool, error) {
	if capability == nil {
		return false, nil
	}
	a, err := parseCapability(capability)
	return a.block, err
}
