package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// create makes a volume and returns its ID.
func (n *node) create(ctx context.Context, req *holdfastv1.CreateVolumeRequest) string {
	n.t.Helper()
	v, err := n.volumes().CreateVolume(ctx, req)
	if err != nil {
		n.t.Fatal(err)
	}
	return v.GetId()
}

func (n *node) snapshot(ctx context.Context, name, volume string) *holdfastv1.Snapshot {
	n.t.Helper()
	r, err := n.snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: name, VolumeId: volume})
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *node) volume(id string) state.Volume {
	n.t.Helper()
	parsed, err := parseVolumeID(id)
	if err != nil {
		n.t.Fatal(err)
	}
	v, ok := n.State().Volume(parsed)
	if !ok {
		n.t.Fatalf("volume %s is gone", id)
	}
	return v
}

func TestSnapshotsOfDetachedAndAttachedVolumes(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	asked := g.follower(ctx)
	volume := asked.create(ctx, createRequest("data", 3))
	first := asked.snapshot(ctx, "monday", volume)
	if !first.GetReady() || first.GetSizeBytes() != 1<<30 || first.GetVolumeId() != volume || time.Since(first.GetCreated().AsTime()) > time.Hour {
		t.Fatalf("snapshot %v", first)
	}
	// The same name is the same snapshot, and needs no engine.
	for _, member := range g {
		member.host.setWork(func(context.Context, string, block.Proposal) error { return block.ErrIO })
	}
	if again := g.leader(ctx).snapshot(ctx, "monday", volume); !proto.Equal(again, first) {
		t.Fatalf("the same name made %v, it was %v", again, first)
	}
	attached := g[2]
	attached.attach(ctx, volume)
	attached.host.setWork(attached.engineWork)
	second := asked.snapshot(ctx, "tuesday", volume)
	got, err := asked.snapshots().GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Name: "tuesday", WithUsage: true})
	if err != nil || got.GetId() != second.GetId() || got.GetUsage().GetUniqueBytes() != 4096 {
		t.Fatalf("found %v, %v", got, err)
	}
	shown, err := asked.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume})
	if err != nil || shown.GetSnapshotCount() != 2 {
		t.Fatalf("volume %v, %v", shown, err)
	}
	for range 2 {
		if _, err := asked.snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: first.GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := asked.snapshots().GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Id: first.GetId()}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("a deleted snapshot: %v", err)
	}
}

func TestListSnapshots(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	mine, other := g[0].create(ctx, createRequest("mine", 1)), g[0].create(ctx, createRequest("other", 1))
	want := map[string]bool{}
	for i := range 5 {
		want[g[0].snapshot(ctx, fmt.Sprint("s", i), mine).GetId()] = true
	}
	g[0].snapshot(ctx, "foreign", other)
	token, pages := "", 0
	for {
		page, err := g[0].snapshots().ListSnapshots(ctx, &holdfastv1.ListSnapshotsRequest{VolumeId: mine, MaxEntries: 2, StartingToken: token, WithUsage: true})
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, r := range page.GetSnapshots() {
			if !want[r.GetId()] || r.GetUsage() == nil {
				t.Fatalf("unexpected %v", r)
			}
			delete(want, r.GetId())
		}
		if token = page.GetNextToken(); token == "" {
			break
		}
	}
	if len(want) != 0 || pages != 3 {
		t.Fatalf("%d pages, these are missing: %v", pages, want)
	}
	if all, err := g[0].snapshots().ListSnapshots(ctx, &holdfastv1.ListSnapshotsRequest{}); err != nil || len(all.GetSnapshots()) != 6 {
		t.Fatalf("all: %v, %v", all, err)
	}
}

