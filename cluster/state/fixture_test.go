package state

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// id makes a recognisable ID: its first byte spreads over the buckets of a table.
func id(kind byte, n uint64) block.ID {
	var v block.ID
	v[0], v[1] = byte(n)*37, kind
	binary.BigEndian.PutUint64(v[8:], n)
	return v
}

func nodeID(n uint64) block.NodeID             { return block.NodeID{ID: id('n', n)} }
func diskID(n uint64) block.DiskID             { return block.DiskID{ID: id('d', n)} }
func volumeID(n uint64) block.VolumeID         { return block.VolumeID{ID: id('v', n)} }
func replicaID(n uint64) block.ReplicaID       { return block.ReplicaID{ID: id('r', n)} }
func snapshotID(n uint64) block.SnapshotID     { return block.SnapshotID{ID: id('p', n)} }
func attachmentID(n uint64) block.AttachmentID { return block.AttachmentID{ID: id('a', n)} }
func startID(n uint64) block.StartID           { return block.StartID{ID: id('s', n)} }

func incarnation(n uint64) block.Incarnation {
	return block.Incarnation{Boot: id('b', n), DiskSequence: n, Superblock: n}
}

// machine applies commands to its state and checks the invariants after each.
type machine struct {
	t *testing.T
	*State
}

func (m *machine) apply(c Command) Result {
	m.t.Helper()
	data, err := Encode(c)
	if err != nil {
		m.t.Fatal(err)
	}
	decoded, err := Decode(data)
	if err != nil {
		m.t.Fatal(err)
	}
	next, result := m.Apply(m.Index()+1, decoded)
	if err := next.Check(); err != nil {
		m.t.Fatalf("after %s: %v", data, err)
	}
	m.State = next
	return result
}

// must applies a command that may not be refused.
func (m *machine) must(c Command) Result {
	m.t.Helper()
	r := m.apply(c)
	if r.Err != nil {
		m.t.Fatalf("%s: %v", c.Kind(), r.Err)
	}
	return r
}

// newMachine has three nodes with a disk each.
func newMachine(t *testing.T) *machine {
	m := &machine{t: t, State: &State{}}
	m.must(Bootstrap{Cluster: block.ClusterID{ID: id('c', 1)}, Incarnation: 1})
	for n := uint64(1); n <= 3; n++ {
		m.must(SetNode{Node: Node{ID: nodeID(n), Name: "node", ControlAddress: "c:1", DataAddress: "d:1", RaftAddress: "r:1", Tags: []string{"b", "a", "b"}}})
		m.must(AddDisk{Disk: Disk{ID: diskID(n), Node: nodeID(n), Path: "/disk", Class: "ssd", Capacity: 1 << 40}})
	}
	return m
}

// creation is the command that makes volume n with three replicas, whose IDs are
// 10n+1 to 10n+3.
func (m *machine) creation(n uint64) CreateVolume {
	c := CreateVolume{
		Volume: volumeID(n), Name: "volume-" + string(rune('a'+n)), Size: 1 << 30,
		Parameters: Parameters{Replicas: 3, MinInSync: 1}, DecidedAt: m.Index(),
	}
	for r := uint64(1); r <= 3; r++ {
		disk, _ := m.Disk(diskID(r))
		c.Replicas = append(c.Replicas, Placement{Replica: replicaID(10*n + r), Node: disk.Node, Disk: disk.ID})
	}
	return c
}

// ready makes volume n with all its replicas.
func (m *machine) ready(n uint64) {
	m.t.Helper()
	m.must(m.creation(n))
	for r := uint64(1); r <= 3; r++ {
		m.must(ReplicaReady{Replica: replicaID(10*n + r), Incarnation: incarnation(r)})
	}
}

// start publishes volume 1 to node 1 and starts an engine with a fresh
// attachment.
func (m *machine) start() block.View {
	m.t.Helper()
	m.must(Publish{Volume: volumeID(1), Node: nodeID(1)})
	v, _ := m.Volume(volumeID(1))
	r := m.must(StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), Epoch: v.View.Epoch, NewAttachment: attachmentID(1)})
	return r.View()
}

// take reserves snapshot n of a volume and adds it to the view, as the engine of its
// epoch does.
func (m *machine) take(volume, n uint64) block.View {
	m.t.Helper()
	m.must(CreateSnapshot{Snapshot: snapshotID(n), Name: fmt.Sprintf("snapshot-%d", n), Volume: volumeID(volume), Created: int64(n), DecidedAt: m.Index()})
	v, _ := m.Volume(volumeID(volume))
	r := m.must(Propose{Proposal: block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision,
		Snapshot: &block.Snapshot{ID: snapshotID(n), Size: v.View.Size, Created: int64(n)}}})
	if r.Verdict != block.Committed {
		m.t.Fatalf("snapshot %d of volume %d: %+v", n, volume, r)
	}
	return r.View()
}
