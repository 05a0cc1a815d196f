package driver

import (
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

func newController(t *testing.T, d *scriptedDaemon) *controller {
	t.Helper()
	return &controller{daemon: serveDaemon(t, d), running: newInFlight()}
}

func createRequest() *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name:               "pvc-1",
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 10 * mib},
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "")},
	}
}

func expectCode(t *testing.T, what string, err error, code codes.Code, message string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), message) {
		t.Errorf("%s answers %v, want %v with %q", what, err, code, message)
	}
}

// TestBadInputReachesNobody: a refused request has not changed anything, because
// the daemon never heard of it.
func TestBadInputReachesNobody(t *testing.T) {
	d := &scriptedDaemon{}
	c := newController(t, d)
	for message, spoil := range map[string]func(*csi.CreateVolumeRequest){
		"no volume name":            func(r *csi.CreateVolumeRequest) { r.Name = "" },
		"at most 128 bytes":         func(r *csi.CreateVolumeRequest) { r.Name = strings.Repeat("n", 129) },
		"no volume capabilities":    func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil },
		"one node at a time":        func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode.Mode = 5 },
		`unknown parameter "color"`: func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"color": "red"} },
		"without a size":            func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{} },
		"cannot be changed":         func(r *csi.CreateVolumeRequest) { r.MutableParameters = map[string]string{"replicas": "2"} },
		"neither a snapshot nor":    func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = &csi.VolumeContentSource{} },
		"content source has no ID":  func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromSnapshot("") },
		"unknown topology segment": func(r *csi.CreateVolumeRequest) {
			r.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"zone": "z"}}}}
		},
	} {
		req := createRequest()
		spoil(req)
		_, err := c.CreateVolume(t.Context(), req)
		expectCode(t, message, err, codes.InvalidArgument, message)
	}
	if n := d.count("CreateVolume"); n != 0 {
		t.Errorf("%d refused requests reached the daemon", n)
	}
}

func TestCreateOverAnExistingVolume(t *testing.T) {
	existing := &holdfastv1.Volume{
		Id: testVolume, Name: "pvc-1", SizeBytes: 12 * mib, State: holdfastv1.Volume_READY,
		Parameters: &holdfastv1.VolumeParameters{Replicas: 3, MinInSync: 1},
	}
	d := &scriptedDaemon{volume: existing}
	c := newController(t, d)
	d.fail("CreateVolume", status.Error(codes.AlreadyExists, "exists"))

	response, err := c.CreateVolume(t.Context(), createRequest())
	if err != nil || response.GetVolume().GetVolumeId() != testVolume || response.GetVolume().GetCapacityBytes() != 12*mib {
		t.Errorf("a size in the range answers %v, %v", response, err)
	}
	for name, spoil := range map[string]func(*csi.CreateVolumeRequest){
		"limit below": func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = 11 * mib },
		"more needed": func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 13 * mib },
		"parameters":  func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"replicas": "2"} },
		"source":      func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromVolume(testVolume) },
	} {
		req := createRequest()
		spoil(req)
		_, err := c.CreateVolume(t.Context(), req)
		if name == "source" {
			expectCode(t, name, err, codes.OutOfRange, "smaller than its source")
			req.CapacityRange.RequiredBytes = 12 * mib
			_, err = c.CreateVolume(t.Context(), req)
		}
		expectCode(t, name, err, codes.AlreadyExists, "other properties")
	}
}

func TestTopologyOfNewVolumes(t *testing.T) {
	d := &scriptedDaemon{volume: &holdfastv1.Volume{Id: testVolume}}
	c := newController(t, d)
	req := createRequest()
	at := func(names ...string) *csi.TopologyRequirement {
		r := &csi.TopologyRequirement{}
		for _, name := range names {
			r.Requisite = append(r.Requisite, &csi.Topology{Segments: map[string]string{TopologyKey: name}})
		}
		return r
	}
	req.AccessibilityRequirements = at("elsewhere", "n2")
	if _, err := c.CreateVolume(t.Context(), req); err != nil {
		t.Errorf("a known node among the requisite answers %v", err)
	}
	req.AccessibilityRequirements = at("elsewhere")
	_, err := c.CreateVolume(t.Context(), req)
	expectCode(t, "unknown node", err, codes.ResourceExhausted, "none of the requisite topologies")
}

func TestTheHolderIsNamed(t *testing.T) {
	d := &scriptedDaemon{volume: &holdfastv1.Volume{Id: testVolume, PublishedNodeId: otherNode}}
	c := newController(t, d)
	refused := status.Error(codes.FailedPrecondition, "in use")
	d.fail("PublishVolume", refused)
	d.fail("DeleteVolume", refused)
	const holder = "node n2 (" + otherNode + ")"

	_, err := c.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: testVolume, NodeId: testNode,
		VolumeCapability: mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, ""),
	})
	expectCode(t, "publish to two nodes", err, codes.FailedPrecondition, holder)
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
	expectCode(t, "delete of what is published", err, codes.FailedPrecondition, holder)

	d.fail("DeleteVolume", status.Error(codes.Unavailable, "no leader"))
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
	expectCode(t, "delete without a leader", err, codes.Unavailable, "no leader")
	d.fail("DeleteVolume", refused)
	d.fail("GetVolume", status.Error(codes.NotFound, "no volume"))
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
	expectCode(t, "delete of what nobody can describe", err, codes.FailedPrecondition, "in use")
}

