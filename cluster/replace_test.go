package cluster

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// board is a state of four nodes with a disk each, made by commands, and what a leader
// knows of the disks.
type board struct {
	t     *testing.T
	state *state.State
	disks []candidate
	limit int
	gone  block.NodeID
}

func newBoard(t *testing.T) *board {
	b := &board{t: t, state: &state.State{}, limit: 2}
	b.must(state.Bootstrap{Cluster: block.ClusterID{ID: placeID('c', 1)}, Incarnation: 1})
	for n := byte(1); n <= 4; n++ {
		b.addDisk(n, n)
	}
	return b
}

func (b *board) must(c state.Command) state.Result {
	b.t.Helper()
	var r state.Result
	b.state, r = b.state.Apply(b.state.Index()+1, c)
	if r.Err != nil {
		b.t.Fatal(r.Err)
	}
	return r
}

func (b *board) addDisk(node, disk byte) {
	k := onNode(node, disk, nil)
	b.must(state.SetNode{Node: k.node})
	b.must(state.AddDisk{Disk: k.disk})
	b.disks = append(b.disks, k)
}

func boardReplica(volume, n byte) block.ReplicaID {
	return block.ReplicaID{ID: block.ID{'r', volume, 15: n}}
}

// volume makes a volume with replicas on the disks.
func (b *board) volume(n byte, disks ...byte) block.VolumeID {
	b.t.Helper()
	c := state.CreateVolume{Volume: block.VolumeID{ID: placeID('v', n)}, Name: string('a' + rune(n)), Size: 1 << 30, DecidedAt: b.state.Index(),
		Parameters: state.Parameters{Replicas: len(disks), MinInSync: 1}}
	for _, d := range disks {
		k := b.disks[slices.IndexFunc(b.disks, func(k candidate) bool { return k.disk.ID.ID == placeID('d', d) })]
		c.Replicas = append(c.Replicas, state.Placement{Replica: boardReplica(n, d), Node: k.node.ID, Disk: k.disk.ID})
	}
	b.must(c)
	for _, d := range disks {
		b.must(state.ReplicaReady{Replica: boardReplica(n, d)})
	}
	return c.Volume
}

// plan is that of this moment.
func (b *board) plan() movePlan {
	disks := slices.Clone(b.disks)
	for i := range disks {
		disks[i].disk, _ = b.state.Disk(disks[i].disk.ID)
	}
	p := planner{state: b.state, disks: disks, limit: b.limit, gone: func(n block.NodeID) bool { return n == b.gone }}
	return p.decide()
}

func (b *board) drain(disk, successor byte) {
	c := state.DrainDisk{Disk: block.DiskID{ID: placeID('d', disk)}}
	if successor != 0 {
		c.Successor.ID = placeID('d', successor)
	}
	b.must(c)
}

// begin carries out what the plan begins, with IDs above n.
func (b *board) begin(n byte) {
	for _, c := range b.plan().begin {
		n++
		c.New.Replica = boardReplica(99, n)
		b.must(c)
	}
}

