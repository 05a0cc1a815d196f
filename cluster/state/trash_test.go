package state

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func trashExamples() []Command {
	return []Command{
		SetSettings{TrashKeep: number(86400)},
		DeleteVolume{Volume: volumeID(1), At: 1700000000000, OnlyWithoutSnapshots: true},
		DeleteVolume{Volume: volumeID(1), Purge: true},
		RestoreVolume{Volume: volumeID(1), Name: "again"},
		PurgeVolume{Volume: volumeID(1)},
		PurgeVolume{Volume: volumeID(1), Expired: 1700086400000},
	}
}

func TestTrashFormat(t *testing.T) {
	checkCommands(t, "trash_commands.jsonl", trashExamples())
	m := trashMachine(t, 60)
	m.must(DeleteVolume{Volume: volumeID(1), At: 1000})
	checkState(t, "trash_snapshot.json", m.State)
}

// trashMachine has a volume with a snapshot, detached, and a trash.
func trashMachine(t *testing.T, keep int64) *machine {
	t.Helper()
	m := newMachine(t)
	m.ready(1)
	m.start()
	m.take(1, 1)
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
	if keep > 0 {
		m.must(SetSettings{TrashKeep: &keep})
	}
	return m
}

func trashOf(s *State) int { return len(slices.Collect(s.Trash())) }

// TestTrashKeepsVolumes with their replicas and snapshots, without the name.
func TestTrashKeepsVolumes(t *testing.T) {
	m := trashMachine(t, 60)
	before := m.volume(1)
	wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1)}), block.ErrUnavailable)
	m.must(DeleteVolume{Volume: volumeID(1), At: 1000})
	// The second time changes nothing.
	m.must(DeleteVolume{Volume: volumeID(1), At: 5000})
	v := m.volume(1)
	if (v.Trashed != Trashed{Since: 1000, Until: 61000}) || v.Deleting || !reflect.DeepEqual(v.View.Replicas, before.View.Replicas) || len(v.View.Snapshots) != 1 {
		t.Fatalf("in the trash: %+v", v)
	}
	if o, held := m.VolumeByName(v.Name); held {
		t.Fatalf("its name is held by %s", o.ID)
	}
	for _, c := range []Command{
		Publish{Volume: v.ID, Node: nodeID(1)}, GrowVolume{Volume: v.ID, Size: 1 << 31},
		CreateSnapshot{Snapshot: snapshotID(2), Name: "late", Volume: v.ID, DecidedAt: m.Index()},
	} {
		if r := m.apply(c); !errors.Is(r.Err, block.ErrNotFound) || !strings.Contains(r.Err.Error(), "in the trash") {
			t.Errorf("%s: %v", c.Kind(), r.Err)
		}
	}
	wantErr(t, m.apply(ReplicaGone{Replica: v.View.Replicas[0].ID}), block.ErrInUse)
	// Another setting is for what comes later.
	m.must(SetSettings{TrashKeep: number(0)})
	if v := m.volume(1); v.Trashed.Until != 61000 {
		t.Fatalf("after the trash was turned off: %+v", v.Trashed)
	}
	m.must(RestoreVolume{Volume: v.ID})
	m.must(RestoreVolume{Volume: v.ID})
	restored := m.volume(1)
	restored.View.Revision = before.View.Revision
	if !reflect.DeepEqual(restored, before) {
		t.Fatalf("restored %+v, it was %+v", restored, before)
	}
	m.must(Publish{Volume: v.ID, Node: nodeID(1)})
}

// TestRestoreUnderAnotherName where its own was taken.
func TestRestoreUnderAnotherName(t *testing.T) {
	m := trashMachine(t, 60)
	m.must(DeleteVolume{Volume: volumeID(1), At: 1000})
	c := m.creation(2)
	c.Name = m.volume(1).Name
	m.must(c)
	if r := m.apply(RestoreVolume{Volume: volumeID(1)}); !errors.Is(r.Err, block.ErrExists) || !strings.Contains(r.Err.Error(), "under another one") {
		t.Fatalf("restored under a name that is taken: %v", r.Err)
	}
	wantErr(t, m.apply(RestoreVolume{Volume: volumeID(2), Name: "other"}), block.ErrNotFound)
	wantErr(t, m.apply(RestoreVolume{Volume: volumeID(3)}), block.ErrNotFound)
	m.must(RestoreVolume{Volume: volumeID(1), Name: "again"})
	m.must(RestoreVolume{Volume: volumeID(1), Name: "again"})
	if v, ok := m.VolumeByName("again"); !ok || v.ID != volumeID(1) {
		t.Fatalf("found %v, %t", v.ID, ok)
	}
}

