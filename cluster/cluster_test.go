package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness/loopback"
)

// TestLifeOfACluster leads three members through bootstrap, join, the life of a
// volume, the loss of the leader, and the restart of one and of all.
func TestLifeOfACluster(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	follower := g.follower(ctx)

	created, err := follower.volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil {
		t.Fatal(err)
	}
	if created.GetState() != holdfastv1.Volume_READY || len(created.GetReplicas()) != 3 {
		t.Fatalf("created %v", created)
	}
	again, err := g.leader(ctx).volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil || again.GetId() != created.GetId() {
		t.Fatalf("created again: %v, %v", again, err)
	}
	if _, err := follower.volumes().CreateVolume(ctx, createRequest("data", 2)); !errors.Is(err, block.ErrExists) || status.Code(err) != codes.AlreadyExists {
		t.Fatalf("created with other parameters: %v", err)
	}

	v := follower.attach(ctx, created.GetId())
	if v.View.Epoch != 1 || v.View.Owner != follower.NodeID() || v.View.InSync() != 3 {
		t.Fatalf("first view %+v", v.View)
	}
	if local, _ := follower.State().Volume(v.ID); !reflect.DeepEqual(local.View, v.View) {
		t.Fatalf("a follower does not read its own write: %+v", local.View)
	}
	removal := block.Proposal{Volume: v.ID, Epoch: 1, Revision: v.View.Revision, Remove: []block.ReplicaID{v.View.Replicas[0].ID}}
	verdict, view := follower.Propose(ctx, removal)
	if verdict != block.Committed || view.InSync() != 2 || view.Revision != v.View.Revision+1 {
		t.Fatalf("removal: %v, %+v", verdict, view)
	}
	if verdict, found := follower.Propose(ctx, removal); verdict != block.Conflict || !reflect.DeepEqual(found, view) {
		t.Fatalf("the same removal again: %v, %+v", verdict, found)
	}
	shown, err := follower.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: "data"})
	if err != nil || !shown.GetEngine().GetServing() || shown.GetEpoch() != 1 {
		t.Fatalf("volume shown as %v, %v", shown, err)
	}

	loseLeader(ctx, t, g, view)
	restartAll(ctx, t, g, v.ID)
}

func loseLeader(ctx context.Context, t *testing.T, g group, view block.View) {
	t.Helper()
	lost := g.leader(ctx)
	lost.halt()
	started := time.Now()
	survivor := g.follower(ctx)
	noop := block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision}
	verdict, after := survivor.Propose(ctx, noop)
	for verdict == block.Unknown {
		// The survivors had not elected a leader yet; a no-op may be repeated.
		verdict, after = survivor.Propose(ctx, noop)
	}
	t.Logf("a view changed %v after the leader was lost", time.Since(started).Round(time.Millisecond))
	if after.Revision != view.Revision+1 {
		t.Fatalf("after the leader was lost: %v, %+v", verdict, after)
	}
	lost.start()
	if err := lost.Wait(ctx, func(s *state.State) bool {
		v, _ := s.Volume(view.Volume)
		return v.View.Revision == after.Revision
	}); err != nil {
		t.Fatalf("the restarted member does not catch up: %v", err)
	}
}

func restartAll(ctx context.Context, t *testing.T, g group, volume block.VolumeID) {
	t.Helper()
	before, _ := g[0].State().Volume(volume)
	nodes := map[*node]block.NodeID{}
	for _, member := range g {
		nodes[member] = member.NodeID()
		member.halt()
	}
	for _, member := range g {
		member.start()
	}
	for _, member := range g {
		if err := member.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		if v, _ := member.State().Volume(volume); !reflect.DeepEqual(v, before) || member.NodeID() != nodes[member] {
			t.Fatalf("after the restart of all: %+v, want %+v", v, before)
		}
	}
}

