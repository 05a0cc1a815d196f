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

func snapshotRequest(name string) *csi.CreateSnapshotRequest {
	return &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: testVolume}
}

// snapshotController has a volume of 10 MiB.
func snapshotController(t *testing.T) (*controller, *scriptedDaemon) {
	t.Helper()
	d := &scriptedDaemon{volume: &holdfastv1.Volume{
		Id: testVolume, Name: "pvc-1", SizeBytes: 10 * mib, State: holdfastv1.Volume_READY,
		Parameters: &holdfastv1.VolumeParameters{Replicas: 3, MinInSync: 1},
	}}
	return newController(t, d), d
}

func mustSnapshot(t *testing.T, c *controller, req *csi.CreateSnapshotRequest) *csi.Snapshot {
	t.Helper()
	response, err := c.CreateSnapshot(t.Context(), req)
	if err != nil {
		t.Fatalf("snapshot %q: %v", req.GetName(), err)
	}
	return response.GetSnapshot()
}

func TestLifeOfASnapshot(t *testing.T) {
	c, d := snapshotController(t)
	made := mustSnapshot(t, c, snapshotRequest("s1"))
	if made.GetSourceVolumeId() != testVolume || made.GetSizeBytes() != 10*mib || !made.GetReadyToUse() || !made.GetCreationTime().IsValid() {
		t.Errorf("the snapshot is %v", made)
	}
	if again := mustSnapshot(t, c, snapshotRequest("s1")); again.GetSnapshotId() != made.GetSnapshotId() {
		t.Errorf("the same name made %v beside %v", again, made)
	}
	_, err := c.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s1", SourceVolumeId: otherVolume})
	expectCode(t, "the name of another volume's snapshot", err, codes.AlreadyExists, testVolume)

	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
	expectCode(t, "deletion of a volume with a snapshot", err, codes.FailedPrecondition, "snapshots would be lost")
	if d.deleted {
		t.Error("a volume with snapshots is deleted")
	}

	got, err := c.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: made.GetSnapshotId()})
	if err != nil || got.GetSnapshot().GetSnapshotId() != made.GetSnapshotId() {
		t.Errorf("found is %v, %v", got, err)
	}
	for range 2 {
		if _, err := c.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: made.GetSnapshotId()}); err != nil {
			t.Errorf("deletion answers %v", err)
		}
	}
	_, err = c.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: made.GetSnapshotId()})
	expectCode(t, "a deleted snapshot", err, codes.NotFound, made.GetSnapshotId())
	if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume}); err != nil {
		t.Errorf("deletion of a volume without snapshots answers %v", err)
	}
}

func TestRefusedSnapshots(t *testing.T) {
	c, d := snapshotController(t)
	for message, req := range map[string]*csi.CreateSnapshotRequest{
		"no snapshot name":          {SourceVolumeId: testVolume},
		"no source volume ID":       {Name: "s1"},
		"at most 128 bytes":         {Name: strings.Repeat("n", 129), SourceVolumeId: testVolume},
		`unknown parameter "color"`: {Name: "s1", SourceVolumeId: testVolume, Parameters: map[string]string{"color": "red"}},
	} {
		_, err := c.CreateSnapshot(t.Context(), req)
		expectCode(t, message, err, codes.InvalidArgument, message)
	}
	_, err := c.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s1", SourceVolumeId: "nothing"})
	expectCode(t, "what cannot be an ID", err, codes.NotFound, `volume "nothing"`)
	if n := d.count("CreateSnapshot"); n != 0 {
		t.Errorf("%d refused requests reached the daemon", n)
	}
	req := snapshotRequest(strings.Repeat("n", 128))
	req.Parameters = map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "daily"}
	mustSnapshot(t, c, req)

	_, err = c.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s2", SourceVolumeId: strings.Repeat("e", 32)})
	expectCode(t, "a volume that is not there", err, codes.NotFound, "not found")
	_, err = c.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{})
	expectCode(t, "delete without an ID", err, codes.InvalidArgument, "no snapshot ID")
	_, err = c.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{})
	expectCode(t, "get without an ID", err, codes.InvalidArgument, "no snapshot ID")
	_, err = c.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "nothing"})
	expectCode(t, "get of what cannot be an ID", err, codes.NotFound, `snapshot "nothing"`)
	if _, err := c.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: "nothing"}); err != nil {
		t.Errorf("delete of what cannot be an ID answers %v", err)
	}
}

