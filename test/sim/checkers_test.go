package sim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// script writes a history by hand, one sector wide.
type script struct {
	*history
	steps  int
	ops    uint64
	failed []string
}

func newScript() *script {
	s := &script{}
	s.history = newHistory(1, func(checker, text string) { s.failed = append(s.failed, checker+": "+text) })
	return s
}

func (s *script) begin(kind core.RequestKind, epoch block.Epoch) *operation {
	s.steps++
	s.ops++
	op := &operation{id: s.ops, kind: kind, epoch: epoch, length: block.SectorSize, invoked: s.steps}
	s.invoke(op)
	return op
}

func (s *script) finish(op *operation, o outcome, read ...value) {
	s.steps++
	op.ended, op.outcome, op.read = s.steps, o, read
	s.end(op)
}

func (s *script) do(kind core.RequestKind, epoch block.Epoch, read ...value) *operation {
	op := s.begin(kind, epoch)
	s.finish(op, succeeded, read...)
	return op
}

// expect holds the failures against a checker's name; "" for none.
func (s *script) expect(t *testing.T, checker string) {
	t.Helper()
	got := strings.Join(s.failed, "; ")
	if checker == "" && got != "" || !strings.HasPrefix(got, checker) {
		t.Fatalf("checkers said %q, want %q", got, checker)
	}
}

func TestRegisterAcceptsLegalHistories(t *testing.T) {
	s := newScript()
	s.do(core.ReadRequest, 1, 0)
	a := s.begin(core.WriteRequest, 1)
	b := s.begin(core.WriteRequest, 1)
	s.do(core.ReadRequest, 1, value(b.id))
	s.do(core.ReadRequest, 1, value(a.id))
	s.finish(b, succeeded)
	s.finish(a, unsettled)
	s.do(core.ReadRequest, 1, value(a.id))
	lost := s.begin(core.WriteRequest, 1)
	s.finish(lost, unsettled)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, value(lost.id))
	s.do(core.ZeroRequest, 2)
	s.do(core.ReadRequest, 2, 0)
	s.expect(t, "")
}

func TestRegisterRefusesStaleRead(t *testing.T) {
	s := newScript()
	a := s.do(core.WriteRequest, 1)
	s.do(core.WriteRequest, 1)
	s.do(core.ReadRequest, 1, value(a.id))
	s.expect(t, "linearizable")
}

func TestRegisterRefusesReadGoingBack(t *testing.T) {
	s := newScript()
	a := s.begin(core.WriteRequest, 1)
	s.finish(a, unsettled)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, 0)
	s.do(core.ReadRequest, 2, value(a.id))
	s.expect(t, "linearizable")
}

func TestRegisterRefusesWriteFromTheGrave(t *testing.T) {
	s := newScript()
	a := s.begin(core.WriteRequest, 1)
	s.finish(a, unsettled)
	s.serve(2, 100)
	b := s.do(core.WriteRequest, 2)
	s.do(core.ReadRequest, 2, value(b.id))
	s.do(core.ReadRequest, 2, value(a.id))
	s.expect(t, "linearizable")
}

// A write that was applied everywhere before the next engine served may be
// acknowledged late, but not if it can have been applied nowhere.
func TestRegisterJudgesLateAcknowledgement(t *testing.T) {
	s := newScript()
	a := s.begin(core.WriteRequest, 1)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, value(a.id))
	s.do(core.WriteRequest, 2)
	s.finish(a, succeeded)
	s.expect(t, "")

	s = newScript()
	a = s.begin(core.WriteRequest, 1)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, 0)
	s.finish(a, succeeded)
	s.expect(t, "linearizable")
}

func TestRegisterJudgesOverlappingRead(t *testing.T) {
	s := newScript()
	r := s.begin(core.ReadRequest, 1)
	a := s.do(core.WriteRequest, 1)
	s.do(core.WriteRequest, 1)
	s.finish(r, succeeded, value(a.id))
	s.expect(t, "")

	s = newScript()
	s.do(core.WriteRequest, 1)
	r = s.begin(core.ReadRequest, 1)
	s.finish(r, succeeded, 0)
	s.expect(t, "linearizable")
}