func TestVolumesGoAway(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	created, err := g[1].volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil {
		t.Fatal(err)
	}
	v := g[1].attach(ctx, created.GetId())
	if _, err := g[2].volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: created.GetId()}); !errors.Is(err, block.ErrInUse) || status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("deleted while attached: %v", err)
	}
	if _, err := g[2].volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: created.GetId(), NodeId: g[2].NodeID().String()}); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("published twice: %v", err)
	}
	if err := g[1].EndAttachment(ctx, v.ID, v.View.Attachment); err != nil {
		t.Fatal(err)
	}
	if _, err := g[1].StartEngine(ctx, v.ID, v.View.Attachment, block.StartID{ID: newTestID(t)}); !errors.Is(err, block.ErrDetached) {
		t.Fatalf("started an attachment that has ended: %v", err)
	}
	if _, err := g[0].volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: created.GetId()}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := g[0].volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: created.GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	for _, member := range g {
		if err := member.Wait(ctx, func(s *state.State) bool { return s.VolumeCount() == 0 }); err != nil {
			t.Fatal(err)
		}
		if left := member.host.Replicas(); len(left) != 0 {
			t.Fatalf("replicas left on %s: %v", member.options.Name, left)
		}
	}
}

// TestUnpublishTakesVolumes from a node that lets go, one that refuses, one that
// hangs and one that is dead.
func TestUnpublishTakesVolumes(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	owner, other := g[2], g[0]
	created, err := other.volumes().CreateVolume(ctx, createRequest("data", 2))
	if err != nil {
		t.Fatal(err)
	}
	unpublish := func() error {
		_, err := other.volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: created.GetId(), NodeId: owner.NodeID().String()})
		return err
	}
	wantGone := func(how string) {
		t.Helper()
		shown, err := other.volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: created.GetId()})
		if err != nil || shown.GetPublishedNodeId() != "" || shown.GetAttachmentId() != "" {
			t.Fatalf("%s: %v, %v", how, shown, err)
		}
	}

	v := owner.attach(ctx, created.GetId())
	owner.host.setUnstage(func(context.Context, string) error { return block.ErrInUse })
	if err := unpublish(); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("a node that refuses: %v", err)
	}
	owner.host.setUnstage(func(ctx context.Context, _ string) error {
		return owner.EndAttachment(ctx, v.ID, v.View.Attachment)
	})
	if err := unpublish(); err != nil {
		t.Fatal(err)
	}
	wantGone("a node that lets go")

	owner.attach(ctx, created.GetId())
	owner.host.setUnstage(func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if err := unpublish(); err != nil {
		t.Fatal(err)
	}
	wantGone("a node that hangs")

	owner.attach(ctx, created.GetId())
	owner.halt()
	if err := unpublish(); err != nil {
		t.Fatal(err)
	}
	wantGone("a dead node")
}

// TestUnknownOutcome takes the quorum away while a proposal is under way.
func TestUnknownOutcome(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	leader := g.leader(ctx)
	created, err := leader.volumes().CreateVolume(ctx, createRequest("data", 3))
	if err != nil {
		t.Fatal(err)
	}
	v := leader.attach(ctx, created.GetId())
	for _, member := range g {
		if member != leader {
			member.halt()
		}
	}
	p := block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision, Remove: []block.ReplicaID{v.View.Replicas[1].ID}}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if verdict, _ := leader.Propose(short, p); verdict != block.Unknown {
		t.Fatalf("without a quorum the verdict is %v", verdict)
	}
	for _, member := range g {
		if member != leader {
			member.start()
		}
	}
	// Another compare-and-set on the same revision ends the doubt (rule 6).
	noop := block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision}
	verdict, view := leader.Propose(ctx, noop)
	for verdict == block.Unknown {
		verdict, view = leader.Propose(ctx, noop)
	}
	if view.Revision <= v.View.Revision || (verdict == block.Committed) != (view.InSync() == 3) {
		t.Fatalf("the doubt ended with %v, %+v", verdict, view)
	}
}

