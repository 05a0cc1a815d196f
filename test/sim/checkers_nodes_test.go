package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// someConn is a connection to a replica on a node whose disk is watched.
func someConn(w *World) *conn {
	n := &node{world: w, process: &process{}, storage: &storage{watched: make(map[block.ReplicaID]*watched)}}
	return &conn{network: w.network, to: n, replica: block.ReplicaID{ID: block.ID{1}}, asked: make(map[uint64]block.Request),
		forbidden: make(map[uint64]string)}
}

// ask passes a request of epoch and session through the doors, to be answered later.
func ask(w *World, c *conn, op block.Op, epoch block.Epoch, session block.Session, seq uint64) (grant func()) {
	req := block.Request{Op: op, Epoch: epoch, Session: session, Seq: seq}
	if op == block.OpOpen {
		req.Open = &block.Open{Fence: block.Fence{Generation: 1, Epoch: epoch, Session: session}}
	}
	w.doors.requested(c, &req)
	return func() {
		w.doors.replied(c, &block.Reply{Op: op, Epoch: epoch, Session: session, Seq: seq, Opened: &block.Opened{}})
	}
}

func TestDoorsRefuseToOpenBesideOldOperations(t *testing.T) {
	w := bareWorld()
	c := someConn(w)
	r := &watched{}
	c.to.storage.watched[c.replica] = r
	ask(w, c, block.OpOpen, 1, 1, 1)()
	w.expect(t, "")
	r.running = 1
	ask(w, c, block.OpOpen, 2, 1, 2)()
	w.expect(t, "doors")
}

// TestDoorsRefuseSuccessOfThePast: of a session that has been shut out, not of one whose
// successor never got in.
func TestDoorsRefuseSuccessOfThePast(t *testing.T) {
	w := bareWorld()
	c := someConn(w)
	ask(w, c, block.OpOpen, 1, 1, 1)()
	ask(w, c, block.OpWrite, 1, 1, 2)()
	opened := ask(w, c, block.OpOpen, 2, 1, 3)
	written := ask(w, c, block.OpWrite, 1, 1, 4)
	written()
	w.expect(t, "")
	opened()
	w.expect(t, "doors")

	w = bareWorld()
	c = someConn(w)
	ask(w, c, block.OpOpen, 1, 1, 1)()
	ask(w, c, block.OpOpen, 2, 1, 2)
	ask(w, c, block.OpWrite, 1, 1, 3)()
	ask(w, c, block.OpOpen, 3, 1, 4)()
	w.expect(t, "")
}

func TestMemoryRefusesAFloodedReplica(t *testing.T) {
	w := bareWorld()
	c := someConn(w)
	for seq := range uint64(serverLimits().InFlight + 1) {
		ask(w, c, block.OpRead, 1, 1, seq)
	}
	w.expect(t, "")
	ask(w, c, block.OpRead, 1, 1, 1<<20)
	w.expect(t, "memory")
}

