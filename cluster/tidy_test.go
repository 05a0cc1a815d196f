package cluster

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// TestGrowthOutlivesItsCaller: the leader that was asked dies after the intent, nobody
// asks again, and the volume is grown.
func TestGrowthOutlivesItsCaller(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	leader := g.leader(ctx)
	volume := leader.create(ctx, createRequest("data", 3))
	var asked atomic.Int32
	for _, member := range g {
		member.host.setWork(func(context.Context, string, block.Proposal) error {
			asked.Add(1)
			return block.ErrUnavailable
		})
	}
	calling, hangUp := context.WithCancel(ctx)
	called := make(chan error, 1)
	go func() {
		called <- second(leader.volumes().ExpandVolume(calling, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: 2 << 30}))
	}()
	waitFor(ctx, t, "the intent", func() bool { return leader.volume(volume).GrowTo == 2<<30 && asked.Load() > 0 })
	hangUp()
	if err := <-called; err == nil {
		t.Fatal("grown by nobody")
	}
	leader.halt()
	next := g.leader(ctx)
	for _, member := range g {
		member.host.setWork(member.engineWork)
	}
	waitFor(ctx, t, "growth that nobody asks for again", func() bool {
		v := next.volume(volume)
		return v.View.Size == 2<<30 && v.GrowTo == 0 && !v.Borrowed()
	})
}

// TestGrowthInTheTrash is finished there as well.
func TestGrowthInTheTrash(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	n.keepTrash(ctx, time.Hour)
	volume := n.create(ctx, createRequest("data", 1))
	n.host.setWork(func(context.Context, string, block.Proposal) error { return block.ErrUnavailable })
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := n.volumes().ExpandVolume(short, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: 2 << 30}); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("grown by nobody: %v", err)
	}
	n.deleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume})
	n.host.setWork(n.engineWork)
	waitFor(ctx, t, "growth", func() bool { return n.volume(volume).View.Size == 2<<30 })
	if v := n.volume(volume); !v.InTrash() {
		t.Fatalf("after the growth: %+v", v)
	}
}

// TestSnapshotSpace: what snapshots hold is bounded, in bytes or in percent, and the
// bound can be changed.
func TestSnapshotSpace(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	n := g.follower(ctx)
	req := createRequest("data", 2)
	req.Parameters.MaxSnapshotSpace = &holdfastv1.SpaceLimit{Percent: 10}
	volume := n.create(ctx, req)
	holds := func(bytes int64) {
		for _, member := range g {
			member.host.setUsage(&holdfastv1.VolumeUsage{UsedBytes: 1 << 30, SnapshotBytes: bytes})
		}
	}
	take := func(name string) error {
		_, err := n.snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: name, VolumeId: volume})
		return err
	}
	set := func(l *holdfastv1.SpaceLimit) *holdfastv1.Volume {
		t.Helper()
		v, err := n.volumes().SetVolume(ctx, &holdfastv1.SetVolumeRequest{Id: volume, MaxSnapshotSpace: l})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	// The first one cannot be too much, nor does anybody need to know.
	n.snapshot(ctx, "first", volume)
	holds(102 << 20)
	n.snapshot(ctx, "second", volume)
	holds(103 << 20)
	err := take("third")
	if !errors.Is(err, block.ErrNoCapacity) || !strings.Contains(err.Error(), `the 2 snapshots of volume "data" hold 103 MiB and may hold 102 MiB (10% of its size): delete some`) {
		t.Fatalf("past the bound: %v", err)
	}
	if err := take("second"); err != nil {
		t.Fatalf("what is there: %v", err)
	}
	if _, err := n.volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{Name: "clone", SizeBytes: 1 << 30, SourceVolumeId: volume, Parameters: &holdfastv1.VolumeParameters{Replicas: 1}}); err != nil {
		t.Fatalf("a clone, whose snapshot goes with its making: %v", err)
	}
	if v := set(&holdfastv1.SpaceLimit{Bytes: 200 << 20}); v.GetMaxSnapshotSpace().GetBytes() != 200<<20 || v.GetParameters().GetMaxSnapshotSpace().GetPercent() != 10 {
		t.Fatalf("set %v", v)
	}
	n.snapshot(ctx, "third", volume)
	for _, member := range g {
		member.host.setUsage(nil)
	}
	if err := take("fourth"); !errors.Is(err, block.ErrUnavailable) || !strings.Contains(err.Error(), "cannot be found out") {
		t.Fatalf("what nobody can say: %v", err)
	}
	if v := set(&holdfastv1.SpaceLimit{}); v.GetMaxSnapshotSpace() != nil {
		t.Fatalf("set %v", v)
	}
	n.snapshot(ctx, "fourth", volume)
	holds(5 << 30)
	shown, err := n.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume, WithUsage: true})
	if err != nil || shown.GetUsage().GetSnapshotBytes() != 5<<30 || shown.GetUsage().GetUsedBytes() != 1<<30 {
		t.Fatalf("shown %v, %v", shown, err)
	}
	if _, err := n.volumes().SetVolume(ctx, &holdfastv1.SetVolumeRequest{Id: volume, MaxSnapshotSpace: &holdfastv1.SpaceLimit{Percent: 5000}}); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("a bound of 5000 percent: %v", err)
	}
}
