package driver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func expandRequest(required, limit int64) *csi.ControllerExpandVolumeRequest {
	return &csi.ControllerExpandVolumeRequest{
		VolumeId: testVolume, CapacityRange: &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit},
	}
}

// TestExpansion of a volume of 10 MiB.
func TestExpansion(t *testing.T) {
	for _, test := range []struct {
		required, limit, want int64
		asked                 int
		code                  codes.Code
	}{
		{20 * mib, 0, 20 * mib, 1, codes.OK},
		{20*mib + 1, 0, 21 * mib, 1, codes.OK},
		{20 * mib, 20 * mib, 20 * mib, 1, codes.OK},
		{10 * mib, 0, 10 * mib, 0, codes.OK},
		{5 * mib, 0, 10 * mib, 0, codes.OK},
		{5 * mib, 10 * mib, 10 * mib, 0, codes.OK},
		{5 * mib, 9 * mib, 0, 0, codes.OutOfRange},
		{20*mib + 1, 20*mib + 2, 0, 0, codes.OutOfRange},
		{1 << 60, 0, 0, 0, codes.OutOfRange},
		{-1, 0, 0, 0, codes.InvalidArgument},
		{0, 0, 0, 0, codes.InvalidArgument},
	} {
		c, d := snapshotController(t)
		response, err := c.ControllerExpandVolume(t.Context(), expandRequest(test.required, test.limit))
		if response.GetCapacityBytes() != test.want || status.Code(err) != test.code || d.count("ExpandVolume") != test.asked {
			t.Errorf("%d to %d answers %v, %v, %d times asked for; want %d, %v", test.required, test.limit, response, err, d.count("ExpandVolume"), test.want, test.code)
		}
		if err == nil && !response.GetNodeExpansionRequired() {
			t.Errorf("%d to %d: the node is not asked to grow the file system", test.required, test.limit)
		}
	}
}

func TestExpansionOfADevice(t *testing.T) {
	c, _ := snapshotController(t)
	req := expandRequest(20*mib, 0)
	req.VolumeCapability = blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	response, err := c.ControllerExpandVolume(t.Context(), req)
	if err != nil || response.GetNodeExpansionRequired() {
		t.Errorf("a volume without a file system answers %v, %v", response, err)
	}
	req.VolumeCapability = mountCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")
	_, err = c.ControllerExpandVolume(t.Context(), req)
	expectCode(t, "an access mode that is not supported", err, codes.InvalidArgument, "one node at a time")
}

func TestRefusedExpansions(t *testing.T) {
	c, d := snapshotController(t)
	_, err := c.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{CapacityRange: &csi.CapacityRange{RequiredBytes: mib}})
	expectCode(t, "no ID", err, codes.InvalidArgument, "no volume ID")
	_, err = c.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: testVolume})
	expectCode(t, "no range", err, codes.InvalidArgument, "no capacity range")
	req := expandRequest(20*mib, 0)
	req.VolumeId = "nothing"
	_, err = c.ControllerExpandVolume(t.Context(), req)
	expectCode(t, "what cannot be an ID", err, codes.NotFound, `volume "nothing"`)
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted} {
		d.fail("ExpandVolume", status.Error(code, "trouble"))
		_, err = c.ControllerExpandVolume(t.Context(), expandRequest(20*mib, 0))
		expectCode(t, "trouble", err, code, "expand volume "+testVolume+" to 20971520 bytes: trouble")
	}
	d.fail("GetVolume", status.Error(codes.NotFound, "no such volume"))
	_, err = c.ControllerExpandVolume(t.Context(), expandRequest(20*mib, 0))
	expectCode(t, "a volume that is not there", err, codes.NotFound, "no such volume")
}