func TestSnapshotsThatCannotBe(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	req := createRequest("data", 1)
	req.Parameters.MaxSnapshots = 2
	volume, other := g[0].create(ctx, req), g[0].create(ctx, createRequest("other", 1))
	g[0].snapshot(ctx, "taken", volume)
	refused := func(name, volume string) error {
		_, err := g[0].snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: name, VolumeId: volume})
		return err
	}
	for what, c := range map[string]struct {
		err  error
		want error
	}{
		"no name":                {refused("", volume), block.ErrInvalid},
		"a name of ours":         {refused("clone of x", volume), block.ErrInvalid},
		"no volume":              {refused("x", ""), block.ErrInvalid},
		"an unknown volume":      {refused("x", newTestID(t).String()), block.ErrNotFound},
		"the name of another's":  {refused("taken", other), block.ErrExists},
		"a token":                {second(g[0].snapshots().ListSnapshots(ctx, &holdfastv1.ListSnapshotsRequest{StartingToken: "x"})), block.ErrInvalid},
		"fewer than no snapshot": {second(g[0].snapshots().ListSnapshots(ctx, &holdfastv1.ListSnapshotsRequest{MaxEntries: -1})), block.ErrInvalid},
		"nothing to find":        {second(g[0].snapshots().GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{})), block.ErrInvalid},
		"no ID to delete":        {second(g[0].snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: "x"})), block.ErrInvalid},
		"too many allowed": {second(g[0].volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{Name: "y", SizeBytes: 1,
			Parameters: &holdfastv1.VolumeParameters{Replicas: 1, MaxSnapshots: snapshotsMax + 1}})), block.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
	g[0].snapshot(ctx, "last", volume)
	if err := refused("more", volume); !errors.Is(err, block.ErrNoCapacity) || !strings.Contains(err.Error(), "2 snapshots of 2") {
		t.Errorf("past the limit: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestReservationIsTakenBack: a snapshot that cannot be taken leaves nothing behind.
func TestReservationIsTakenBack(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	volume := g[0].create(ctx, createRequest("data", 1))
	g[0].host.setWork(func(context.Context, string, block.Proposal) error {
		return fmt.Errorf("frozen: %w", block.ErrUnavailable)
	})
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := g[0].snapshots().CreateSnapshot(short, &holdfastv1.CreateSnapshotRequest{Name: "s", VolumeId: volume})
	if !errors.Is(err, block.ErrUnavailable) || !strings.Contains(err.Error(), "frozen") {
		t.Fatalf("error %v", err)
	}
	if r, ok := g[0].State().SnapshotByName("s"); ok {
		t.Fatalf("left behind: %+v", r)
	}
	// Published to a node that has not staged it, nobody may touch it.
	if _, err := g[0].volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: g[0].NodeID().String()}); err != nil {
		t.Fatal(err)
	}
	short, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = g[0].snapshots().CreateSnapshot(short, &holdfastv1.CreateSnapshotRequest{Name: "s", VolumeId: volume})
	if !errors.Is(err, block.ErrUnavailable) || !strings.Contains(err.Error(), "not staged") {
		t.Fatalf("error %v", err)
	}
}

// TestGivenUpCutGetsAnotherID: some replica may hold it under the old one.
func TestGivenUpCutGetsAnotherID(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	volume := g[0].create(ctx, createRequest("data", 1))
	var mu sync.Mutex
	var asked []block.SnapshotID
	g[0].host.setWork(func(ctx context.Context, volume string, p block.Proposal) error {
		mu.Lock()
		asked = append(asked, p.Snapshot.ID)
		n := len(asked)
		mu.Unlock()
		switch n {
		case 1:
			return fmt.Errorf("not served yet: %w", block.ErrUnavailable)
		case 2:
			return fmt.Errorf("given up: %w", block.ErrConflict)
		case 3:
			return errors.New("what became of it is not known")
		default:
			return g[0].engineWork(ctx, volume, p)
		}
	})
	r := g[0].snapshot(ctx, "s", volume)
	if len(asked) != 4 || asked[0] != asked[1] || asked[1] == asked[2] || asked[2] == asked[3] || r.GetId() != asked[3].String() {
		t.Fatalf("asked for %v, got %v", asked, r)
	}
	if n := g[0].volume(volume).View.Snapshots; len(n) != 1 {
		t.Fatalf("snapshots %v", n)
	}
}