// TestDaemonTroubleWithSnapshots: callers tell "not yet" from "no" by the code.
func TestDaemonTroubleWithSnapshots(t *testing.T) {
	c, d := snapshotController(t)
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted} {
		d.fail("CreateSnapshot", status.Error(code, "trouble"))
		_, err := c.CreateSnapshot(t.Context(), snapshotRequest("s1"))
		expectCode(t, "create", err, code, `create snapshot "s1" of volume `+testVolume+": trouble")
	}
	d.fail("DeleteSnapshot", status.Error(codes.FailedPrecondition, "volume v2 is being made from it"))
	_, err := c.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snapshotID(0)})
	expectCode(t, "delete in use", err, codes.FailedPrecondition, "volume v2 is being made from it")
	d.fail("ListSnapshots", status.Error(codes.Unavailable, "no leader"))
	_, err = c.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	expectCode(t, "list", err, codes.Unavailable, "no leader")
}

func TestListsOfSnapshots(t *testing.T) {
	c, d := snapshotController(t)
	for _, name := range []string{"s1", "s2", "s3"} {
		mustSnapshot(t, c, snapshotRequest(name))
	}
	mustSnapshot(t, c, &csi.CreateSnapshotRequest{Name: "s4", SourceVolumeId: otherVolume})
	mustSnapshot(t, c, snapshotRequest("s5"))
	d.snapshots[2].Ready = false // it is being cut

	for name, test := range map[string]struct {
		req  *csi.ListSnapshotsRequest
		want string
		next string
	}{
		"all":                    {&csi.ListSnapshotsRequest{}, "0 1 3 4", ""},
		"a page":                 {&csi.ListSnapshotsRequest{MaxEntries: 2}, "0 1", snapshotID(1)},
		"the next page":          {&csi.ListSnapshotsRequest{MaxEntries: 2, StartingToken: snapshotID(1)}, "3", snapshotID(3)},
		"the last page":          {&csi.ListSnapshotsRequest{MaxEntries: 2, StartingToken: snapshotID(3)}, "4", ""},
		"of a volume":            {&csi.ListSnapshotsRequest{SourceVolumeId: testVolume}, "0 1 4", ""},
		"of a volume, a page":    {&csi.ListSnapshotsRequest{SourceVolumeId: testVolume, MaxEntries: 2, StartingToken: snapshotID(1)}, "4", ""},
		"one":                    {&csi.ListSnapshotsRequest{SnapshotId: snapshotID(3)}, "3", ""},
		"one of its volume":      {&csi.ListSnapshotsRequest{SnapshotId: snapshotID(3), SourceVolumeId: otherVolume}, "3", ""},
		"one of another volume":  {&csi.ListSnapshotsRequest{SnapshotId: snapshotID(3), SourceVolumeId: testVolume}, "", ""},
		"one that is being cut":  {&csi.ListSnapshotsRequest{SnapshotId: snapshotID(2)}, "", ""},
		"one that is not there":  {&csi.ListSnapshotsRequest{SnapshotId: strings.Repeat("e", 32)}, "", ""},
		"what cannot be an ID":   {&csi.ListSnapshotsRequest{SnapshotId: "nothing"}, "", ""},
		"of a volume not there":  {&csi.ListSnapshotsRequest{SourceVolumeId: strings.Repeat("e", 32)}, "", ""},
		"of what cannot be one":  {&csi.ListSnapshotsRequest{SourceVolumeId: "nothing"}, "", ""},
		"more than there are":    {&csi.ListSnapshotsRequest{MaxEntries: 100}, "0 1 3 4", ""},
		"as many as there are":   {&csi.ListSnapshotsRequest{MaxEntries: 5}, "0 1 3 4", ""},
		"behind the end of them": {&csi.ListSnapshotsRequest{StartingToken: snapshotID(4)}, "", ""},
	} {
		list, err := c.ListSnapshots(t.Context(), test.req)
		var got []string
		for _, entry := range list.GetEntries() {
			got = append(got, strings.TrimPrefix(entry.GetSnapshot().GetSnapshotId(), snapshotID(0)[:31]))
		}
		if err != nil || strings.Join(got, " ") != test.want || list.GetNextToken() != test.next {
			t.Errorf("%s: %v, next %q, %v; want %s, next %q", name, got, list.GetNextToken(), err, test.want, test.next)
		}
	}
	_, err := c.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: "x"})
	expectCode(t, "a bad token", err, codes.Aborted, "starting_token")
	_, err = c.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: -1})
	expectCode(t, "max_entries -1", err, codes.InvalidArgument, "below zero")
	got, err := c.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: snapshotID(2)})
	if err != nil || got.GetSnapshot().GetReadyToUse() {
		t.Errorf("a snapshot that is being cut is found as %v, %v", got, err)
	}
}