func TestFlushedDataIsKept(t *testing.T) {
	s := newScript()
	s.do(core.WriteRequest, 1)
	b := s.do(core.WriteRequest, 1)
	s.do(core.FlushRequest, 1)
	c := s.do(core.WriteRequest, 1)
	s.reset(100)
	s.do(core.ReadRequest, 2, value(b.id))
	s.expect(t, "")
	_ = c

	s = newScript()
	a := s.do(core.WriteRequest, 1)
	s.do(core.WriteRequest, 1)
	s.do(core.FlushRequest, 1)
	s.reset(100)
	s.do(core.ReadRequest, 2, value(a.id))
	s.expect(t, "flushed-data")
}

func TestForcedWriteIsKept(t *testing.T) {
	s := newScript()
	op := s.begin(core.ReadRequest, 1)
	s.finish(op, succeeded, 0)
	s.steps++
	s.ops++
	forced := &operation{id: s.ops, kind: core.WriteRequest, fua: true, epoch: 1, length: block.SectorSize}
	s.invoke(forced)
	s.finish(forced, succeeded)
	s.reset(100)
	s.do(core.ReadRequest, 2, 0)
	s.expect(t, "flushed-data")
}

func TestUnflushedDataMayBeLostOnlyByReset(t *testing.T) {
	s := newScript()
	s.do(core.WriteRequest, 1)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, 0)
	s.expect(t, "linearizable")
}

func TestPayloadTellsForeignAndDamagedBytes(t *testing.T) {
	sector := make([]byte, block.SectorSize)
	fill(sector, 7, 3, 5*block.SectorSize)
	if v, err := sectorValue(sector, 7, 5); v != 3 || err != nil {
		t.Fatalf("own sector: %d, %v", v, err)
	}
	if _, err := sectorValue(sector, 8, 5); err == nil {
		t.Fatal("a sector of another volume was accepted")
	}
	if _, err := sectorValue(sector, 7, 6); err == nil {
		t.Fatal("a sector of another place was accepted")
	}
	for _, i := range []int{0, 9, 17, 24, 511} {
		damaged := append([]byte(nil), sector...)
		damaged[i] ^= 4
		if _, err := sectorValue(damaged, 7, 5); err == nil {
			t.Fatalf("a sector with byte %d flipped was accepted", i)
		}
	}
	half := append([]byte(nil), sector[:256]...)
	if _, err := sectorValue(append(half, make([]byte, 256)...), 7, 5); err == nil {
		t.Fatal("a torn sector was accepted")
	}
}

// bareWorld has what the checkers need to know of a world, and no cluster.
func bareWorld() *World {
	w := &World{loop: newLoop(1, 64), paths: newPaths()}
	w.acks = newAcks(w.fail)
	w.doors = newDoors(w)
	w.identities = newIdentities(w)
	w.network = newNetwork(w.loop, w.doors)
	w.truth = newTruth(w)
	return w
}

func (w *World) expect(t *testing.T, checker string) {
	t.Helper()
	if checker == "" && w.violation != nil {
		t.Fatalf("unexpected violation: %v", w.violation)
	}
	if checker != "" && (w.violation == nil || w.violation.Checker != checker) {
		t.Fatalf("violation %v, want one of %s", w.violation, checker)
	}
}

func TestAcksRefuseTwoEngines(t *testing.T) {
	w := bareWorld()
	v := &volume{}
	old := &host{world: w, volume: v, epoch: 1, node: &node{}}
	w.loop.steps = 1
	w.acks.serves(old)
	early := &operation{epoch: 1, invoked: 5, outcome: succeeded}
	w.loop.steps = 10
	w.acks.serves(&host{world: w, volume: v, epoch: 2, node: &node{}})
	w.acks.answered(old, early)
	w.expect(t, "")
	w.acks.answered(old, &operation{epoch: 1, invoked: 11, outcome: succeeded})
	w.expect(t, "one-engine")
}