// TestAgentForgetsCuts of deleted snapshots, of volumes that nobody serves.
func TestAgentForgetsCuts(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	volume := n.create(ctx, createRequest("data", 1))
	r := n.snapshot(ctx, "s", volume)
	parsed, err := parseSnapshotID(r.GetId())
	if err != nil {
		t.Fatal(err)
	}
	replica := n.volume(volume).View.Replicas[0].ID
	n.host.setCuts(replica, HeldCuts{Cuts: []block.Cut{{Snapshot: parsed, Valid: true}, {Snapshot: block.KeptHead, Kept: true}}})
	cuts := func() int { return len(n.host.Cuts(replica).Cuts) }
	if _, err := n.snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: r.GetId()}); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the cut to be forgotten", func() bool { return cuts() == 1 })
}

func TestStraysOf(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	volume := n.create(ctx, createRequest("data", 1))
	r := n.snapshot(ctx, "s", volume)
	listed, err := parseSnapshotID(r.GetId())
	if err != nil {
		t.Fatal(err)
	}
	v := n.volume(volume)
	stray := block.SnapshotID{ID: newTestID(t)}
	replica := v.View.Replicas[0].ID
	held := HeldCuts{Epoch: v.View.Epoch, Revision: v.View.Revision,
		Cuts: []block.Cut{{Snapshot: listed}, {Snapshot: stray}, {Snapshot: block.KeptHead, Kept: true}}}
	strays := func(memory *agentMemory, id block.ReplicaID, held HeldCuts) []block.SnapshotID {
		other := newHost()
		other.setCuts(id, held)
		c := &Cluster{options: Options{Replicas: other}}
		return c.straysOf(n.State(), memory, id)
	}
	memory := newAgentMemory()
	for range 2 {
		if got := strays(memory, replica, held); len(got) != 1 || got[0] != stray {
			t.Errorf("strays %v", got)
		}
	}
	newer := held
	newer.Revision++
	if got := strays(memory, replica, newer); len(got) != 0 {
		t.Errorf("of a newer revision: strays %v", got)
	}
	newer.Epoch, newer.Revision = held.Epoch+1, 0
	if got := strays(memory, replica, newer); len(got) != 0 {
		t.Errorf("of a newer epoch: strays %v", got)
	}
	if got := strays(memory, block.ReplicaID{ID: newTestID(t)}, held); len(got) != 0 {
		t.Errorf("of an unknown replica: strays %v", got)
	}
	// What was clean is not looked at again before the volume has changed.
	if got := strays(memory, replica, HeldCuts{Cuts: held.Cuts[:1]}); len(got) != 0 || memory.clean[replica] != v.View.Revision {
		t.Errorf("of a clean replica: strays %v", got)
	}
	if got := strays(memory, replica, held); len(got) != 0 {
		t.Errorf("looked at again: strays %v", got)
	}
	n.attach(ctx, volume)
	if got := strays(memory, replica, held); len(got) != 0 {
		t.Errorf("an engine serves it: strays %v", got)
	}
}

// TestSameSnapshotAskedForAtOnce: many requests of one name get one snapshot, though
// some are given up and take the reservation back.
func TestSameSnapshotAskedForAtOnce(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	volume := g[0].create(ctx, createRequest("data", 1))
	release := make(chan struct{})
	var turn sync.Mutex
	g[0].host.setWork(func(ctx context.Context, volume string, p block.Proposal) error {
		select {
		case <-release:
		case <-ctx.Done():
			return ctx.Err()
		}
		turn.Lock()
		defer turn.Unlock()
		return g[0].engineWork(ctx, volume, p)
	})
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := g[0].snapshots().CreateSnapshot(short, &holdfastv1.CreateSnapshotRequest{Name: "s", VolumeId: volume}); err == nil {
		t.Fatal("a snapshot was taken by nobody")
	}
	var asking sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		asking.Go(func() {
			r, err := g[0].snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: "s", VolumeId: volume})
			if err != nil {
				t.Error(err)
			}
			ids[i] = r.GetId()
		})
	}
	close(release)
	asking.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("snapshots %v", ids)
		}
	}
}

