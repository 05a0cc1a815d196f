package state

import (
	"bytes"
	"math/rand/v2"
	"reflect"
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
	return replicaID(10*(1+c.Uint64N(4)) + 1 + c.Uint64N(3))
}
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
	switch c.IntN(30) {
	case 0:
		return m.creation(1 + c.Uint64N(4))
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
		return AddDisk{Disk: Disk{ID: diskID(1 + c.Uint64N(3)), Node: c.node(), Path: "/disk"}, From: c.node()}
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

// TestRandomCommands checks after each of many commands that the invariants hold,
// that epochs and revisions only rise, that refusals change nothing and that a
// repeated command changes nothing more.
func TestRandomCommands(t *testing.T) {
	committed := 0
	for seed := range uint64(8) {
		c := &chaos{Rand: rand.New(rand.NewPCG(seed, 1))}
		m := newMachine(t)
		m.must(SetNode{Node: Node{ID: nodeID(4)}})
		for range 1500 {
			before := m.State
			command := c.command(m)
			r := m.apply(command)
			follows(t, before, m.State, command, r)
			if r.Verdict == block.Committed {
				committed++
			}
			if r.Err == nil {
				after := m.State
				m.apply(command)
				if !sameVolumes(after, m.State) {
					t.Fatalf("seed %d: %s applied twice changed the state again", seed, command.Kind())
				}
			}
		}
		data, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		restored, err := Restore(data)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := restored.Snapshot(); !bytes.Equal(again, data) {
			t.Fatalf("seed %d: the restored state differs", seed)
		}
	}
	if committed < 200 {
		t.Fatalf("only %d proposals were committed", committed)
	}
}

func sameVolumes(a, b *State) bool {
	for v := range a.Volumes() {
		if w, ok := b.Volume(v.ID); !ok || !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return a.VolumeCount() == b.VolumeCount()
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
