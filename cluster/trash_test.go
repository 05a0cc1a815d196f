package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// keepTrash sets how long the trash keeps volumes.
func (n *node) keepTrash(ctx context.Context, keep time.Duration) {
	n.t.Helper()
	seconds := int64(keep / time.Second)
	settings, err := n.nodes().SetSettings(ctx, &holdfastv1.SetSettingsRequest{TrashKeepSeconds: &seconds})
	if err != nil || settings.GetTrashKeepSeconds() != seconds || settings.GetScrubIntervalSeconds() == 0 {
		n.t.Fatalf("settings %v, %v", settings, err)
	}
}

func (n *node) deleteVolume(ctx context.Context, req *holdfastv1.DeleteVolumeRequest) {
	n.t.Helper()
	if _, err := n.volumes().DeleteVolume(ctx, req); err != nil {
		n.t.Fatal(err)
	}
}

// listed are the IDs of the volumes in the trash, or of those that are not.
func (n *node) listed(ctx context.Context, trash bool) (ids []string) {
	n.t.Helper()
	list, err := n.volumes().ListVolumes(ctx, &holdfastv1.ListVolumesRequest{Trash: trash, WithUsage: true})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, v := range list.GetVolumes() {
		ids = append(ids, v.GetId())
	}
	return ids
}

// TestTrash: a volume goes there, is restored under another name, goes there again and
// is deleted when its time is up.
func TestTrash(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	n := g.follower(ctx)
	n.keepTrash(ctx, time.Hour)
	volume := n.create(ctx, createRequest("data", 2))
	n.snapshot(ctx, "before", volume)
	for range 2 {
		n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume})
	}
	if _, err := n.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: "data"}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("found by its name: %v", err)
	}
	if all, trash := n.listed(ctx, false), n.listed(ctx, true); len(all) != 0 || len(trash) != 1 || trash[0] != volume {
		t.Fatalf("listed are %v, in the trash %v", all, trash)
	}
	shown, err := n.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume})
	if keep := shown.GetPurgedAt().AsTime().Sub(shown.GetTrashedAt().AsTime()); err != nil || shown.GetState() != holdfastv1.Volume_TRASHED || keep != time.Hour {
		t.Fatalf("in the trash: %v, %v", shown, err)
	}
	for what, refused := range map[string]error{
		"publish":  second(n.volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: n.NodeID().String()})),
		"snapshot": second(n.snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: "late", VolumeId: volume})),
		"expand":   second(n.volumes().ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: 2 << 30})),
		"clone":    second(n.volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{Name: "clone", SizeBytes: 1 << 30, SourceVolumeId: volume, Parameters: &holdfastv1.VolumeParameters{Replicas: 1}})),
	} {
		if !errors.Is(refused, block.ErrNotFound) {
			t.Errorf("%s of what is in the trash: %v", what, refused)
		}
	}
	other := n.create(ctx, createRequest("data", 1))
	if _, err := n.volumes().RestoreVolume(ctx, &holdfastv1.RestoreVolumeRequest{Id: volume}); !errors.Is(err, block.ErrExists) || !strings.Contains(err.Error(), other) {
		t.Fatalf("restored under a name that is taken: %v", err)
	}
	if _, err := n.volumes().RestoreVolume(ctx, &holdfastv1.RestoreVolumeRequest{Id: volume, Name: "no name"}); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("restored under what is no name: %v", err)
	}
	restored, err := n.volumes().RestoreVolume(ctx, &holdfastv1.RestoreVolumeRequest{Id: volume, Name: "again"})
	if err != nil || restored.GetName() != "again" || restored.GetState() != holdfastv1.Volume_READY || restored.GetSnapshotCount() != 1 || restored.GetTrashedAt() != nil {
		t.Fatalf("restored %v, %v", restored, err)
	}

	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume})
	leader := g.leader(ctx)
	now := time.Now()
	leader.purgeExpired(ctx, now.Add(59*time.Minute))
	if v := n.volume(volume); !v.InTrash() {
		t.Fatalf("purged before its time: %+v", v)
	}
	leader.purgeExpired(ctx, now.Add(61*time.Minute))
	waitGone(ctx, t, n, volume)
	if _, err := n.volumes().PurgeVolume(ctx, &holdfastv1.PurgeVolumeRequest{Id: other}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("purged what is not in the trash: %v", err)
	}
}