// says wants the moves to be as described: disk, volume, state, and what the reason has.
func (b *board) says(want ...string) {
	b.t.Helper()
	var got []string
	for _, m := range b.plan().moves {
		got = append(got, strings.TrimSpace(m.volume.Name+" "+m.state.String()+" "+m.reason))
	}
	slices.Sort(got)
	ok := len(got) == len(want)
	for i := range want {
		ok = ok && i < len(got) && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		b.t.Fatalf("moves:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestPlanMoves(t *testing.T) {
	b := newBoard(t)
	b.volume(1, 1, 2, 3)
	b.volume(2, 1, 2, 3)
	b.volume(3, 1, 2, 3)
	b.volume(4, 2, 3, 4)
	if p := b.plan(); len(p.begin)+len(p.moves)+len(p.resyncs) != 0 {
		t.Fatalf("nothing is to be done: %+v", p)
	}
	b.drain(1, 0)
	b.says("b WAITING it is about to begin", "c WAITING it is about to begin", "d WAITING it waits for its turn: 2")
	for _, c := range b.plan().begin {
		if c.New.Disk.ID != placeID('d', 4) {
			t.Errorf("it goes to %+v", c.New)
		}
	}
	b.begin(0)
	b.says("b COPYING", "c COPYING", "d WAITING it waits for its turn")
	if p := b.plan(); len(p.begin)+len(p.abandon) != 0 {
		t.Fatalf("%+v", p)
	}
	// Once they are made, they can be resynced, for nobody has the volumes.
	b.must(state.ReplicaReady{Replica: boardReplica(99, 1)})
	if p := b.plan(); len(p.resyncs) != 1 || p.resyncs[0].replicas[0] != boardReplica(99, 1) {
		t.Fatalf("%+v", p.resyncs)
	}
	b.must(state.Publish{Volume: b.plan().resyncs[0].volume.ID, Node: b.disks[0].node.ID})
	if p := b.plan(); len(p.resyncs) != 0 || len(p.begin) != 1 {
		t.Fatalf("a volume that is published: %+v", p)
	}
	b.says("b COPYING the volume is published to node node and not staged", "c COPYING", "d WAITING it is about to begin")
	// The disk is put back.
	b.must(state.CordonDisk{Disk: block.DiskID{ID: placeID('d', 1)}})
	if p := b.plan(); len(p.abandon) != 2 || len(p.moves) != 0 {
		t.Fatalf("%+v", p)
	}
}

// What was begun is given up when its new disk or node will not do, and only then.
func TestPlanAbandons(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *board)
		want   int
	}{
		"all well": {func(*board) {}, 0},
		"away":     {func(b *board) { b.disks[3].alive = false }, 0},
		"gone":     {func(b *board) { b.gone = b.disks[3].node.ID }, 1},
		"failed":   {func(b *board) { b.disks[3].failure = "smoke" }, 1},
		"drained":  {func(b *board) { b.drain(4, 0) }, 1},
		"in sync": {func(b *board) {
			b.propose(1, block.Proposal{Admit: []block.ReplicaID{boardReplica(99, 1)}})
			b.disks[3].failure = "smoke"
		}, 0},
	} {
		b := newBoard(t)
		b.volume(1, 1, 2, 3)
		b.drain(1, 0)
		b.begin(0)
		b.must(state.ReplicaReady{Replica: boardReplica(99, 1)})
		c.change(b)
		if p := b.plan(); len(p.abandon) != c.want {
			t.Errorf("%s: %+v", name, p.abandon)
		}
	}
}

// propose is what an engine that borrows the volume proposes.
func (b *board) propose(volume byte, p block.Proposal) {
	b.t.Helper()
	id := block.VolumeID{ID: placeID('v', volume)}
	v, _ := b.state.Volume(id)
	r := b.must(state.StartEngine{Volume: id, Node: b.disks[1].node.ID, Start: block.StartID{ID: placeID('s', byte(v.View.Epoch)+1)}, Epoch: v.View.Epoch,
		NewAttachment: block.AttachmentID{ID: placeID('a', byte(v.View.Epoch)+1)}, Borrow: true})
	p.Volume, p.Epoch, p.Revision = id, r.View().Epoch, r.View().Revision
	if r := b.must(state.Propose{Proposal: p}); r.Verdict != block.Committed {
		b.t.Fatalf("%+v: %+v", p, r)
	}
	b.must(state.EndAttachment{Volume: id, Attachment: r.View().Attachment})
}

func TestPlanOfAnEnd(t *testing.T) {
	b := newBoard(t)
	b.volume(1, 1, 2, 3)
	b.drain(1, 0)
	b.begin(0)
	b.must(state.ReplicaReady{Replica: boardReplica(99, 1)})
	b.propose(1, block.Proposal{Admit: []block.ReplicaID{boardReplica(99, 1)}})
	b.says("b LEAVING")
	if p := b.plan(); len(p.resyncs) != 1 || len(p.resyncs[0].replicas) != 0 {
		t.Fatalf("nobody lets it leave: %+v", p.resyncs)
	}
	p := planner{state: b.state, disks: b.disks, limit: 1, gone: func(block.NodeID) bool { return false }}
	p.decide()
	v, _ := b.state.Volume(block.VolumeID{ID: placeID('v', 1)})
	v.Parameters.MinInSync = 4
	p.under(replicaMove{}, &v, &v.Replacing[0])
	if m := p.plan.moves[len(p.plan.moves)-1]; !strings.Contains(m.reason, "writes need 4") {
		t.Fatalf("too few would be left: %+v", m)
	}
	b.propose(1, block.Proposal{Remove: []block.ReplicaID{boardReplica(1, 1)}})
	b.says("b DELETING")
	b.disks[0].alive = false
	b.says("b DELETING node node of disk")
	if p := b.plan(); len(p.resyncs)+len(p.begin)+len(p.abandon) != 0 {
		t.Fatalf("%+v", p)
	}
}

