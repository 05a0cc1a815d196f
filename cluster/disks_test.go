package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// diskOf finds a disk as the cluster shows it, nil if there is none.
func (n *node) diskOf(t *testing.T, id string) *holdfastv1.Disk {
	t.Helper()
	resp, err := n.nodes().ListDisks(testContext(t), &holdfastv1.ListDisksRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range resp.GetDisks() {
		if d.GetId() == id {
			return d
		}
	}
	return nil
}

// TestCordonDisk: nothing new is placed on a cordoned disk; what is there stays.
func TestCordonDisk(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	id := g[1].host.Disks()[0].ID.String()
	disk, err := g.follower(ctx).nodes().CordonDisk(ctx, &holdfastv1.CordonDiskRequest{DiskId: id, Cordoned: true})
	if err != nil || !disk.GetCordoned() || disk.GetId() != id {
		t.Fatalf("cordoned %v: %v", disk, err)
	}
	_, err = g[0].volumes().CreateVolume(ctx, createRequest("three", 3))
	if !errors.Is(err, block.ErrNoCapacity) || !strings.Contains(err.Error(), "cordoned") {
		t.Fatalf("created on a cordoned disk: %v", err)
	}
	if _, err := g[0].nodes().CordonDisk(ctx, &holdfastv1.CordonDiskRequest{DiskId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := g[0].volumes().CreateVolume(ctx, createRequest("three", 3)); err != nil {
		t.Fatalf("uncordoned: %v", err)
	}
	if _, err := g[0].nodes().CordonDisk(ctx, &holdfastv1.CordonDiskRequest{DiskId: "xyz"}); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("cordoned xyz: %v", err)
	}
}

// TestRemoveDisk: a disk with replicas stays, an empty one goes and its node closes it,
// also when it was away; it can be added again.
func TestRemoveDisk(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	v, err := g[0].volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil {
		t.Fatal(err)
	}
	away := g.follower(ctx)
	id := away.host.Disks()[0].ID
	_, err = g[0].nodes().RemoveDisk(ctx, &holdfastv1.RemoveDiskRequest{DiskId: id.String()})
	if !errors.Is(err, block.ErrInUse) || !strings.Contains(err.Error(), `"data"`) {
		t.Fatalf("removed a disk with a replica: %v", err)
	}
	if _, err := g[0].volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: v.GetId()}); err != nil {
		t.Fatal(err)
	}
	leader := g.leader(ctx)
	waitFor(ctx, t, "the end of the volume", func() bool { return leader.State().VolumeCount() == 0 })

	away.halt()
	if _, err := leader.nodes().RemoveDisk(ctx, &holdfastv1.RemoveDiskRequest{DiskId: id.String()}); err != nil {
		t.Fatal(err)
	}
	if d := leader.diskOf(t, id.String()); d != nil {
		t.Fatalf("it is listed: %v", d)
	}
	if !away.host.holds(id) {
		t.Fatal("a node that is away closed it")
	}
	away.start()
	waitFor(ctx, t, "the node to close the disk", func() bool { return len(away.host.Disks()) == 0 })

	again, err := away.nodes().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: "/disk"})
	if err != nil || again.GetId() != id.String() {
		t.Fatalf("added again as %v: %v", again, err)
	}
	if leader.diskOf(t, id.String()) == nil || len(away.host.Disks()) != 1 {
		t.Fatal("it is not back")
	}
}

// TestMoveDisk: a disk that was pulled out of one node and put into another goes there
// with its replicas, while the first node lives; a copy of a disk that works does not.
func TestMoveDisk(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	if _, err := g[0].volumes().CreateVolume(ctx, createRequest("data", 1)); err != nil {
		t.Fatal(err)
	}
	v, _ := g.leader(ctx).State().VolumeByName("data")
	from, to := g[0], g[1]
	for i, member := range g {
		if member.NodeID() == v.View.Replicas[0].Node {
			from, to = member, g[(i+1)%len(g)]
		}
	}
	disk := from.host.Disks()[0]
	to.host.plug("/plugged", disk)
	_, err := to.nodes().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: "/plugged"})
	if !errors.Is(err, block.ErrExists) || !strings.Contains(err.Error(), "copy") {
		t.Fatalf("a copy was taken: %v", err)
	}
	if to.host.holds(disk.ID) || !from.host.holds(disk.ID) {
		t.Fatal("the copy is open, or the disk is not")
	}

	from.host.report("/disk", func(d *DiskReport) { d.Failure = "pulled out" })
	waitFor(ctx, t, "the failure to be known", func() bool { return to.diskOf(t, disk.ID.String()).GetFailure() != "" })
	if _, err := to.nodes().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: "/plugged"}); err != nil {
		t.Fatal(err)
	}
	v, _ = to.State().VolumeByName("data")
	if v.View.Replicas[0].Node != to.NodeID() || !to.host.holds(disk.ID) {
		t.Fatalf("the replica did not move: %+v", v.View)
	}
	waitFor(ctx, t, "the first node to close it", func() bool { return !from.host.holds(disk.ID) })
}

// TestDiskReports: what a node says of its disks is shown.
func TestDiskReports(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	id := g[1].host.Disks()[0].ID.String()
	g[1].host.report("/disk", func(d *DiskReport) { d.Warning, d.Device = "nearly full", "/dev/sdx" })
	waitFor(ctx, t, "the warning", func() bool {
		d := g[0].diskOf(t, id)
		return d.GetWarning() == "nearly full" && d.GetDevice() == "/dev/sdx" && d.GetFailure() == ""
	})
}