// TestSnapshotIsInstalled lets a member join after the log it would need is gone.
func TestSnapshotIsInstalled(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := g[0].volumes().CreateVolume(ctx, createRequest(name, 1)); err != nil {
			t.Fatal(err)
		}
	}
	config := g[0].raft.ReloadableConfig()
	config.TrailingLogs = 1
	if err := g[0].raft.ReloadConfig(config); err != nil {
		t.Fatal(err)
	}
	if err := g[0].raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if first, err := g[0].disk.logs.FirstIndex(); err != nil || first < 3 {
		t.Fatalf("the log still begins at %d, %v", first, err)
	}
	late := newNode(t, "late", g[0].options.ControlAddress).start()
	if err := late.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := late.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	want, _ := g[0].State().VolumeByName("b")
	if v, ok := late.State().VolumeByName("b"); !ok || !reflect.DeepEqual(v, want) {
		t.Fatalf("the late member has %+v, want %+v", v, want)
	}
	// And again from its own snapshot.
	late.halt()
	late.start()
	if err := late.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if late.State().VolumeCount() != 3 {
		t.Fatalf("%d volumes after a restart", late.State().VolumeCount())
	}
}

func TestForeignersAreRefused(t *testing.T) {
	ours, theirs := newGroup(t, 1), newGroup(t, 1)
	ctx := testContext(t)
	guest := newNode(t, "guest", theirs[0].options.ControlAddress).start()
	if err := guest.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := ours[0].nodes().JoinNode(ctx, &holdfastv1.JoinNodeRequest{Node: guest.ownNode(), ClusterId: theirs[0].ClusterID().String()})
	if !errors.Is(err, block.ErrForeign) {
		t.Fatalf("joined with the ID of another cluster: %v", err)
	}
	// A guest that hides its cluster is found out by its Raft listener.
	_, err = ours[0].nodes().JoinNode(ctx, &holdfastv1.JoinNodeRequest{Node: guest.ownNode()})
	if !errors.Is(err, block.ErrForeign) {
		t.Fatalf("joined as if new: %v", err)
	}
	if ours[0].State().NodeCount() != 1 {
		t.Fatal("a refused node was recorded")
	}
	_, err = holdfastv1.NewPeerClient(ours[0].conn).Apply(ctx, &holdfastv1.ApplyRequest{ClusterId: theirs[0].ClusterID().String()})
	if !errors.Is(err, block.ErrForeign) {
		t.Fatalf("applied a command of another cluster: %v", err)
	}

	// A daemon that is pointed at the wrong cluster says so and ends.
	guest.halt()
	theirs[0].halt()
	guest.options.Join = []string{ours[0].options.ControlAddress}
	guest.start()
	select {
	case err := <-guest.done:
		if !errors.Is(err, block.ErrForeign) {
			t.Fatalf("the guest ended with %v", err)
		}
		guest.done <- nil
	case <-ctx.Done():
		t.Fatal("the guest goes on in the wrong cluster")
	}
}

func TestWrongAddressDoesNotJoin(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	lost := newNode(t, "lost", g[0].options.ControlAddress)
	req := &holdfastv1.JoinNodeRequest{Node: &holdfastv1.Node{
		Id: newTestID(t).String(), Name: "lost", ControlAddress: lost.options.ControlAddress, DataAddress: lost.options.DataAddress, RaftAddress: loopback.FreeAddress(t),
	}}
	if _, err := g[0].nodes().JoinNode(ctx, req); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("joined at an address where nobody is: %v", err)
	}
	req.Node.RaftAddress = g[0].options.RaftAddress
	if _, err := g[0].nodes().JoinNode(ctx, req); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("joined at the address of another node: %v", err)
	}
	for _, address := range []string{"", "nowhere", ":5", "0.0.0.0:5", "host:0"} {
		req.Node.RaftAddress = address
		if _, err := g[0].nodes().JoinNode(ctx, req); !errors.Is(err, block.ErrInvalid) {
			t.Fatalf("joined at %q: %v", address, err)
		}
	}
}

