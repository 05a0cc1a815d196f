package state

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// chaos draws commands that name few objects, so that most of them meet.
type chaos struct {
	*rand.Rand
	drawn uint64
}

func (c *chaos) volume() block.VolumeID { return volumeID(1 + c.Uint64N(4)) }
func (c *chaos) node() block.NodeID     { return nodeID(1 + c.Uint64N(4)) }
func (c *chaos) replica() block.ReplicaID {
	n := 10*(1+c.Uint64N(4)) + 1 + c.Uint64N(3)
	if c.IntN(4) == 0 {
		n += 3 + c.Uint64N(3)
	}
	return replicaID(n)
}
func (c *chaos) snapshot() block.SnapshotID { return snapshotID(1 + c.Uint64N(12)) }
func (c *chaos) replicas() (list []block.ReplicaID) {
	for range c.IntN(3) {
		list = append(list, c.replica())
	}
	return list
}

// command draws one; where a compare-and-set is needed it is usually right.
func (c *chaos) command(m *machine) Command {
	c.drawn++
	v, _ := m.Volume(c.volume())
	stale := uint64(0)
	if c.IntN(8) == 0 {
		stale = 1
	}
	if c.IntN(8) == 0 {
		return c.reverting(m, v)
	}
	switch c.IntN(56) {
	case 0:
		return m.creation(1 + c.Uint64N(4))
	case 30, 31, 40, 41:
		return c.copying(m, v)
	case 32, 33:
		return CreateSnapshot{Snapshot: c.snapshot(), Name: "name-" + strconv.Itoa(c.IntN(12)), Volume: v.ID, Created: int64(c.drawn), DecidedAt: m.Index() - stale*20}
	case 34:
		return DeleteSnapshot{Snapshot: c.snapshot(), Untaken: c.IntN(3) == 0}
	case 35:
		return GrowVolume{Volume: v.ID, Size: v.View.Size + int64(c.IntN(3)-1)*block.BlockSize}
	case 36:
		return StartEngine{Volume: v.ID, Node: c.node(), Start: startID(c.drawn), Epoch: v.View.Epoch, NewAttachment: attachmentID(c.drawn), Borrow: true, Yield: c.IntN(2) == 0}
	case 37, 38:
		r, _ := m.Snapshot(c.snapshot())
		if of, ok := m.Volume(r.Volume); ok {
			v = of
		}
		return Propose{Proposal: block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision - block.Revision(stale),
			Snapshot: &block.Snapshot{ID: r.ID, Size: v.View.Size, Created: r.Created}}}
	case 39:
		return Propose{Proposal: block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision, Size: v.View.Size + block.BlockSize, EndAttachment: c.IntN(4) == 0}}
	case 45, 46, 47, 48:
		return c.replacing(m, v)
	case 49:
		if r := v.Replacing; len(r) > 0 && c.IntN(3) == 0 {
			return AbandonReplacement{Volume: v.ID, Replica: r[0].New.Replica}
		}
		return AbandonReplacement{Volume: v.ID, Replica: c.replica()}
	case 50, 51, 52, 53, 54, 55:
		return c.admitting(v, stale)
	case 42, 43:
		return c.scrubbing(m, v)
	case 44:
		return RequestScrub{Volume: v.ID, At: int64(c.drawn)}
	case 12, 13, 14, 15:
		return ReplicaReady{Replica: c.replica(), Incarnation: incarnation(c.drawn)}
	case 3:
		if c.IntN(3) > 0 {
			return SetNode{Node: Node{ID: c.node(), Name: "renamed"}}
		}
		return DeleteVolume{Volume: v.ID}
	case 1, 2, 4:
		return ReplicaGone{Replica: c.replica()}
	case 5, 16, 17:
		return Publish{Volume: v.ID, Node: c.node()}
	case 6:
		return Unpublish{Volume: v.ID, Node: v.Published, EndAttachment: c.IntN(2) == 0}
	case 7, 18, 19:
		return StartEngine{Volume: v.ID, Node: v.Published, Start: startID(c.drawn), Epoch: v.View.Epoch - block.Epoch(stale), NewAttachment: attachmentID(c.drawn)}
	case 8:
		return StartEngine{Volume: v.ID, Node: v.Published, Start: startID(c.drawn), Epoch: v.View.Epoch, Attachment: v.View.Attachment}
	case 9:
		return EndAttachment{Volume: v.ID, Attachment: v.View.Attachment}
	case 10:
		disk := diskID(1 + c.Uint64N(6))
		if _, known := m.Disk(disk); known && c.IntN(4) == 0 {
			switch c.IntN(8) {
			case 0, 1:
				return RemoveDisk{Disk: disk, Lost: c.IntN(2) == 0}
			case 2:
				return DrainDisk{Disk: disk, Successor: diskID(c.Uint64N(6))}
			}
			return CordonDisk{Disk: disk, Cordoned: c.IntN(2) == 0}
		}
		return AddDisk{Disk: Disk{ID: disk, Node: c.node(), Path: "/disk"}, From: c.node()}
	default:
		p := block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision - block.Revision(stale),
			WaitedOut: c.IntN(2) == 0, EndAttachment: c.IntN(8) == 0}
		if c.IntN(2) == 0 {
			p.Remove = c.replicas()
		} else {
			p.Admit = c.replicas()
		}
		return Propose{Proposal: p}
	}
}

