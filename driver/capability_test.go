package driver

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
)

const mib = 1 << 20

func TestParseSize(t *testing.T) {
	for _, test := range []struct {
		required, limit, want int64
		code                  codes.Code
	}{
		{1, 0, mib, codes.OK},
		{mib, mib, mib, codes.OK},
		{mib + 1, 0, 2 * mib, codes.OK},
		{mib + 1, 2 * mib, 2 * mib, codes.OK},
		{0, 10 * mib, 10 * mib, codes.OK},
		{0, 10*mib + 5, 10 * mib, codes.OK},
		{0, 5 << 30, defaultSize, codes.OK},
		{block.MaxVolumeSize, 0, block.MaxVolumeSize, codes.OK},
		{0, 0, 0, codes.InvalidArgument},
		{-1, 0, 0, codes.InvalidArgument},
		{0, -1, 0, codes.InvalidArgument},
		{2 * mib, mib, 0, codes.InvalidArgument},
		{mib + 1, mib + 2, 0, codes.OutOfRange},
		{0, mib - 1, 0, codes.OutOfRange},
		{block.MaxVolumeSize + 1, 0, 0, codes.OutOfRange},
		{1<<63 - 1, 0, 0, codes.OutOfRange},
	} {
		got, err := parseSize(&csi.CapacityRange{RequiredBytes: test.required, LimitBytes: test.limit}, sizeStep, defaultSize)
		if got != test.want || status.Code(err) != test.code {
			t.Errorf("%d to %d gives %d, %v; want %d, %v", test.required, test.limit, got, err, test.want, test.code)
		}
	}
	if got, err := parseSize(nil, sizeStep, defaultSize); got != defaultSize || err != nil {
		t.Errorf("no range gives %d, %v", got, err)
	}
}

// TestSizeOfXFS: what mkfs.xfs would refuse is not made.
func TestSizeOfXFS(t *testing.T) {
	least := leastSize([]*csi.VolumeCapability{mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "xfs")})
	for _, test := range []struct {
		required, limit, want int64
		code                  codes.Code
	}{
		{mib, 0, 300 * mib, codes.OK},
		{299 * mib, 300 * mib, 300 * mib, codes.OK},
		{301 * mib, 0, 301 * mib, codes.OK},
		{0, 400 * mib, 400 * mib, codes.OK},
		{mib, 299 * mib, 0, codes.OutOfRange},
		{0, 299 * mib, 0, codes.OutOfRange},
	} {
		got, err := parseSize(&csi.CapacityRange{RequiredBytes: test.required, LimitBytes: test.limit}, least, defaultSize)
		if got != test.want || status.Code(err) != test.code {
			t.Errorf("%d to %d gives %d, %v; want %d, %v", test.required, test.limit, got, err, test.want, test.code)
		}
	}
}

func mountCapability(mode csi.VolumeCapability_AccessMode_Mode, fsType string, flags ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: flags}},
	}
}

func blockCapability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

func TestParseCapability(t *testing.T) {
	a, err := parseCapability(mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, "", "ro", "noatime"))
	if err != nil || a.fsType != "ext4" || !a.exclusive || !a.readOnly || strings.Join(a.options, " ") != "noatime" {
		t.Errorf("read as %+v, %v", a, err)
	}
	a, err = parseCapability(blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY))
	if err != nil || !a.block || !a.readOnly || a.fsType != "" {
		t.Errorf("read as %+v, %v", a, err)
	}
	for message, capability := range map[string]*csi.VolumeCapability{
		"no volume capability": nil,
		"no access mode":       {AccessType: blockCapability(0).GetAccessType()},
		"no access type": {
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
		"one node at a time":  blockCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER),
		`file system "btrfs"`: mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "btrfs"),
		"access mode MULTI":   mountCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, ""),
	} {
		_, err := parseCapability(capability)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), message) {
			t.Errorf("%v answers %v, want InvalidArgument with %q", capability, err, message)
		}
	}
	both := []*csi.VolumeCapability{
		blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
		mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, ""),
	}
	if err := parseCapabilities(both); status.Code(err) != codes.InvalidArgument {
		t.Errorf("block and mount at once answer %v", err)
	}
}