// TestLostRaftState: a member whose Raft state is gone comes back as another
// node, takes its disk along and leaves no dead voter behind (rule 1).
func TestLostRaftState(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	wiped := g.follower(ctx)
	old := wiped.NodeID()
	if _, err := wiped.volumes().CreateVolume(ctx, createRequest("data", 3)); err != nil {
		t.Fatal(err)
	}
	wiped.halt()
	if err := os.RemoveAll(filepath.Join(wiped.options.Dir, "raft")); err != nil {
		t.Fatal(err)
	}
	wiped.options.Bootstrap = false
	wiped.options.Join = []string{g.leader(ctx).options.ControlAddress}
	wiped.start()
	if wiped.NodeID() == old {
		t.Fatal("a node that lost its Raft state kept its ID")
	}
	if err := wiped.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	g.waitVoters(ctx, 3)
	future := g.leader(ctx).raft.GetConfiguration()
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	for _, s := range future.Configuration().Servers {
		if s.ID == serverID(old) || s.Suffrage != raft.Voter {
			t.Fatalf("servers after the return: %v", future.Configuration().Servers)
		}
	}
	var err error
	waitFor(ctx, t, "the end of the old node's lease", func() bool {
		_, err = wiped.nodes().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: "/disk"})
		return !errors.Is(err, block.ErrExists)
	})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := wiped.State().VolumeByName("data")
	found := false
	for _, m := range v.View.Replicas {
		if m.Node == old {
			t.Fatalf("a replica is still on the lost node: %+v", v.View)
		}
		found = found || m.Node == wiped.NodeID()
	}
	if !found {
		t.Fatalf("the replica did not move with its disk: %+v", v.View)
	}
}

func TestBadRequests(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	create := func(change func(*holdfastv1.CreateVolumeRequest)) error {
		req := createRequest("data", 1)
		change(req)
		_, err := g[0].volumes().CreateVolume(ctx, req)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"size zero":       {create(func(r *holdfastv1.CreateVolumeRequest) { r.SizeBytes = 0 }), block.ErrInvalid},
		"size negative":   {create(func(r *holdfastv1.CreateVolumeRequest) { r.SizeBytes = -1 }), block.ErrInvalid},
		"size huge":       {create(func(r *holdfastv1.CreateVolumeRequest) { r.SizeBytes = block.MaxVolumeSize + 1 }), block.ErrInvalid},
		"beyond the disk": {create(func(r *holdfastv1.CreateVolumeRequest) { r.SizeBytes = 100 << 30 }), block.ErrNoCapacity},
		"no replicas":     {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.Replicas = 0 }), block.ErrInvalid},
		"six replicas":    {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.Replicas = 6 }), block.ErrInvalid},
		"two of one node": {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.Replicas = 2 }), block.ErrNoCapacity},
		"min in sync":     {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.MinInSync = 2 }), block.ErrInvalid},
		"class":           {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.DiskClass = "tape" }), block.ErrInvalid},
		"other class":     {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.DiskClass = "nvme" }), block.ErrNoCapacity},
		"tag":             {create(func(r *holdfastv1.CreateVolumeRequest) { r.Parameters.NodeTags = []string{"rack-9"} }), block.ErrNoCapacity},
		"no name":         {create(func(r *holdfastv1.CreateVolumeRequest) { r.Name = "" }), block.ErrInvalid},
		"odd name":        {create(func(r *holdfastv1.CreateVolumeRequest) { r.Name = "a b" }), block.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if n := g[0].State().VolumeCount(); n != 0 {
		t.Fatalf("refused requests made %d volumes", n)
	}
	v, err := g[0].volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{Name: "odd", SizeBytes: 1<<20 + 1, Parameters: &holdfastv1.VolumeParameters{Replicas: 1}})
	if err != nil || v.GetSizeBytes() != 2<<20 {
		t.Fatalf("an odd size became %v, %v", v, err)
	}
	if _, err := g[0].volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: newTestID(t).String()}); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("got what does not exist: %v", err)
	}
	if _, err := g[0].volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: "zz"}); !errors.Is(err, block.ErrInvalid) {
		t.Errorf("got an ID that is none: %v", err)
	}
	if _, err := g[0].nodes().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: "relative"}); !errors.Is(err, block.ErrInvalid) {
		t.Errorf("added a relative path: %v", err)
	}
}