func TestSecondSnapshotIsAborted(t *testing.T) {
	c, d := snapshotController(t)
	held := heldCall{reached: make(chan struct{}), release: make(chan struct{})}
	d.held = map[string]heldCall{"CreateSnapshot": held}
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := c.CreateSnapshot(t.Context(), snapshotRequest("s1")); err != nil {
			t.Errorf("the first call answers %v", err)
		}
	})
	<-held.reached
	_, err := c.CreateSnapshot(t.Context(), snapshotRequest("s1"))
	expectCode(t, "the same again", err, codes.Aborted, "snapshot s1")
	_, err = c.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s1", SourceVolumeId: otherVolume})
	expectCode(t, "the name for another volume", err, codes.Aborted, "snapshot s1")
	// Were it let through, the snapshot would go with the volume.
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: testVolume})
	expectCode(t, "deletion of the volume", err, codes.Aborted, testVolume)
	close(held.release)
	first.Wait()
	mustSnapshot(t, c, snapshotRequest("s1"))
}

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id},
	}}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id},
	}}
}

// TestVolumesFromSources: which size is asked of the daemon for a source of 10 MiB.
func TestVolumesFromSources(t *testing.T) {
	for name, source := range map[string]*csi.VolumeContentSource{"snapshot": fromSnapshot(snapshotID(0)), "volume": fromVolume(testVolume)} {
		for _, test := range []struct {
			capacity *csi.CapacityRange
			want     int64
			code     codes.Code
		}{
			{nil, 10 * mib, codes.OK},
			{&csi.CapacityRange{RequiredBytes: 10 * mib}, 10 * mib, codes.OK},
			{&csi.CapacityRange{RequiredBytes: 10*mib + 1}, 11 * mib, codes.OK},
			{&csi.CapacityRange{LimitBytes: 20 * mib}, 10 * mib, codes.OK},
			{&csi.CapacityRange{RequiredBytes: 10*mib - 1}, 0, codes.OutOfRange},
			{&csi.CapacityRange{LimitBytes: 9 * mib}, 0, codes.OutOfRange},
		} {
			c, d := snapshotController(t)
			mustSnapshot(t, c, snapshotRequest("s1"))
			d.volume.SourceSnapshotId, d.volume.SourceVolumeId = source.GetSnapshot().GetSnapshotId(), source.GetVolume().GetVolumeId()
			req := createRequest()
			req.CapacityRange, req.VolumeContentSource = test.capacity, source
			response, err := c.CreateVolume(t.Context(), req)
			if status.Code(err) != test.code || d.created.GetSizeBytes() != test.want {
				t.Errorf("%s, %v: %d bytes asked for, %v; want %d, %v", name, test.capacity, d.created.GetSizeBytes(), err, test.want, test.code)
			}
			if err != nil {
				continue
			}
			if d.created.GetSourceSnapshotId() != source.GetSnapshot().GetSnapshotId() || d.created.GetSourceVolumeId() != source.GetVolume().GetVolumeId() {
				t.Errorf("%s: asked for %v", name, d.created)
			}
			if got := response.GetVolume().GetContentSource(); got.String() != source.String() {
				t.Errorf("%s: the volume is said to be made from %v", name, got)
			}
		}
	}
}

// TestSourcesThatAreGone: a volume that was made answers for itself, whatever has
// become of its source; another one cannot be made.
func TestSourcesThatAreGone(t *testing.T) {
	c, d := snapshotController(t)
	req := createRequest()
	req.VolumeContentSource = fromSnapshot(snapshotID(7))
	_, err := c.CreateVolume(t.Context(), req)
	expectCode(t, "a snapshot that is not there", err, codes.NotFound, snapshotID(7))
	d.volume.SourceSnapshotId = snapshotID(7)
	response, err := c.CreateVolume(t.Context(), req)
	if err != nil || response.GetVolume().GetVolumeId() != testVolume {
		t.Errorf("the volume that was made from it answers %v, %v", response, err)
	}
	for _, source := range []*csi.VolumeContentSource{fromSnapshot("nothing"), fromVolume("nothing")} {
		req.VolumeContentSource = source
		_, err := c.CreateVolume(t.Context(), req)
		expectCode(t, source.String(), err, codes.NotFound, `"nothing" does not exist`)
	}
	d.volume.State = holdfastv1.Volume_DELETING
	req.VolumeContentSource = fromVolume(testVolume)
	_, err = c.CreateVolume(t.Context(), req)
	expectCode(t, "a volume that is deleted", err, codes.NotFound, "is deleted")
	if n := d.count("CreateVolume"); n != 0 {
		t.Errorf("asked for a volume from nothing %d times", n)
	}
}