// TestPurge by hand and when the time is up, and not while it is needed.
func TestPurge(t *testing.T) {
	m := trashMachine(t, 60)
	m.must(DeleteVolume{Volume: volumeID(1), At: 1000})
	m.must(PurgeVolume{Volume: volumeID(1), Expired: 60999})
	if v := m.volume(1); !v.InTrash() {
		t.Fatalf("purged before its time: %+v", v)
	}
	// A snapshot in the trash can be made into a volume, and is pinned meanwhile.
	c := m.creation(2)
	c.Source = &Source{Snapshot: snapshotID(1), Volume: volumeID(1)}
	m.must(c)
	wantErr(t, m.apply(PurgeVolume{Volume: volumeID(1), Expired: 61000}), block.ErrInUse)
	for r := uint64(21); r <= 23; r++ {
		m.must(ReplicaReady{Replica: replicaID(r)})
	}
	m.must(PurgeVolume{Volume: volumeID(1), Expired: 61000})
	m.must(PurgeVolume{Volume: volumeID(1)})
	if v := m.volume(1); !v.Deleting || v.InTrash() || len(v.View.Snapshots) != 0 {
		t.Fatalf("purged: %+v", v)
	}
	if _, ok := m.Snapshot(snapshotID(1)); ok {
		t.Fatal("a snapshot outlived its volume")
	}
	wantErr(t, m.apply(RestoreVolume{Volume: volumeID(1)}), block.ErrNotFound)
	// A purge that was decided before a restoration comes to nothing.
	m.must(DeleteVolume{Volume: volumeID(2), At: 1000})
	m.must(RestoreVolume{Volume: volumeID(2)})
	wantErr(t, m.apply(PurgeVolume{Volume: volumeID(2), Expired: 61000}), block.ErrNotFound)
	wantErr(t, m.apply(PurgeVolume{Volume: volumeID(9)}), block.ErrNotFound)
	// Past the trash.
	m.must(DeleteVolume{Volume: volumeID(2), Purge: true})
	if v := m.volume(2); !v.Deleting {
		t.Fatalf("deleted for good: %+v", v)
	}
	// What was not finished is not worth keeping.
	m.must(m.creation(3))
	m.must(DeleteVolume{Volume: volumeID(3), At: 1000})
	if v := m.volume(3); !v.Deleting {
		t.Fatalf("deleted before it was made: %+v", v)
	}
}

// TestDeleteOnlyWithoutSnapshots counts also one that is about to be taken, with the
// trash and without.
func TestDeleteOnlyWithoutSnapshots(t *testing.T) {
	for _, keep := range []int64{0, 60} {
		m := trashMachine(t, keep)
		careful := DeleteVolume{Volume: volumeID(1), At: 1000, OnlyWithoutSnapshots: true}
		wantErr(t, m.apply(careful), block.ErrInUse)
		m.must(DeleteSnapshot{Snapshot: snapshotID(1)})
		m.must(CreateSnapshot{Snapshot: snapshotID(2), Name: "reserved", Volume: volumeID(1), DecidedAt: m.Index()})
		if r := m.apply(careful); !errors.Is(r.Err, block.ErrInUse) || !strings.Contains(r.Err.Error(), "of which it has 1; delete them first") {
			t.Fatalf("with a snapshot that is being taken: %v", r.Err)
		}
		m.must(DeleteSnapshot{Snapshot: snapshotID(2)})
		m.must(careful)
		m.must(careful)
		if v := m.volume(1); v.Deleting == v.InTrash() || v.InTrash() != (keep > 0) {
			t.Fatalf("deleted with a trash of %d s: %+v", keep, v)
		}
	}
}

func TestTrashSettings(t *testing.T) {
	m := newMachine(t)
	wantErr(t, m.apply(SetSettings{TrashKeep: number(-1)}), block.ErrInvalid)
	wantErr(t, m.apply(SetSettings{TrashKeep: number(TrashKeepMax + 1)}), block.ErrInvalid)
	if got := m.Settings(); got != DefaultSettings() || got.TrashKeep != 0 {
		t.Fatalf("settings %+v", got)
	}
	m.must(SetSettings{TrashKeep: number(TrashKeepMax)})
	m.ready(1)
	wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1), At: 1<<63 - 1}), block.ErrInvalid)
	wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1), At: -1}), block.ErrInvalid)
}