// replacing is the beginning of a replacement, often on a node that has no other
// replica of the volume, and now and then its end on the disk.
func (c *chaos) replacing(m *machine, v Volume) Command {
	if more := v.Elsewhere(); len(more) > 0 && c.IntN(3) > 0 {
		p := more[c.IntN(len(more))]
		if v.IsRetired(p.Replica) {
			return ReplicaGone{Replica: p.Replica}
		}
		return ReplicaReady{Replica: p.Replica, Incarnation: incarnation(c.drawn)}
	}
	disk := diskID(1 + c.Uint64N(6))
	k := ReplaceReplica{Volume: v.ID, Old: c.replica(), New: Placement{Replica: c.replica(), Node: c.node(), Disk: disk}, DecidedAt: m.Index()}
	if d, ok := m.Disk(disk); ok && c.IntN(8) > 0 {
		k.New.Node = d.Node
	}
	if len(v.View.Replicas) > 0 && c.IntN(8) > 0 {
		k.Old = v.View.Replicas[c.IntN(len(v.View.Replicas))].ID
	}
	return k
}

// admitting is what an engine proposes for the sake of a replacement: the new replica
// in, and then the old one out.
func (c *chaos) admitting(v Volume, stale uint64) Command {
	p := block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision - block.Revision(stale)}
	if r, ok := v.Retiring(); ok {
		p.Remove = []block.ReplicaID{r.Old}
	} else if len(v.Replacing) > 0 {
		p.Admit = []block.ReplicaID{v.Replacing[0].New.Replica}
	}
	return Propose{Proposal: p}
}

// copying is the creation of a volume from a snapshot, which may be taken or not.
func (c *chaos) copying(m *machine, source Volume) Command {
	k := m.creation(1 + c.Uint64N(4))
	id := c.snapshot()
	for r := range m.Snapshots() {
		if r.Ready() && c.IntN(4) > 0 {
			id = r.ID
			source, _ = m.Volume(r.Volume)
		}
	}
	k.Source = &Source{Snapshot: id, Volume: source.ID, Clone: c.IntN(2) == 0}
	k.Size = source.View.Size
	for i := range k.Replicas {
		k.Replicas[i].Absent = i >= len(source.View.Replicas) || !source.View.Replicas[i].InSync
	}
	return k
}

// TestRandomCommands checks after each of many commands that the invariants hold,
// that epochs and revisions only rise, that refusals change nothing and that a
// repeated command changes nothing more.
func TestRandomCommands(t *testing.T) {
	committed, copied, grown, snapshots, borrowed, replaced, reverted := 0, 0, 0, 0, 0, 0, 0
	for seed := range uint64(8) {
		c := &chaos{Rand: rand.New(rand.NewPCG(seed, 1))}
		m := newMachine(t)
		m.must(SetNode{Node: Node{ID: nodeID(4)}})
		for range 4400 {
			before := m.State
			command := c.command(m)
			r := m.apply(command)
			follows(t, before, m.State, command, r)
			scrubsFollow(t, before, m.State, command, r)
			if r.Verdict == block.Committed {
				committed++
			}
			if p, ok := command.(Propose); ok && r.Verdict == block.Committed && p.Proposal.Snapshot != nil {
				snapshots++
			} else if ok && r.Verdict == block.Committed && p.Proposal.Size != 0 {
				grown++
			}
			if k, ok := command.(CreateVolume); ok && r.Err == nil && k.Source != nil {
				copied++
			}
			if k, ok := command.(Propose); ok && r.Verdict == block.Committed && len(r.Volume.Retired) > len(volumeOf(before, k.Proposal.Volume).Retired) {
				replaced++
			}
			if k, ok := command.(StartEngine); ok && r.Err == nil && k.Borrow {
				borrowed++
			}
			if _, ok := command.(EndRevert); ok && m.State != before && r.Err == nil && r.Volume.Revert != nil && !r.Volume.Reverting() {
				reverted++
			}
			if r.Err == nil {
				after := m.State
				m.apply(command)
				if !sameVolumes(after, m.State) {
					t.Fatalf("seed %d: %s applied twice changed the state again", seed, command.Kind())
				}
			}
		}
		data, err := m.Save()
		if err != nil {
			t.Fatal(err)
		}
		restored, err := Restore(data)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := restored.Save(); !bytes.Equal(again, data) {
			t.Fatalf("seed %d: the restored state differs", seed)
		}
	}
	if committed < 200 || copied < 20 || grown < 20 || snapshots < 20 || borrowed < 20 || replaced < 20 || reverted < 20 {
		t.Fatalf("only %d proposals were committed, %d of them snapshots, %d of them growth; %d volumes were copied, %d borrowed, %d replicas replaced, %d volumes reverted",
			committed, snapshots, grown, copied, borrowed, replaced, reverted)
	}
}

