package driver

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// defaultFSType is used where a request names none.
	defaultFSType = "ext4"
	xfs           = "xfs"
	// leastXFSSize is what mkfs.xfs wants at least, in bytes.
	leastXFSSize = 300 << 20
	// sizeStep is what sizes are rounded up to, and the smallest size, in bytes.
	sizeStep = 1 << 20
	// defaultSize is the size of a volume for which none was asked, in bytes.
	defaultSize = 1 << 30
)

// access is a volume capability that was found to be supported.
type access struct {
	// block: the device itself, without a file system.
	block  bool
	fsType string
	// options are those of mount(8), without "ro".
	options  []string
	readOnly bool
	// exclusive: at one path at a time only.
	exclusive bool
}

// parseCapability checks one capability.
func parseCapability(capability *csi.VolumeCapability) (access, error) {
	if capability == nil {
		return access{}, invalid("no volume capability given")
	}
	var a access
	switch mode := capability.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER:
		a.exclusive = true
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
		a.readOnly = true
	case csi.VolumeCapability_AccessMode_UNKNOWN:
		return access{}, invalid("no access mode given")
	default:
		return access{}, invalid("access mode %s is not supported: a volume is used on one node at a time "+
			"(ReadWriteOnce or ReadWriteOncePod)", mode)
	}
	switch {
	case capability.GetBlock() != nil:
		a.block = true
	case capability.GetMount() != nil:
		if a.fsType = capability.GetMount().GetFsType(); a.fsType == "" {
			a.fsType = defaultFSType
		}
		if a.fsType != defaultFSType && a.fsType != xfs {
			return access{}, invalid("file system %q is not supported; supported are %s and %s", a.fsType, defaultFSType, xfs)
		}
		if capability.GetMount().GetVolumeMountGroup() != "" {
			return access{}, invalid("volume_mount_group is not supported; ownership is set by fsGroup")
		}
		for _, flag := range capability.GetMount().GetMountFlags() {
			if flag == "ro" {
				a.readOnly = true
			} else {
				a.options = append(a.options, flag)
			}
		}
	default:
		return access{}, invalid("no access type given: mount or block")
	}
	return a, nil
}

// parseCapabilities checks all capabilities of a request, of which there must be
// one at least.
func parseCapabilities(capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return invalid("no volume capabilities given")
	}
	var blocks, mounts bool
	for _, capability := range capabilities {
		a, err := parseCapability(capability)
		if err != nil {
			return err
		}
		blocks, mounts = blocks || a.block, mounts || !a.block
	}
	if blocks && mounts {
		return invalid("a volume is used as a file system or as a block device, not as both")
	}
	return nil
}

// leastSize is the smallest size in bytes of a volume that can be used in all of
// these ways.
func leastSize(capabilities []*csi.VolumeCapability) int64 {
	for _, capability := range capabilities {
		if capability.GetMount().GetFsType() == xfs {
			return leastXFSSize
		}
	}
	return sizeStep
}

// parseSize chooses the size of a volume: what is required, but no less than least,
// rounded up to whole MiB. Where nothing is required it is preset.
func parseSize(capacity *csi.CapacityRange, least, preset int64) (int64, error) {
	if capacity == nil {
		return preset, nil
	}
	required, limit := capacity.GetRequiredBytes(), capacity.GetLimitBytes()
	switch {
	case required < 0 || limit < 0:
		return 0, invalid("capacity range %d to %d bytes: sizes are above zero", required, limit)
	case required == 0 && limit == 0:
		return 0, invalid("capacity range without a size: a volume has at least %d bytes", int64(sizeStep))
	case limit != 0 && required > limit:
		return 0, invalid("capacity range %d to %d bytes: the limit is below what is required", required, limit)
	case required > block.MaxVolumeSize:
		return 0, status.Errorf(codes.OutOfRange, "%d bytes required: a volume has at most %d", required, int64(block.MaxVolumeSize))
	}
	size := required
	if size == 0 {
		// Only a limit is given.
		size = min(preset, limit/sizeStep*sizeStep)
	}
	size = (max(size, least) + sizeStep - 1) / sizeStep * sizeStep
	if limit != 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange,
			"capacity range %d to %d bytes holds no whole number of MiB that is at least %d bytes, as is needed", required, limit, least)
	}
	return size, nil
}

// fits reports whether an existing volume of that size is what is asked for.
func fits(size int64, capacity *csi.CapacityRange) bool {
	return size >= capacity.GetRequiredBytes() && (capacity.GetLimitBytes() == 0 || size <= capacity.GetLimitBytes())
}