// TestRestoredStateOfTheTrash: what does not make sense is refused.
func TestRestoredStateOfTheTrash(t *testing.T) {
	m := trashMachine(t, 60)
	m.must(DeleteVolume{Volume: volumeID(1), At: 1000})
	good, err := m.Save()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{
		{`"Since":1000`, `"Since":0`}, {`"Until":61000`, `"Until":999`}, {`"Trashed":`, `"Pending":["` + replicaID(11).String() + `"],"Trashed":`},
	} {
		data := bytes.Replace(good, []byte(bad[0]), []byte(bad[1]), 1)
		if _, err := Restore(data); bytes.Equal(data, good) || !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("with %s: %v", bad[1], err)
		}
	}
}

// TestRandomTrash is TestRandomCommands with deletions, restorations and purges among
// the commands.
func TestRandomTrash(t *testing.T) {
	trashed, restored, purged := 0, 0, 0
	for seed := range uint64(6) {
		c := &chaos{Rand: rand.New(rand.NewPCG(seed, 2))}
		m := newMachine(t)
		m.must(SetNode{Node: Node{ID: nodeID(4)}})
		for range 6000 {
			before, command := m.State, c.command(m)
			if c.IntN(4) == 0 {
				command = c.trashing(m)
			}
			r := m.apply(command)
			follows(t, before, m.State, command, r)
			trashFollows(t, before, m.State, command, r)
			switch was, is := trashOf(before), trashOf(m.State); {
			case is > was:
				trashed++
			case is < was && r.Volume.Deleting:
				purged++
			case is < was:
				restored++
			}
			if after := m.State; r.Err == nil {
				if m.apply(command); !sameVolumes(after, m.State) {
					t.Fatalf("seed %d: %s applied twice changed the state again", seed, command.Kind())
				}
			}
		}
		checkSaved(t, m.State)
	}
	if trashed < 20 || restored < 10 || purged < 5 {
		t.Fatalf("only %d volumes were put into the trash, %d restored, %d purged", trashed, restored, purged)
	}
}

// checkSaved wants a state to be the same after it was saved.
func checkSaved(t *testing.T, s *State) {
	t.Helper()
	data, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	reread, err := Restore(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := reread.Save(); err != nil || !bytes.Equal(again, data) {
		t.Fatalf("restored %s, %v, want %s", again, err, data)
	}
}

// trashing draws a command about the trash. What is being made is left in peace, or
// little would come to be.
func (c *chaos) trashing(m *machine) Command {
	v, _ := m.Volume(c.volume())
	switch n := c.IntN(8); {
	case n == 0 || !v.Ready():
		keep := c.Int64N(3) * 10
		return SetSettings{TrashKeep: &keep}
	case n == 1:
		return RestoreVolume{Volume: v.ID}
	case n == 2:
		return RestoreVolume{Volume: v.ID, Name: "volume-" + string(rune('a'+c.IntN(6)))}
	case n == 3:
		return PurgeVolume{Volume: v.ID, Expired: v.Trashed.Until - int64(c.IntN(2))}
	case n == 4:
		return PurgeVolume{Volume: v.ID}
	case !v.Published.IsZero():
		return Unpublish{Volume: v.ID, Node: v.Published, EndAttachment: true}
	default:
		return DeleteVolume{Volume: v.ID, At: int64(c.drawn), OnlyWithoutSnapshots: c.IntN(2) == 0, Purge: c.IntN(8) == 0}
	}
}

// trashFollows wants volumes to leave the trash only by restoration or purge, and a
// careful deletion to lose no snapshot.
func trashFollows(t *testing.T, before, after *State, c Command, r Result) {
	t.Helper()
	for v := range before.Trash() {
		w, ok := after.Volume(v.ID)
		if !ok {
			t.Fatalf("%s dropped volume %s out of the trash", c.Kind(), v.ID)
		}
		purge, _ := c.(PurgeVolume)
		purge.Expired = max(purge.Expired, 0)
		switch _, restored := c.(RestoreVolume); {
		case w.InTrash() && w.Trashed != v.Trashed:
			t.Fatalf("%s changed the time of volume %s from %+v to %+v", c.Kind(), v.ID, v.Trashed, w.Trashed)
		case !w.InTrash() && !w.Deleting && !restored:
			t.Fatalf("%s took volume %s out of the trash", c.Kind(), v.ID)
		case w.Deleting && purge.Expired != 0 && purge.Expired < v.Trashed.Until:
			t.Fatalf("volume %s was purged at %d, its time is up at %d", v.ID, purge.Expired, v.Trashed.Until)
		}
	}
	if d, ok := c.(DeleteVolume); ok && r.Err == nil && d.OnlyWithoutSnapshots && before.snapshots.count != after.snapshots.count {
		if v, _ := before.Volume(d.Volume); !v.making() {
			t.Fatalf("%+v lost a snapshot", d)
		}
	}
}
