package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// on is how many replicas the state has on a disk, deleted ones included.
func (n *node) on(disk block.DiskID) int { return len(n.State().ReplicasOn(disk)) }

// TestDrain moves the replicas of detached volumes off a disk, one of which cannot be
// resynced at first, and goes on under another leader.
func TestDrain(t *testing.T) {
	g := newGroup(t, 4)
	ctx := testContext(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		g[0].create(ctx, createRequest(name, 3))
	}
	leader := g.leader(ctx)
	v, _ := leader.State().VolumeByName("a")
	disk := v.View.Replicas[0].Disk
	before := leader.on(disk)
	failed := make(chan struct{}, 1000)
	for _, member := range g {
		member.host.setResync(func(context.Context, string, []block.ReplicaID) error {
			failed <- struct{}{}
			return block.ErrUnavailable
		})
	}
	shown, err := g.follower(ctx).nodes().DrainDisk(ctx, &holdfastv1.DrainDiskRequest{DiskId: disk.String()})
	if err != nil || !shown.GetDraining() || !shown.GetCordoned() || len(shown.GetMoves()) != before {
		t.Fatalf("draining: %v, %v", shown, err)
	}
	select {
	case <-failed:
	case <-ctx.Done():
		t.Fatal("no resync was asked for")
	}
	if _, err := g[0].nodes().RemoveDisk(ctx, &holdfastv1.RemoveDiskRequest{DiskId: disk.String()}); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("removed: %v", err)
	}
	leader.halt()
	for _, member := range g {
		member.host.setResync(member.engineResync)
	}
	next := g.leader(ctx)
	leader.start()
	waitFor(ctx, t, "the disk to be empty", func() bool { return next.on(disk) == 0 })
	for _, name := range names {
		v, _ := next.State().VolumeByName(name)
		if v.View.InSync() != 3 || len(v.View.Replicas) != 3 || len(v.Replacing)+len(v.Retired) != 0 {
			t.Errorf("%+v", v)
		}
	}
	if _, err := next.nodes().RemoveDisk(ctx, &holdfastv1.RemoveDiskRequest{DiskId: disk.String()}); err != nil {
		t.Fatal(err)
	}
}

// TestDrainIsTakenBack: what was begun and is not in sync is given up.
func TestDrainIsTakenBack(t *testing.T) {
	g := newGroup(t, 4)
	ctx := testContext(t)
	id := g[0].create(ctx, createRequest("a", 3))
	for _, member := range g {
		member.host.setResync(func(context.Context, string, []block.ReplicaID) error { return block.ErrUnavailable })
	}
	before := slices.Clone(g[0].volume(id).View.Replicas)
	disk := before[1].Disk.String()
	if _, err := g[0].nodes().DrainDisk(ctx, &holdfastv1.DrainDiskRequest{DiskId: disk}); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "a fourth replica", func() bool { return len(g[0].volume(id).View.Replicas) == 4 })
	if _, err := g[0].nodes().CordonDisk(ctx, &holdfastv1.CordonDiskRequest{DiskId: disk}); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the fourth replica to be deleted", func() bool {
		v := g[0].volume(id)
		return slices.Equal(v.View.Replicas, before) && len(v.Replacing)+len(v.Retired) == 0
	})
	for _, member := range g {
		for _, r := range member.host.Replicas() {
			if !slices.ContainsFunc(before, func(m block.Member) bool { return m.ID == r.Replica }) {
				t.Errorf("replica %s is left on a disk", r.Replica)
			}
		}
	}
}

// TestAbsentReplicasOfDetachedVolumes are brought in sync without a drain.
func TestAbsentReplicasOfDetachedVolumes(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	id := g[0].create(ctx, createRequest("a", 3))
	v := g[1].attach(ctx, id)
	if err := g[1].engineWork(ctx, id, block.Proposal{Remove: []block.ReplicaID{v.View.Replicas[0].ID}}); err != nil {
		t.Fatal(err)
	}
	g[1].host.setUnstage(func(context.Context, string) error { return nil })
	if _, err := g[0].volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: id}); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "all replicas to be in sync", func() bool { v := g[0].volume(id); return v.View.InSync() == 3 })
}

// TestPublicationEndsAResync at once.
func TestPublicationEndsAResync(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	id := g[0].create(ctx, createRequest("a", 3))
	v, err := g[1].BorrowVolume(ctx, g[0].volume(id).ID, block.StartID{ID: newTestID(t)}, true)
	if err != nil || !v.Yields {
		t.Fatalf("borrowed %+v, %v", v, err)
	}
	g[2].attach(ctx, id)
	if v := g[2].volume(id); v.View.Owner != g[2].NodeID() || v.View.Epoch != 2 {
		t.Fatalf("attached %+v", v.View)
	}
}

// TestTurnsOfResyncs: so many at a time, each rests longer after each failure, and what
// needs none any more is forgotten.
func TestTurnsOfResyncs(t *testing.T) {
	clock := &handClock{}
	m := &mover{cluster: &Cluster{options: Options{Clock: clock}}, rests: map[block.VolumeID]*rest{}}
	var wanted []resyncWork
	for n := range byte(3) {
		wanted = append(wanted, resyncWork{volume: state.Volume{ID: block.VolumeID{ID: placeID('v', n)}}})
	}
	if got := m.pick(wanted, 2); len(got) != 0 {
		t.Fatalf("at once: %v", got)
	}
	clock.now += block.Instant(calm)
	got := m.pick(wanted, 2)
	if len(got) != 2 || len(m.pick(wanted, 2)) != 0 {
		t.Fatalf("two at a time: %v", got)
	}
	m.rests[got[0].volume.ID].running = false
	m.rests[got[0].volume.ID].until = clock.now + 1
	if again := m.pick(wanted, 2); len(again) != 1 || again[0].volume.ID == got[0].volume.ID {
		t.Fatalf("one rests, and another takes its turn: %v", again)
	}
	if m.pick(nil, 2); len(m.rests) != 2 {
		t.Fatalf("%d are remembered", len(m.rests))
	}
	if first, most := resyncPause(0), resyncPause(1000); first <= 0 || resyncPause(1) != 2*first || most != resyncPause(20) {
		t.Fatalf("pauses %v, %v", first, most)
	}
}