func TestWhatCannotBeAnID(t *testing.T) {
	c := newController(t, &scriptedDaemon{})
	capability := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "")
	if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "nothing"}); err != nil {
		t.Errorf("delete answers %v", err)
	}
	if _, err := c.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: "nothing"}); err != nil {
		t.Errorf("unpublish answers %v", err)
	}
	_, err := c.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: testVolume, NodeId: "nowhere", VolumeCapability: capability,
	})
	expectCode(t, "publish to an unknown node", err, codes.NotFound, `node "nowhere"`)
	_, err = c.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: "nothing", VolumeCapabilities: []*csi.VolumeCapability{capability},
	})
	expectCode(t, "validate", err, codes.NotFound, `volume "nothing"`)
}

func TestTokensAndGoneVolumes(t *testing.T) {
	d := &scriptedDaemon{volume: &holdfastv1.Volume{Id: testVolume, State: holdfastv1.Volume_DELETING}}
	c := newController(t, d)
	_, err := c.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: testVolume})
	expectCode(t, "a deleted volume", err, codes.NotFound, "is deleted")
	list, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(list.GetEntries()) != 0 {
		t.Errorf("a deleted volume is listed: %v, %v", list, err)
	}
	d.fail("ListVolumes", status.Error(codes.InvalidArgument, "bad token"))
	_, err = c.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: "x"})
	expectCode(t, "a bad token", err, codes.Aborted, "starting_token")
	_, err = c.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	expectCode(t, "max_entries -1", err, codes.InvalidArgument, "below zero")
}

func TestListsAreGatheredFromPages(t *testing.T) {
	volume := &holdfastv1.Volume{Id: testVolume, State: holdfastv1.Volume_READY, PublishedNodeId: testNode}
	c := newController(t, &scriptedDaemon{volume: volume, pages: 3})
	list, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(list.GetEntries()) != 3 || list.GetNextToken() != "" {
		t.Errorf("all of them are %v, %v", list, err)
	}
	if nodes := list.GetEntries()[0].GetStatus().GetPublishedNodeIds(); len(nodes) != 1 || nodes[0] != testNode {
		t.Errorf("published to %v", nodes)
	}
	c = newController(t, &scriptedDaemon{volume: volume, pages: 3})
	list, err = c.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 1})
	if err != nil || len(list.GetEntries()) != 1 || list.GetNextToken() != testVolume {
		t.Errorf("one of them is %v, %v", list, err)
	}
}

func TestSecondCallIsAborted(t *testing.T) {
	held := heldCall{reached: make(chan struct{}), release: make(chan struct{})}
	d := &scriptedDaemon{held: map[string]heldCall{"DeleteVolume": held}}
	c := newController(t, d)
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume}); err != nil {
			t.Errorf("the first call answers %v", err)
		}
	})
	<-held.reached
	_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
	expectCode(t, "the second call", err, codes.Aborted, "still running")
	_, err = c.CreateSnapshot(t.Context(), snapshotRequest("s1"))
	expectCode(t, "a snapshot of what is being deleted", err, codes.Aborted, testVolume)
	_, err = c.ControllerExpandVolume(t.Context(), expandRequest(mib, 0))
	expectCode(t, "an expansion of what is being deleted", err, codes.Aborted, testVolume)
	close(held.release)
	first.Wait()
	if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume}); err != nil {
		t.Errorf("the third call answers %v", err)
	}
}

func TestHealth(t *testing.T) {
	healthy := &holdfastv1.Volume{
		Id: testVolume, Parameters: &holdfastv1.VolumeParameters{Replicas: 2},
		Replicas: []*holdfastv1.Replica{{InSync: true}, {InSync: true}},
		Engine:   &holdfastv1.EngineStatus{Serving: true},
	}
	if h := volumeHealth(healthy); len(h.GetHealthStatuses()) != 0 {
		t.Errorf("a healthy volume has %v", h)
	}
	ill := &holdfastv1.Volume{
		Id: testVolume, Parameters: &holdfastv1.VolumeParameters{Replicas: 2},
		Replicas: []*holdfastv1.Replica{{InSync: true}, {}},
		Engine:   &holdfastv1.EngineStatus{Frozen: "no quorum"},
	}
	h := volumeHealth(ill).GetHealthStatuses()
	if len(h) != 2 || h[0].GetMessage() != "1 of 2 replicas are in sync" || h[1].GetStatus() != csi.VolumeHealthErrorType_INACCESSIBLE {
		t.Errorf("an ill volume has %v", h)
	}
}
