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

// spec is what a replica was made from.
func (h *host) spec(id block.ReplicaID) ReplicaSpec {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.specs[id]
}

// member finds the node of a replica.
func (g group) member(id block.NodeID) *node {
	for _, n := range g {
		if n.NodeID() == id {
			return n
		}
	}
	g[0].t.Fatalf("no node %s", id)
	return nil
}

// wantShares fails unless the in-sync replicas of a volume were made beside those of
// its source, and there are so many of them.
func (g group) wantShares(v, source state.Volume, snapshot block.SnapshotID, shares int) {
	g[0].t.Helper()
	for _, m := range v.View.Replicas {
		spec := g.member(m.Node).host.spec(m.ID)
		if !m.InSync {
			if !spec.Source.IsZero() || m.Removed == 0 {
				g[0].t.Errorf("absent replica %+v was made from %+v", m, spec)
			}
			continue
		}
		shares--
		of := source.View.Member(spec.Source)
		if of == nil || of.Disk != m.Disk || spec.Snapshot != snapshot || spec.Size != v.View.Size {
			g[0].t.Errorf("replica %+v was made from %+v", m, spec)
		}
	}
	if shares != 0 {
		g[0].t.Errorf("%d more replicas share bytes than should: %+v", -shares, v)
	}
}

func TestVolumeFromSnapshot(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	source := g[0].create(ctx, createRequest("source", 2))
	r := g[0].snapshot(ctx, "s", source)
	parsed, err := parseSnapshotID(r.GetId())
	if err != nil {
		t.Fatal(err)
	}
	req := createRequest("copy", 3)
	req.SourceSnapshotId, req.SizeBytes = r.GetId(), 2<<30
	asked := g.follower(ctx)
	v, err := asked.volumes().CreateVolume(ctx, req)
	if err != nil || v.GetState() != holdfastv1.Volume_READY || v.GetSourceSnapshotId() != r.GetId() || v.GetSourceVolumeId() != "" {
		t.Fatalf("%v, %v", v, err)
	}
	leader := g.leader(ctx)
	g.wantShares(leader.volume(v.GetId()), leader.volume(source), parsed, 2)
	// It may be repeated, also when the snapshot is gone.
	if _, err := asked.snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: r.GetId()}); err != nil {
		t.Fatal(err)
	}
	if again, err := asked.volumes().CreateVolume(ctx, req); err != nil || again.GetId() != v.GetId() {
		t.Fatalf("%v, %v", again, err)
	}
	req.SourceSnapshotId = newTestID(t).String()
	if _, err := asked.volumes().CreateVolume(ctx, req); !errors.Is(err, block.ErrExists) {
		t.Fatalf("another source for the same name: %v", err)
	}
}

func TestCloneOfVolume(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	source := g[0].create(ctx, createRequest("source", 3))
	req := createRequest("copy", 2)
	req.SourceVolumeId = source
	v, err := g[1].volumes().CreateVolume(ctx, req)
	if err != nil || v.GetSourceVolumeId() != source || v.GetSourceSnapshotId() != "" {
		t.Fatalf("%v, %v", v, err)
	}
	leader := g.leader(ctx)
	made := leader.volume(v.GetId())
	g.wantShares(made, leader.volume(source), made.Source.Snapshot, 2)
	if again, err := g[2].volumes().CreateVolume(ctx, req); err != nil || again.GetId() != v.GetId() {
		t.Fatalf("%v, %v", again, err)
	}
	for r := range leader.State().Snapshots() {
		t.Errorf("left behind: %+v", r)
	}
}