func volumeOf(s *State, id block.VolumeID) Volume {
	v, _ := s.Volume(id)
	return v
}

func sameVolumes(a, b *State) bool {
	for v := range a.Volumes() {
		if w, ok := b.Volume(v.ID); !ok || !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return a.VolumeCount() == b.VolumeCount() && slices.Equal(slices.Collect(a.Snapshots()), slices.Collect(b.Snapshots())) &&
		reflect.DeepEqual(slices.Collect(a.Scrubs()), slices.Collect(b.Scrubs()))
}

func follows(t *testing.T, before, after *State, c Command, r Result) {
	t.Helper()
	if r.Err != nil && !sameVolumes(before, after) {
		t.Fatalf("refused %s changed a volume: %v", c.Kind(), r.Err)
	}
	for v := range before.Volumes() {
		w, ok := after.Volume(v.ID)
		if !ok {
			if !v.Deleting {
				t.Fatalf("%s dropped volume %s, which was not deleted", c.Kind(), v.ID)
			}
			continue
		}
		if reflect.DeepEqual(v, w) {
			continue
		}
		if w.View.Revision != v.View.Revision+1 {
			t.Fatalf("%s changed volume %s from revision %d to %d", c.Kind(), v.ID, v.View.Revision, w.View.Revision)
		}
		_, start := c.(StartEngine)
		if rise := w.View.Epoch - v.View.Epoch; rise > 1 || (rise == 1) != start {
			t.Fatalf("%s changed volume %s from epoch %d to %d", c.Kind(), v.ID, v.View.Epoch, w.View.Epoch)
		}
		if w.View.Size < v.View.Size || w.View.Size > v.View.Size && w.View.Size > v.GrowTo {
			t.Fatalf("%s changed volume %s from %d to %d bytes, asked for were %d", c.Kind(), v.ID, v.View.Size, w.View.Size, v.GrowTo)
		}
		for _, m := range v.View.Replicas {
			if w.View.Member(m.ID) == nil && !v.Deleting && !w.IsRetired(m.ID) {
				t.Fatalf("%s dropped replica %s of volume %s", c.Kind(), m.ID, v.ID)
			}
		}
		if v.Ready() && !w.Deleting && w.View.InSync() == 0 {
			t.Fatalf("%s emptied the in-sync set of volume %s", c.Kind(), v.ID)
		}
	}
}

func TestTableAgainstMap(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var tab table[int]
	model := map[block.ID]int{}
	for i := range 5000 {
		k := id(byte(random.IntN(3)), random.Uint64N(300))
		if random.IntN(3) == 0 {
			tab = tab.without(k)
			delete(model, k)
		} else {
			tab = tab.with(k, i)
			model[k] = i
		}
	}
	if tab.count != len(model) {
		t.Fatalf("%d rows, want %d", tab.count, len(model))
	}
	seen := 0
	for v := range tab.all() {
		seen++
		_ = v
	}
	if seen != len(model) {
		t.Fatalf("iterated over %d rows, want %d", seen, len(model))
	}
	for k, v := range model {
		if got, ok := tab.get(k); !ok || got != v {
			t.Fatalf("row %s: %d, want %d", k, got, v)
		}
		after := 0
		for range tab.after(k) {
			after++
		}
		want := 0
		for o := range model {
			if bytes.Compare(o[:], k[:]) > 0 {
				want++
			}
		}
		if after != want {
			t.Fatalf("%d rows after %s, want %d", after, k, want)
		}
	}
}