// estateOf is a world whose Raft state has a ready volume of one replica.
func estateOf(t *testing.T) (w *World, replica block.ReplicaID, must func(state.Command)) {
	t.Helper()
	w = bareWorld()
	must = func(c state.Command) {
		t.Helper()
		if r := w.truth.apply(c); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	own, disk := block.NodeID{ID: block.ID{2}}, block.DiskID{ID: block.ID{3}}
	replica = block.ReplicaID{ID: block.ID{1}}
	must(state.Bootstrap{Cluster: block.ClusterID{ID: block.ID{9}}, Incarnation: 1})
	must(state.SetNode{Node: state.Node{ID: own, Name: "node"}})
	must(state.AddDisk{Disk: state.Disk{ID: disk, Node: own, Path: "disk", Capacity: diskCapacity}})
	must(state.CreateVolume{Volume: block.VolumeID{ID: block.ID{4}}, Name: "data", Size: briefSize,
		Parameters: state.Parameters{Replicas: 1, MinInSync: 1},
		Replicas:   []state.Placement{{Replica: replica, Node: own, Disk: disk}}})
	must(state.ReplicaReady{Replica: replica})
	w.volumes = []*volume{{name: "data", id: block.VolumeID{ID: block.ID{4}}}}
	return w, replica, must
}

// TestIdentitiesRefuseForgetting: before the volume is deleted, and being known again
// afterwards.
func TestIdentitiesRefuseForgetting(t *testing.T) {
	w, _, _ := estateOf(t)
	before, empty := w.truth.state, &state.State{}
	w.identities.changed(before, before, "nothing")
	w.expect(t, "")
	w.identities.changed(before, empty, "a command")
	w.expect(t, "identity")

	w, replica, must := estateOf(t)
	before = w.truth.state
	must(state.DeleteVolume{Volume: w.volumes[0].id})
	must(state.ReplicaGone{Replica: replica})
	w.expect(t, "")
	w.identities.changed(w.truth.state, before, "a command")
	w.expect(t, "identity")
}

func TestIdentitiesRefuseAnotherVolume(t *testing.T) {
	w, replica, _ := estateOf(t)
	w.identities.known[replica] = identity{volume: block.VolumeID{ID: block.ID{5}}}
	w.identities.changed(w.truth.state, w.truth.state, "a command")
	w.expect(t, "identity")
}

// TestIdentitiesRefuseBytesToGo: to be deleted without a tombstone, or made anew.
func TestIdentitiesRefuseBytesToGo(t *testing.T) {
	w, replica, _ := estateOf(t)
	w.identities.mayDelete(replica)
	w.expect(t, "identity")
	w, replica, _ = estateOf(t)
	w.identities.mayMake(replica)
	w.expect(t, "identity")
	w, replica, must := estateOf(t)
	must(state.DeleteVolume{Volume: w.volumes[0].id})
	w.identities.mayDelete(replica)
	w.identities.mayMake(replica)
	w.expect(t, "")
}

// TestIdentitiesRefuseAFalseReport: the bytes of a replica that is said to be gone.
func TestIdentitiesRefuseAFalseReport(t *testing.T) {
	s := newScene(t, 1)
	s.identities.deleted(s.nodes[0], s.v.replicas[1])
	s.expect(t, "")
	s.identities.deleted(s.nodes[0], s.v.replicas[0])
	s.expect(t, "identity")
}

// TestIdentitiesRefuseToServe what the cluster does not know, once the agent has seen
// that, and a disk that is there twice.
func TestIdentitiesRefuseToServe(t *testing.T) {
	w, _, _ := estateOf(t)
	c := someConn(w)
	c.to.agent = &agent{}
	ask(w, c, block.OpOpen, 1, 1, 1)()
	c.replica = block.ReplicaID{ID: block.ID{7}}
	ask(w, c, block.OpOpen, 1, 1, 2)()
	w.expect(t, "")
	c.to.agent.looked = w.truth.state
	ask(w, c, block.OpOpen, 2, 1, 3)()
	w.expect(t, "identity")

	w, replica, _ := estateOf(t)
	c = someConn(w)
	c.replica = replica
	ask(w, c, block.OpOpen, 1, 1, 1)()
	early := ask(w, c, block.OpWrite, 1, 1, 2)
	c.to.twinned = c.to.process
	early()
	w.expect(t, "")
	ask(w, c, block.OpWrite, 1, 1, 3)()
	w.expect(t, "identity")
}

func TestLeasesRefuseAnEarlyDeath(t *testing.T) {
	w := bareWorld()
	x, n := newLeadership(w), &node{world: w}
	x.heard[n.id] = w.loop.now
	w.loop.now += block.Instant(nodeLease)
	x.dead(n)
	w.expect(t, "")
	w.loop.now -= block.Instant(nodeLease / 10)
	x.dead(n)
	w.expect(t, "leases")
}

// TestStockRefusesALeftDevice: one that the daemon did not list is still there.
func TestStockRefusesALeftDevice(t *testing.T) {
	for _, listed := range []bool{true, false} {
		w, _, _ := estateOf(t)
		v, a := w.volumes[0], block.AttachmentID{ID: block.ID{6}}
		s := &stock{node: &node{world: w, devices: map[*volume]block.AttachmentID{v: a}}}
		want := "attachments"
		if listed {
			s.listed, want = []frontend.Identity{{Volume: v.id, Attachment: a}}, ""
		}
		s.sweep(nil)
		w.expect(t, want)
	}
}

// TestWatchedCountsWhatRuns, and gives an operation back as it was.
func TestWatchedCountsWhatRuns(t *testing.T) {
	s := newScene(t, 1)
	r := s.nodes[0].storage.watched[s.v.replicas[0]]
	buf := block.NewBuffer(block.SectorSize)
	defer buf.Release()
	ended := 0
	op := &store.Op{Kind: store.Read, Length: block.SectorSize, Buf: buf, Done: func(*store.Op) { ended++ }}
	before := r.running
	r.Submit(op)
	if r.running != before+1 {
		t.Errorf("%d operations run, want %d", r.running, before+1)
	}
	s.until("a read", func() bool { return ended == 1 })
	op.Done(op)
	if r.running != before || ended != 2 {
		t.Errorf("%d operations run afterwards, want %d; %d ends", r.running, before, ended)
	}
}

// TestReplacementsRefuseAnEarlyEnd: a replica is gone from the view before the one that
// takes its place is in sync, or though none does.
func TestReplacementsRefuseAnEarlyEnd(t *testing.T) {
	for _, c := range []struct {
		begun, inSync bool
		want          string
	}{{true, true, ""}, {true, false, "replacements"}, {false, true, "replacements"}} {
		w, replica, must := estateOf(t)
		next := block.ReplicaID{ID: block.ID{7}}
		own, disk := block.NodeID{ID: block.ID{2}}, block.DiskID{ID: block.ID{8}}
		must(state.AddDisk{Disk: state.Disk{ID: disk, Node: own, Path: "other", Capacity: diskCapacity}})
		if c.begun {
			must(state.ReplaceReplica{Volume: w.volumes[0].id, Old: replica, New: state.Placement{Replica: next, Node: own, Disk: disk},
				DecidedAt: w.truth.state.Index()})
		}
		after := block.View{Replicas: []block.Member{{ID: next, InSync: c.inSync}}}
		w.replaced(&block.Proposal{Volume: w.volumes[0].id}, w.truth.state, &after)
		w.expect(t, c.want)
	}
}
