package state

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestSpaceLimitFormat(t *testing.T) {
	c := (&machine{t: t, State: &State{}}).limited(SpaceLimit{Percent: 50})
	checkCommands(t, "limit_commands.jsonl", []Command{
		c, SetVolume{Volume: volumeID(1), SnapshotSpace: &SpaceLimit{Bytes: 1 << 30}}, SetVolume{Volume: volumeID(1), SnapshotSpace: &SpaceLimit{}},
	})
	m := newMachine(t)
	m.must(m.limited(SpaceLimit{Percent: 50}))
	m.must(SetVolume{Volume: volumeID(1), SnapshotSpace: &SpaceLimit{}})
	checkState(t, "limit_snapshot.json", m.State)
}

// limited is the creation of volume 1 with a limit.
func (m *machine) limited(l SpaceLimit) CreateVolume {
	c := m.creation(1)
	c.Parameters.SnapshotSpace = l
	return c
}

func TestSpaceLimit(t *testing.T) {
	m := newMachine(t)
	for _, bad := range []SpaceLimit{{Bytes: -1}, {Percent: -1}, {Percent: PercentMax + 1}, {Bytes: 1, Percent: 1}} {
		wantErr(t, m.apply(m.limited(bad)), block.ErrInvalid)
	}
	c := m.limited(SpaceLimit{Percent: 50})
	m.must(c)
	m.ready(2)
	limit := func(want int64) {
		t.Helper()
		if v := m.volume(1); v.SnapshotBytesMax() != want {
			t.Fatalf("the limit is %d bytes, want %d", v.SnapshotBytesMax(), want)
		}
	}
	limit(1 << 30 / 100 * 50)
	wantErr(t, m.apply(SetVolume{Volume: volumeID(1), SnapshotSpace: &SpaceLimit{Percent: -1}}), block.ErrInvalid)
	for _, l := range []SpaceLimit{{Bytes: 5 << 20}, {Bytes: 5 << 20}, {}, {Percent: 10}, {Percent: 50}} {
		m.must(SetVolume{Volume: volumeID(1), SnapshotSpace: &l})
		limit(l.Bytes + 1<<30/100*int64(l.Percent))
	}
	m.must(SetVolume{Volume: volumeID(1), SnapshotSpace: &SpaceLimit{}})
	// The creation, repeated, is still the same wish, and another one is another.
	m.must(c)
	limit(0)
	c.Parameters.SnapshotSpace.Percent++
	wantErr(t, m.apply(c), block.ErrExists)
	// A percentage grows with the volume.
	m.must(SetVolume{Volume: volumeID(2), SnapshotSpace: &SpaceLimit{Percent: 200}})
	m.must(Publish{Volume: volumeID(2), Node: nodeID(1)})
	r := m.must(StartEngine{Volume: volumeID(2), Node: nodeID(1), Start: startID(1), NewAttachment: attachmentID(1)})
	m.must(GrowVolume{Volume: volumeID(2), Size: 1 << 31})
	m.must(Propose{Proposal: block.Proposal{Volume: volumeID(2), Epoch: r.View().Epoch, Revision: r.View().Revision + 1, Size: 1 << 31}})
	if v := m.volume(2); v.SnapshotBytesMax() != 1<<31/100*200 {
		t.Fatalf("after growth: %d", v.SnapshotBytesMax())
	}
	wantErr(t, m.apply(SetVolume{Volume: volumeID(3), SnapshotSpace: &SpaceLimit{}}), block.ErrNotFound)
	m.must(SetVolume{Volume: volumeID(1)})
}