// TestPlacesForReplacements: what takes the place of a replica goes where one of a new
// volume would, on a node without another replica, and to the wanted disk if it fits.
func TestPlacesForReplacements(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(b *board)
		successor byte
		want      byte
		says      string
	}{
		"another node":        {func(*board) {}, 0, 4, ""},
		"its own node":        {func(b *board) { b.addDisk(1, 5); b.disks[3].alive = false }, 0, 5, ""},
		"offers most":         {func(b *board) { b.addDisk(1, 5); used(4)(&b.disks[3]) }, 0, 5, ""},
		"wanted":              {func(b *board) { b.addDisk(1, 5); used(4)(&b.disks[4]) }, 5, 5, ""},
		"wanted, does not do": {func(b *board) { b.addDisk(1, 5); b.disks[4].failure = "smoke" }, 5, 4, ""},
		"wanted, full":        {func(b *board) { b.addDisk(1, 5); used(31)(&b.disks[4]) }, 5, 4, ""},
		"wanted, a peer's":    {func(b *board) { b.addDisk(2, 5) }, 5, 4, ""},
		"full":                {func(b *board) { used(31)(&b.disks[3]) }, 0, 0, "1 disks with 1.0 GiB free"},
		"cordoned": {func(b *board) {
			b.must(state.CordonDisk{Disk: b.disks[3].disk.ID, Cordoned: true})
		}, 0, 0, "cordoned"},
		"no node left": {func(b *board) {
			b.must(state.RemoveDisk{Disk: b.disks[3].disk.ID})
			b.disks = b.disks[:3]
		}, 0, 0, "no other disk on a node without a replica"},
		"being made of":  {func(b *board) { b.copyOf() }, 0, 0, "is being made from it"},
		"being reverted": {func(b *board) { b.revert() }, 0, 0, "is being reverted"},
		"unreachable": {func(b *board) {
			for i := range 3 {
				b.disks[i].alive = false
			}
		}, 0, 0, "no replica that is in sync can be reached"},
	} {
		b := newBoard(t)
		b.volume(1, 1, 2, 3)
		c.change(b)
		b.drain(1, c.successor)
		p := b.plan()
		switch {
		case c.says == "" && (len(p.begin) != 1 || p.begin[0].New.Disk.ID != placeID('d', c.want)):
			t.Errorf("%s: %+v, %+v", name, p.begin, p.moves)
		case c.says != "" && (len(p.begin) != 0 || !strings.Contains(p.moves[0].reason, c.says)):
			t.Errorf("%s: %+v, %q", name, p.begin, p.moves[0].reason)
		}
	}
}

// revert begins to revert volume 1.
func (b *board) revert() {
	b.copyOf()
	b.must(state.DeleteVolume{Volume: block.VolumeID{ID: placeID('v', 2)}})
	b.must(state.RevertVolume{Volume: block.VolumeID{ID: placeID('v', 1)}, Snapshot: block.SnapshotID{ID: placeID('p', 1)}})
}

// copyOf begins to make a volume from volume 1.
func (b *board) copyOf() {
	source := block.VolumeID{ID: placeID('v', 1)}
	r := state.CreateSnapshot{Snapshot: block.SnapshotID{ID: placeID('p', 1)}, Name: "s", Volume: source, Created: 1, DecidedAt: b.state.Index()}
	b.must(r)
	b.propose(1, block.Proposal{Snapshot: &block.Snapshot{ID: r.Snapshot, Size: 1 << 30, Created: 1}})
	b.must(state.CreateVolume{Volume: block.VolumeID{ID: placeID('v', 2)}, Name: "copy", Size: 1 << 30, Parameters: state.Parameters{Replicas: 1, MinInSync: 1},
		Replicas:  []state.Placement{{Replica: boardReplica(2, 2), Node: b.disks[1].node.ID, Disk: b.disks[1].disk.ID}},
		DecidedAt: b.state.Index(), Source: &state.Source{Snapshot: r.Snapshot, Volume: source}})
}