func TestListPages(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if _, err := g[0].volumes().CreateVolume(ctx, createRequest(name, 1)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for token, pages := "", 0; ; pages++ {
		resp, err := g[0].volumes().ListVolumes(ctx, &holdfastv1.ListVolumesRequest{MaxEntries: 2, StartingToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range resp.GetVolumes() {
			seen[v.GetName()] = true
		}
		if token = resp.GetNextToken(); token == "" {
			if pages != 2 {
				t.Fatalf("%d pages", pages+1)
			}
			break
		}
	}
	if len(seen) != 5 {
		t.Fatalf("listed %v", seen)
	}
	if _, err := g[0].volumes().ListVolumes(ctx, &holdfastv1.ListVolumesRequest{StartingToken: "x"}); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("a token that is none: %v", err)
	}
	room, err := g[0].volumes().GetCapacity(ctx, &holdfastv1.GetCapacityRequest{Parameters: &holdfastv1.VolumeParameters{Replicas: 1}})
	if err != nil || room.GetAvailableBytes() != 57<<30 || room.GetMaximumVolumeBytes() != 57<<30 {
		t.Fatalf("capacity %v, %v", room, err)
	}
}

// TestAgentWaitsForDisks: a replica on a disk that is not open yet is made once it
// is, though nothing changes in the state; creation can be repeated until then. A
// replica that the cluster does not know is never touched.
func TestAgentWaitsForDisks(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	h := g[0].host
	stray := HeldReplica{Disk: h.Disks()[0].ID, Replica: block.ReplicaID{ID: newTestID(t)}}
	h.mu.Lock()
	disks := h.disks
	h.disks = map[string]DiskReport{}
	h.replicas[stray.Replica] = stray
	h.mu.Unlock()

	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := g[0].volumes().CreateVolume(short, createRequest("data", 1))
	if !errors.Is(err, block.ErrUnavailable) || status.Code(err) != codes.Unavailable {
		t.Fatalf("created on a closed disk: %v", err)
	}
	h.mu.Lock()
	h.disks = disks
	h.mu.Unlock()
	v, err := g[0].volumes().CreateVolume(ctx, createRequest("data", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g[0].volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: v.GetId()}); err != nil {
		t.Fatal(err)
	}
	if err := g[0].Wait(ctx, func(s *state.State) bool { return s.VolumeCount() == 0 }); err != nil {
		t.Fatal(err)
	}
	if left := h.Replicas(); len(left) != 1 || left[0] != stray {
		t.Fatalf("replicas left: %v", left)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.quarantined) != 1 || !h.quarantined[stray.Replica] {
		t.Fatalf("quarantined: %v", h.quarantined)
	}
}

// TestFates: what the state wants of replicas, and that quarantine ends when the
// state knows a replica after all.
func TestFates(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	v, err := g[0].volumes().CreateVolume(ctx, createRequest("data", 1))
	if err != nil {
		t.Fatal(err)
	}
	known := g[0].host.Replicas()[0]
	stray := HeldReplica{Disk: known.Disk, Replica: block.ReplicaID{ID: newTestID(t)}}
	g[0].host.mu.Lock()
	g[0].host.replicas[stray.Replica] = stray
	g[0].host.mu.Unlock()
	if v := g[0].volume(v.GetId()); fateOf(&v, known.Replica) != keepReplica {
		t.Errorf("fate of a replica in use: %d", fateOf(&v, known.Replica))
	}
	w := g[0].agentWork(map[block.ReplicaID]bool{known.Replica: true})
	if len(w.Tasks) != 0 || !slices.Equal(w.Known, []block.ReplicaID{known.Replica}) || !slices.Equal(w.Unknown, []HeldReplica{stray}) {
		t.Errorf("work with volume %s: %+v", v.GetId(), w)
	}
}