func TestExpandVolume(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	asked := g.follower(ctx)
	volume := asked.create(ctx, createRequest("data", 2))
	expand := func(size int64) (*holdfastv1.Volume, error) {
		return asked.volumes().ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: size})
	}
	if v, err := expand(2<<30 - 5); err != nil || v.GetSizeBytes() != 2<<30 || v.GetExpandingToBytes() != 0 {
		t.Fatalf("detached: %v, %v", v, err)
	}
	if _, err := expand(1 << 30); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("shrunk: %v", err)
	}
	if v, err := expand(2 << 30); err != nil || v.GetSizeBytes() != 2<<30 {
		t.Fatalf("again: %v, %v", v, err)
	}
	if _, err := expand(80 << 30); !errors.Is(err, block.ErrNoCapacity) || !strings.Contains(err.Error(), "promised to volumes") {
		t.Fatalf("beyond the disks: %v", err)
	}
	if _, err := asked.volumes().ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: newTestID(t).String(), SizeBytes: 1}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("an unknown volume: %v", err)
	}
	owner := g[1]
	owner.attach(ctx, volume)
	if v, err := expand(3 << 30); err != nil || v.GetSizeBytes() != 3<<30 {
		t.Fatalf("attached: %v, %v", v, err)
	}
	// The device of an attached volume may be behind what is committed.
	calls := 0
	owner.host.setWork(func(context.Context, string, block.Proposal) error { calls++; return nil })
	if v, err := expand(3 << 30); err != nil || calls != 1 || v.GetSizeBytes() != 3<<30 {
		t.Fatalf("attached again: %v, %v, %d calls", v, err, calls)
	}
	// An intent that could not be carried out stays.
	owner.host.setWork(func(context.Context, string, block.Proposal) error { return block.ErrUnavailable })
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := asked.volumes().ExpandVolume(short, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: 4 << 30}); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("nobody did it: %v", err)
	}
	if v, err := asked.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume}); err != nil || v.GetExpandingToBytes() != 4<<30 || v.GetSizeBytes() != 3<<30 {
		t.Fatalf("the intent: %v, %v", v, err)
	}
}

func TestBorrowedVolumeIsPublishedAfterwards(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	volume := g[0].create(ctx, createRequest("data", 3))
	id := g[0].volume(volume).ID
	borrowed, err := g[1].BorrowVolume(ctx, id, block.StartID{ID: newTestID(t)}, false)
	if err != nil {
		t.Fatal(err)
	}
	if attached, err := g[1].Attached(ctx); err != nil || len(attached) != 0 {
		t.Fatalf("attached %v, %v", attached, err)
	}
	if views := g[1].Borrowed(); len(views) != 1 || views[0].Attachment != borrowed.View.Attachment {
		t.Fatalf("borrowed %+v", views)
	}
	publish := &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: g[2].NodeID().String()}
	short, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if _, err := g[2].volumes().PublishVolume(short, publish); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("published while it is borrowed: %v", err)
	}
	published := make(chan error, 1)
	go func() { published <- second(g[2].volumes().PublishVolume(ctx, publish)) }()
	select {
	case err := <-published:
		t.Fatalf("published while it is borrowed: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := g[1].EndAttachment(ctx, id, borrowed.View.Attachment); err != nil {
		t.Fatal(err)
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
}

func TestDeadBorrowerIsFenced(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	volume := g[0].create(ctx, createRequest("data", 3))
	victim := g.follower(ctx)
	if _, err := victim.BorrowVolume(ctx, g[0].volume(volume).ID, block.StartID{ID: newTestID(t)}, false); err != nil {
		t.Fatal(err)
	}
	victim.halt()
	leader := g.leader(ctx)
	if _, err := leader.volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: leader.NodeID().String()}); err != nil {
		t.Fatalf("published after the borrower's death: %v", err)
	}
	leader.attach(ctx, volume)
}