// A move that was begun goes on with the engine that reverts its volume. It is not given up,
// nobody else is asked to resync for it, and it takes no place from others.
func TestPlanWhileReverted(t *testing.T) {
	b := newBoard(t)
	volume := b.volume(1, 1, 2, 3)
	b.copyOf()
	b.must(state.DeleteVolume{Volume: block.VolumeID{ID: placeID('v', 2)}})
	b.drain(1, 0)
	b.begin(0)
	b.must(state.ReplicaReady{Replica: boardReplica(99, 1)})
	b.must(state.RevertVolume{Volume: volume, Snapshot: block.SnapshotID{ID: placeID('p', 1)}})
	b.limit = 1
	b.volume(3, 1, 2, 3)
	b.says("b COPYING the volume is being reverted", "d WAITING it is about to begin")
	if p := b.plan(); len(p.abandon)+len(p.resyncs) != 0 {
		t.Fatalf("%+v", p)
	}
	b.propose(1, block.Proposal{Admit: []block.ReplicaID{boardReplica(99, 1)}})
	b.says("b LEAVING the volume is being reverted", "d WAITING it is about to begin")
	b.propose(1, block.Proposal{Remove: []block.ReplicaID{boardReplica(1, 1)}})
	b.says("b DELETING", "d WAITING it is about to begin")
	if v, _ := b.state.Volume(volume); !v.Reverting() || len(v.Replacing) != 0 || v.View.InSync() != 3 {
		t.Fatalf("%+v", v)
	}
	if p := b.plan(); len(p.abandon)+len(p.resyncs) != 0 {
		t.Fatalf("%+v", p)
	}
	b.must(state.ReplicaGone{Replica: boardReplica(1, 1)})
	b.says("d WAITING it is about to begin")
	if err := b.state.Check(); err != nil {
		t.Fatal(err)
	}
}

// Two disks are drained at once: no two new replicas of a volume meet on a node.
func TestTwoDrains(t *testing.T) {
	b := newBoard(t)
	b.volume(1, 1, 2, 3)
	b.drain(1, 0)
	b.drain(2, 0)
	b.limit = 8
	b.begin(0)
	b.says("b COPYING", "b WAITING there is no other disk on a node")
	b.addDisk(5, 5)
	b.begin(1)
	b.says("b COPYING", "b COPYING")
	if err := b.state.Check(); err != nil {
		t.Fatal(err)
	}
	if s := b.plan().moves[0].state; s != holdfastv1.ReplicaMove_COPYING {
		t.Fatal(s)
	}
}

// What takes the place of a replica of a copy is made empty: it shares nothing with the
// source, which may be gone.
func TestReplacementInACopyIsMadeEmpty(t *testing.T) {
	b := newBoard(t)
	b.volume(1, 1, 2, 3)
	b.copyOf()
	b.must(state.ReplicaReady{Replica: boardReplica(2, 2)})
	b.drain(2, 0)
	b.limit = 8
	b.begin(0)
	v, _ := b.state.Volume(block.VolumeID{ID: placeID('v', 2)})
	added := v.Unmade()[0]
	w := FindAgentWork(b.state, added.Node, []DiskReport{{ID: added.Disk}}, nil, nil)
	i := slices.IndexFunc(w.Tasks, func(task AgentTask) bool { return task.Spec.Replica == added.Replica })
	if i < 0 || w.Tasks[i].Remove || !w.Tasks[i].Spec.Source.IsZero() || w.Tasks[i].Spec.Size != v.View.Size {
		t.Fatalf("%+v", w.Tasks)
	}
	b.must(state.AbandonReplacement{Volume: v.ID, Replica: added.Replica})
	w = FindAgentWork(b.state, added.Node, []DiskReport{{ID: added.Disk}}, nil, nil)
	i = slices.IndexFunc(w.Tasks, func(task AgentTask) bool { return task.Spec.Replica == added.Replica })
	if i < 0 || !w.Tasks[i].Remove {
		t.Fatalf("given up: %+v", w.Tasks)
	}
}

// A replica that is added begins as large as the volume was at its oldest snapshot.
func TestReplacementBeginsWithTheOldestSnapshot(t *testing.T) {
	b := newBoard(t)
	id := b.volume(1, 1, 2, 3)
	b.copyOf()
	b.must(state.DeleteVolume{Volume: block.VolumeID{ID: placeID('v', 2)}})
	b.must(state.GrowVolume{Volume: id, Size: 2 << 30})
	b.propose(1, block.Proposal{Size: 2 << 30})
	b.drain(1, 0)
	b.begin(0)
	v, _ := b.state.Volume(id)
	w := FindAgentWork(b.state, v.Unmade()[0].Node, []DiskReport{{ID: v.Unmade()[0].Disk}}, nil, nil)
	if len(w.Tasks) != 1 || w.Tasks[0].Spec.Size != 1<<30 {
		t.Fatalf("%+v", w.Tasks)
	}
}