func TestSourcesThatCannotBe(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	source := g[0].create(ctx, createRequest("source", 1))
	r := g[0].snapshot(ctx, "s", source)
	from := func(change func(*holdfastv1.CreateVolumeRequest)) error {
		req := createRequest("copy", 1)
		change(req)
		return second(g[0].volumes().CreateVolume(ctx, req))
	}
	other := g.member(g[0].volume(source).View.Replicas[0].Node)
	for _, n := range g {
		if n != other {
			other = n
			break
		}
	}
	for what, c := range map[string]struct {
		change func(*holdfastv1.CreateVolumeRequest)
		want   error
	}{
		"both":                {func(r *holdfastv1.CreateVolumeRequest) { r.SourceSnapshotId, r.SourceVolumeId = source, source }, block.ErrInvalid},
		"no ID":               {func(r *holdfastv1.CreateVolumeRequest) { r.SourceSnapshotId = "x" }, block.ErrInvalid},
		"no volume ID":        {func(r *holdfastv1.CreateVolumeRequest) { r.SourceVolumeId = "x" }, block.ErrInvalid},
		"an unknown snapshot": {func(r *holdfastv1.CreateVolumeRequest) { r.SourceSnapshotId = source }, block.ErrNotFound},
		"an unknown volume":   {func(v *holdfastv1.CreateVolumeRequest) { v.SourceVolumeId = r.GetId() }, block.ErrNotFound},
		"smaller":             {func(v *holdfastv1.CreateVolumeRequest) { v.SourceSnapshotId, v.SizeBytes = r.GetId(), 1<<29 }, block.ErrInvalid},
		"smaller than it":     {func(v *holdfastv1.CreateVolumeRequest) { v.SourceVolumeId, v.SizeBytes = source, 1<<29 }, block.ErrInvalid},
		"on another node": {func(v *holdfastv1.CreateVolumeRequest) {
			v.SourceSnapshotId, v.Parameters.NodeTags = r.GetId(), []string{other.options.Name}
		}, block.ErrNoCapacity},
		"larger than the disk": {func(v *holdfastv1.CreateVolumeRequest) { v.SourceVolumeId, v.SizeBytes = source, 100<<30 }, block.ErrNoCapacity},
	} {
		if err := from(c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	leader := g.leader(ctx)
	for s := range leader.State().Snapshots() {
		if s.Name != "s" {
			t.Errorf("left behind: %+v", s)
		}
	}
	// What a leader that died has left behind goes after a while.
	id := leader.volume(source).ID
	if _, err := leader.createSnapshot(ctx, meansPrefix+"something", id); err != nil {
		t.Fatal(err)
	}
	leader.sweepMeans(ctx, time.Now())
	if _, ok := leader.State().SnapshotByName(meansPrefix + "something"); !ok {
		t.Fatal("swept at once")
	}
	leader.sweepMeans(ctx, time.Now().Add(meansAge+time.Minute))
	if _, ok := leader.State().SnapshotByName(meansPrefix + "something"); ok {
		t.Fatal("not swept")
	}
	if _, ok := leader.State().SnapshotByName("s"); !ok {
		t.Fatal("a user's snapshot was swept")
	}
}

// TestSourceIsPinned: while a copy is being made, its snapshot and the volume of that
// stay, and a copy that is given up lets them go.
func TestSourceIsPinned(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	source := g[0].create(ctx, createRequest("source", 1))
	held := make(chan struct{})
	g[0].host.setCreate(func(ctx context.Context) error {
		select {
		case <-held:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	req := createRequest("copy", 1)
	req.SourceVolumeId = source
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := g[0].volumes().CreateVolume(short, req); !errors.Is(err, block.ErrUnavailable) || !strings.Contains(err.Error(), "not made yet") {
		t.Fatalf("made by nobody: %v", err)
	}
	made, ok := g[0].State().VolumeByName("copy")
	if !ok {
		t.Fatal("no record")
	}
	_, err := g[0].snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: made.Source.Snapshot.String()})
	if !errors.Is(err, block.ErrInUse) {
		t.Fatalf("the snapshot: %v", err)
	}
	if _, err := g[0].volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: source}); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("the volume: %v", err)
	}
	close(held)
	v, err := g[0].volumes().CreateVolume(ctx, req)
	if err != nil || v.GetId() != made.ID.String() {
		t.Fatalf("%v, %v", v, err)
	}
	if _, err := g[0].volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: source}); err != nil {
		t.Fatal(err)
	}
}

// TestReplicaWithoutItsSourceIsNotMade: it would be empty, and taken for a copy.
func TestReplicaWithoutItsSourceIsNotMade(t *testing.T) {
	m := block.Member{ID: block.ReplicaID{ID: placeID('r', 1)}, Disk: block.DiskID{ID: placeID('d', 1)}}
	v := state.Volume{Source: &state.Source{}, View: block.View{Replicas: []block.Member{m}}}
	if spec, ok := replicaSpec(&state.State{}, &v, m); ok {
		t.Fatalf("it would be made as %+v", spec)
	}
	v.Absent = []block.ReplicaID{m.ID}
	if _, ok := replicaSpec(&state.State{}, &v, m); !ok {
		t.Fatal("an absent one would not be made")
	}
}