// waitGone waits until a volume and its replicas are.
func waitGone(ctx context.Context, t *testing.T, n *node, volume string) {
	t.Helper()
	id, err := parseVolumeID(volume)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Wait(ctx, func(s *state.State) bool { _, there := s.Volume(id); return !there }); err != nil {
		t.Fatal(err)
	}
}

// TestLeaderEmptiesTheTrash by itself, and purges by request.
func TestLeaderEmptiesTheTrash(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	n.keepTrash(ctx, time.Second)
	first := n.create(ctx, createRequest("first", 1))
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: first})
	waitGone(ctx, t, n, first)
	n.keepTrash(ctx, time.Hour)
	second, third := n.create(ctx, createRequest("second", 1)), n.create(ctx, createRequest("third", 1))
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: second})
	if _, err := n.volumes().PurgeVolume(ctx, &holdfastv1.PurgeVolumeRequest{Id: second}); err != nil {
		t.Fatal(err)
	}
	waitGone(ctx, t, n, second)
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: third, Purge: true})
	waitGone(ctx, t, n, third)
}

// TestTrashCounts: what is there is still promised, and said to be there.
func TestTrashCounts(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	n.keepTrash(ctx, time.Hour)
	big := createRequest("big", 1)
	big.SizeBytes = 40 << 30
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: n.create(ctx, big)})
	if _, err := n.volumes().CreateVolume(ctx, big); !errors.Is(err, block.ErrNoCapacity) || !strings.Contains(err.Error(), "40.0 GiB to some in the trash") {
		t.Fatalf("beside what is in the trash: %v", err)
	}
}

// TestSnapshotInTrashIsStillASource: a volume is made from a snapshot of a volume in the
// trash, and outlives both.
func TestSnapshotInTrashIsStillASource(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	n.keepTrash(ctx, time.Hour)
	volume := n.create(ctx, createRequest("data", 1))
	snapshot := n.snapshot(ctx, "s", volume)
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume})
	list, err := n.snapshots().ListSnapshots(ctx, &holdfastv1.ListSnapshotsRequest{})
	if err != nil || len(list.GetSnapshots()) != 1 || list.GetSnapshots()[0].GetVolumeId() != volume {
		t.Fatalf("snapshots %v, %v", list, err)
	}
	req := createRequest("copy", 1)
	req.SourceSnapshotId = snapshot.GetId()
	copied := n.create(ctx, req)
	if _, err := n.volumes().PurgeVolume(ctx, &holdfastv1.PurgeVolumeRequest{Id: volume}); err != nil {
		t.Fatal(err)
	}
	waitGone(ctx, t, n, volume)
	if _, err := n.snapshots().GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Id: snapshot.GetId()}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("the snapshot outlives its volume: %v", err)
	}
	if v := n.volume(copied); !v.Ready() {
		t.Fatalf("the copy: %+v", v)
	}
}

// TestDeletionAndSnapshotAtOnce: one of the two is refused, whichever comes second.
func TestDeletionAndSnapshotAtOnce(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	volume := n.create(ctx, createRequest("data", 1))
	// The deletion arrives while the snapshot is being taken.
	n.host.setWork(func(ctx context.Context, id string, p block.Proposal) error {
		_, err := n.volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: id, OnlyWithoutSnapshots: true})
		if !errors.Is(err, block.ErrInUse) || !strings.Contains(err.Error(), "snapshots would be lost, of which it has 1") {
			t.Errorf("deleted under a snapshot: %v", err)
		}
		return n.engineWork(ctx, id, p)
	})
	snapshot := n.snapshot(ctx, "s", volume)
	if _, err := n.snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: snapshot.GetId()}); err != nil {
		t.Fatal(err)
	}
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume, OnlyWithoutSnapshots: true})
	if _, err := n.snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: "late", VolumeId: volume}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("a snapshot of what is deleted: %v", err)
	}
}
