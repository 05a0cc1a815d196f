package driver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

func modification(value string) *csi.ControllerModifyVolumeRequest {
	return &csi.ControllerModifyVolumeRequest{VolumeId: testVolume, MutableParameters: map[string]string{"maxSnapshotSpace": value}}
}

func TestParseLimit(t *testing.T) {
	for value, want := range map[string]*holdfastv1.SpaceLimit{
		"none": {}, "50%": {Percent: 50}, "1000%": {Percent: 1000}, "1": {Bytes: 1}, "20Gi": {Bytes: 20 << 30}, "3k": {Bytes: 3000},
		"5T": {Bytes: 5e12}, "1Ki": {Bytes: 1024}, "7Mi": {Bytes: 7 << 20}, "2Ti": {Bytes: 2 << 40},
	} {
		if got, err := parseLimit(value); err != nil || !sameLimit(got, want) {
			t.Errorf("%s is read as %v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "0", "0%", "1001%", "-1", "1.5Gi", "Gi", "5GiB", "5iG", "5KK", "9000Pi", "all", "5 Gi"} {
		if got, err := parseLimit(value); err == nil {
			t.Errorf("%q is read as %v", value, got)
		}
	}
}

// TestModifyVolume: only what is named is changed, at the creation and later.
func TestModifyVolume(t *testing.T) {
	c, d := snapshotController(t)
	for _, value := range []string{"20Gi", "20Gi", "30%"} {
		if _, err := c.ControllerModifyVolume(t.Context(), modification(value)); err != nil {
			t.Fatalf("to %s: %v", value, err)
		}
	}
	if _, err := c.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{VolumeId: testVolume}); err != nil || d.volume.GetMaxSnapshotSpace().GetPercent() != 30 {
		t.Errorf("without a key it is %v, %v", d.volume.GetMaxSnapshotSpace(), err)
	}
	capabilities := []*csi.VolumeCapability{mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "")}
	for value, same := range map[string]bool{"30%": true, "31%": false, "nonsense": false} {
		answer, err := c.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: testVolume, VolumeCapabilities: capabilities, MutableParameters: modification(value).GetMutableParameters(),
		})
		if err != nil || (answer.GetConfirmed() != nil) != same || same == (answer.GetMessage() != "") {
			t.Errorf("%s is confirmed as %v, %v", value, answer, err)
		}
	}
	_, err := c.ControllerModifyVolume(t.Context(), modification("much"))
	expectCode(t, "nonsense", err, codes.InvalidArgument, "neither a size such as 20Gi")
	_, err = c.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{VolumeId: testVolume, MutableParameters: map[string]string{"replicas": "2"}})
	expectCode(t, "what is fixed", err, codes.InvalidArgument, `"replicas" cannot be changed; those that can are maxSnapshotSpace`)
	_, err = c.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{})
	expectCode(t, "no ID", err, codes.InvalidArgument, "no volume ID")
	d.volume.State = holdfastv1.Volume_TRASHED
	_, err = c.ControllerModifyVolume(t.Context(), modification("none"))
	expectCode(t, "in the trash", err, codes.NotFound, "is in the trash")

	req := createRequest()
	req.Parameters = map[string]string{"maxSnapshotSpace": "10%"}
	req.MutableParameters = map[string]string{"maxSnapshotSpace": "1Gi"}
	if _, err := c.CreateVolume(t.Context(), req); err != nil || d.created.GetParameters().GetMaxSnapshotSpace().GetBytes() != 1<<30 {
		t.Errorf("created with %v, %v", d.created, err)
	}
}

// TestSnapshotTakenDuringDeletion by another controller, which knows nothing of the one
// that deletes: the snapshot is not lost.
func TestSnapshotTakenDuringDeletion(t *testing.T) {
	c, d := snapshotController(t)
	other := newController(t, d)
	held := heldCall{make(chan struct{}), make(chan struct{})}
	d.held = map[string]heldCall{"DeleteVolume": held}
	deleted := make(chan error, 1)
	go func() {
		_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
		deleted <- err
	}()
	<-held.reached
	mustSnapshot(t, other, snapshotRequest("s1"))
	close(held.release)
	expectCode(t, "deletion", <-deleted, codes.FailedPrecondition, "of which it has 1")
	if d.deleted {
		t.Error("the volume is deleted under its snapshot")
	}
}