func TestAcksRefuseTooFew(t *testing.T) {
	w := bareWorld()
	view := block.View{Replicas: []block.Member{{InSync: true}, {}}}
	w.acks.enough(&view, 1, &operation{kind: core.WriteRequest})
	w.acks.enough(&view, 2, &operation{kind: core.ReadRequest})
	w.expect(t, "")
	w.acks.enough(&view, 2, &operation{kind: core.FlushRequest})
	w.expect(t, "minimum")
}

// TestDoorsRefuseWhatIsNotStored: views that a member has not confirmed, fences and
// views that did not survive.
func TestDoorsRefuseWhatIsNotStored(t *testing.T) {
	in, out := block.ReplicaID{ID: block.ID{1}}, block.ReplicaID{ID: block.ID{2}}
	view := func(revision block.Revision) *block.View {
		return &block.View{Epoch: 2, Revision: revision, Replicas: []block.Member{{ID: in, InSync: true}, {ID: out}}}
	}
	begin := func() *World {
		w := bareWorld()
		w.doors.replicas[in] = &doorHistory{fence: block.Fence{Epoch: 2, Session: 3}, epoch: 2, revision: 7}
		return w
	}
	w := begin()
	w.doors.relied(view(7), &operation{})
	w.doors.kept(in, block.Fence{Epoch: 2, Session: 3}, *view(7))
	w.expect(t, "")
	w.doors.relied(view(8), &operation{})
	w.expect(t, "doors")
	w = begin()
	w.doors.kept(in, block.Fence{Epoch: 2, Session: 2}, *view(7))
	w.expect(t, "doors")
	w = begin()
	w.doors.kept(in, block.Fence{Epoch: 2, Session: 3}, *view(6))
	w.expect(t, "doors")
}

func TestDoorsRefuseGoingBack(t *testing.T) {
	replica := block.ReplicaID{ID: block.ID{1}}
	open := func(w *World, epoch block.Epoch, session block.Session) {
		c := &conn{replica: replica, asked: make(map[uint64]block.Request)}
		fence := block.Fence{Generation: 1, Epoch: epoch, Session: session}
		w.doors.requested(c, &block.Request{Op: block.OpOpen, Seq: 1, Open: &block.Open{Fence: fence}})
		w.doors.replied(c, &block.Reply{Op: block.OpOpen, Seq: 1, Epoch: epoch, Session: session, Opened: &block.Opened{}})
	}
	w := bareWorld()
	open(w, 2, 1)
	open(w, 2, 2)
	open(w, 3, 1)
	w.expect(t, "")
	open(w, 2, 9)
	w.expect(t, "doors")

	w = bareWorld()
	open(w, 2, 2)
	c := &conn{replica: replica, asked: make(map[uint64]block.Request)}
	w.doors.requested(c, &block.Request{Op: block.OpWrite, Seq: 4})
	w.doors.replied(c, &block.Reply{Op: block.OpWrite, Seq: 4, Epoch: 2, Session: 1})
	w.expect(t, "doors")
}

func TestMemoryRefusesEndlessQueue(t *testing.T) {
	w := bareWorld()
	c := &conn{network: w.network, engine: &host{node: &node{}}}
	w.network.conns = append(w.network.conns, c)
	c.out.queue = make([]parcel, queueMax)
	w.checkMemory()
	w.expect(t, "")
	c.out.queue = make([]parcel, queueMax+1)
	w.checkMemory()
	w.expect(t, "memory")
}

func TestAnswersRefuseErrorWithoutCause(t *testing.T) {
	w := bareWorld()
	h := &host{world: w, node: &node{}}
	read := &operation{kind: core.ReadRequest}
	w.answeredError(h, read, fmt.Errorf("read: %w", block.ErrDetached))
	w.rotten = true
	w.answeredError(h, read, fmt.Errorf("read: %w", block.ErrIO))
	w.expect(t, "")
	w.rotten = false
	w.answeredError(h, read, fmt.Errorf("read: %w", block.ErrIO))
	w.expect(t, "answers")
}

// unknownCommand is one that the state machine does not have.
type unknownCommand struct{}

// Kind implements state.Command.
func (unknownCommand) Kind() string { return "unknown" }

func TestTruthRefusesCommandThatCannotBeEncoded(t *testing.T) {
	w := bareWorld()
	w.truth.apply(unknownCommand{})
	w.expect(t, "raft")
}

// otherMembers is a state in which a replica of the volume is in sync or not.
func otherMembers(t *testing.T, v *volume, out bool) *state.State {
	t.Helper()
	s := &state.State{}
	node, disk := block.NodeID{ID: block.ID{1}}, block.DiskID{ID: block.ID{2}}
	var r [2]state.Placement
	for i := range r {
		r[i] = state.Placement{Replica: block.ReplicaID{ID: block.ID{3, byte(i)}}, Node: node, Disk: disk}
		r[i].Node.ID[1], r[i].Disk.ID[1] = byte(i), byte(i)
	}
	commands := []state.Command{state.Bootstrap{Cluster: block.ClusterID{ID: block.ID{9}}, Incarnation: 1}}
	for i := range r {
		commands = append(commands, state.SetNode{Node: state.Node{ID: r[i].Node, Name: fmt.Sprint(i)}},
			state.AddDisk{Disk: state.Disk{ID: r[i].Disk, Node: r[i].Node, Path: "p", Capacity: 1 << 30}})
	}
	commands = append(commands, state.CreateVolume{Volume: v.id, Name: "v", Size: block.RegionSize, Replicas: r[:],
		Parameters: state.Parameters{Replicas: 2, MinInSync: 1}})
	for i := range r {
		commands = append(commands, state.ReplicaReady{Replica: r[i].Replica, Incarnation: block.Incarnation{Boot: block.ID{5}}})
	}
	commands = append(commands, state.Publish{Volume: v.id, Node: r[0].Node}, state.StartEngine{Volume: v.id, Node: r[0].Node,
		Start: block.StartID{ID: block.ID{6}}, NewAttachment: block.AttachmentID{ID: block.ID{7}}})
	for i, c := range commands {
		var result state.Result
		if s, result = s.Apply(uint64(i+1), c); result.Err != nil {
			t.Fatalf("%s: %v", c.Kind(), result.Err)
		}
	}
	if out {
		view, _ := s.Volume(v.id)
		s, _ = s.Apply(100, state.Propose{Proposal: block.Proposal{Volume: v.id, Epoch: view.View.Epoch,
			Revision: view.View.Revision, Remove: []block.ReplicaID{r[1].Replica}}})
	}
	return s
}

func TestProposersRefuseOthers(t *testing.T) {
	v := &volume{name: "v", id: block.VolumeID{ID: block.ID{4}}}
	w := bareWorld()
	w.volumes = []*volume{v}
	before, after := otherMembers(t, v, false), otherMembers(t, v, true)
	w.truth.sameMembers(before, before, "nothing")
	w.expect(t, "")
	w.truth.sameMembers(before, after, "something")
	w.expect(t, "proposers")

	w = bareWorld()
	h := &host{epoch: 2, node: &node{}}
	w.truth.proposer(h, &block.Proposal{Epoch: 2, Revision: 5}, &block.View{Epoch: 2, Revision: 5})
	w.expect(t, "")
	w.truth.proposer(h, &block.Proposal{Epoch: 2, Revision: 5}, &block.View{Epoch: 3, Revision: 5})
	w.expect(t, "proposers")
}

func TestTallyReportsWhatIsMissing(t *testing.T) {
	total := NewTally()
	for _, name := range expectedPaths()[1:] {
		total.paths.count(name)
	}
	if got := total.Missing(); len(got) != 1 || got[0] != expectedPaths()[0] {
		t.Fatalf("missing %v", got)
	}
}
