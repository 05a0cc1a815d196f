package state

import (
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// reverting is one of the commands of a revert, mostly where it fits.
func (c *chaos) reverting(m *machine, v Volume) Command {
	for o := range m.Volumes() {
		if free := o.Published.IsZero() && len(o.View.Snapshots) > 0; (o.Reverting() || free) && c.IntN(3) == 0 {
			v = o
		}
	}
	keep := []string{"", "name-1", "name-2"}[c.IntN(3)]
	if v.Reverting() {
		switch c.IntN(6) {
		case 0:
			return EndRevert{Volume: v.ID, Snapshot: v.Revert.To, GiveUp: true}
		case 1, 2, 3:
			return EndRevert{Volume: v.ID, Snapshot: v.Revert.To, Epoch: v.View.Epoch - block.Epoch(c.IntN(2))}
		case 4:
			if !v.Borrowed() {
				return StartEngine{Volume: v.ID, Node: c.node(), Start: startID(c.drawn), Epoch: v.View.Epoch, NewAttachment: attachmentID(c.drawn), Borrow: true}
			}
			r, _ := m.SnapshotByName(v.Revert.Keep)
			return Propose{Proposal: block.Proposal{Volume: v.ID, Epoch: v.View.Epoch, Revision: v.View.Revision,
				Snapshot: &block.Snapshot{ID: r.ID, Size: v.View.Size, Created: r.Created}}}
		default:
			if v.Revert.Keep != "" && c.IntN(2) == 0 {
				return CreateSnapshot{Snapshot: c.snapshot(), Name: v.Revert.Keep, Volume: v.ID, Created: int64(c.drawn), DecidedAt: m.Index()}
			}
		}
	}
	to := c.snapshot()
	if n := len(v.View.Snapshots); n > 0 && c.IntN(4) > 0 {
		to = v.View.Snapshots[c.IntN(n)].ID
	}
	return RevertVolume{Volume: v.ID, Snapshot: to, Keep: keep}
}

// reverted is a machine whose volume 1, published to nobody, has snapshots 1 and 2.
func reverted(t *testing.T) *machine {
	m := newMachine(t)
	m.ready(1)
	m.ready(2)
	m.start()
	m.take(1, 1)
	m.take(1, 2)
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
	return m
}

// borrow starts an engine without a frontend on volume 1.
func (m *machine) borrow(n uint64) block.View {
	m.t.Helper()
	v, _ := m.Volume(volumeID(1))
	return m.must(StartEngine{Volume: v.ID, Node: nodeID(2), Start: startID(n), Epoch: v.View.Epoch, NewAttachment: attachmentID(n), Borrow: true}).Volume.View
}

// giveBack ends what borrow has begun.
func (m *machine) giveBack(view block.View) {
	m.t.Helper()
	m.must(EndAttachment{Volume: view.Volume, Attachment: view.Attachment})
}

// keep has the head of volume 1 kept as snapshot n, called kept.
func (m *machine) keep(n uint64) {
	m.t.Helper()
	view := m.borrow(100 + n)
	m.must(CreateSnapshot{Snapshot: snapshotID(n), Name: "kept", Volume: view.Volume, Created: int64(n), DecidedAt: m.Index()})
	r := m.must(Propose{Proposal: block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision,
		Snapshot: &block.Snapshot{ID: snapshotID(n), Size: view.Size, Created: int64(n)}}})
	if r.Verdict != block.Committed {
		m.t.Fatalf("%+v", r)
	}
	m.giveBack(view)
}

func (m *machine) refused(want error, c Command) {
	m.t.Helper()
	if r := m.apply(c); !errors.Is(r.Err, want) {
		m.t.Errorf("%s: %v, want %v", c.Kind(), r.Err, want)
	}
}

func (m *machine) reverting() bool {
	v, _ := m.Volume(volumeID(1))
	return v.Reverting()
}

// TestRevertLife: intent, head kept, engine, end; what is asked again changes nothing,
// until another engine was started.
func TestRevertLife(t *testing.T) {
	m := reverted(t)
	intent := RevertVolume{Volume: volumeID(1), Snapshot: snapshotID(1), Keep: "kept"}
	m.must(intent)
	v, _ := m.Volume(volumeID(1))
	if !v.Reverting() || v.RevertBegun() || len(slices.Collect(m.RevertingVolumes())) != 1 {
		t.Fatalf("after the intent: %+v", v.Revert)
	}
	revision := v.View.Revision
	if m.must(intent).Volume.View.Revision != revision {
		t.Error("the intent repeated changes something")
	}
	m.keep(3)
	if v, _ = m.Volume(volumeID(1)); !v.RevertBegun() {
		t.Error("the head is kept, and it does not begin")
	}
	view := m.borrow(5)
	m.refused(block.ErrConflict, EndRevert{Volume: v.ID, Snapshot: snapshotID(1), Epoch: view.Epoch - 1})
	done := EndRevert{Volume: v.ID, Snapshot: snapshotID(1), Epoch: view.Epoch}
	m.must(done)
	m.must(done)
	if m.reverting() {
		t.Error("it has ended and goes on")
	}
	m.giveBack(view)
	m.must(intent)
	m.must(Publish{Volume: v.ID, Node: nodeID(3)})
	m.must(intent)
	if m.reverting() {
		t.Error("a request that was repeated begins anew, and nobody has written since")
	}
	m.must(StartEngine{Volume: v.ID, Node: nodeID(3), Start: startID(6), Epoch: view.Epoch, NewAttachment: attachmentID(6)})
	m.refused(block.ErrInUse, intent)
	m.must(Unpublish{Volume: v.ID, Node: nodeID(3), EndAttachment: true})
	m.refused(block.ErrExists, intent) // the name is taken
	intent.Keep = "kept-again"
	m.must(intent)
	if !m.reverting() {
		t.Error("somebody may have written since, and it does not begin anew")
	}
}

// TestRevertLocks: while a revert is under way nobody else gets at the volume or at what
// it needs; a late end of an earlier engine is none.
func TestRevertLocks(t *testing.T) {
	m := reverted(t)
	one := volumeID(1)
	m.must(CreateSnapshot{Snapshot: snapshotID(7), Name: "before", Volume: one, Created: 7, DecidedAt: m.Index()})
	m.must(RevertVolume{Volume: one, Snapshot: snapshotID(1), Keep: "kept"})
	m.refused(block.ErrUnavailable, Publish{Volume: one, Node: nodeID(1)})
	m.refused(block.ErrInUse, RevertVolume{Volume: one, Snapshot: snapshotID(2)})
	m.refused(block.ErrInUse, DeleteSnapshot{Snapshot: snapshotID(1)})
	m.refused(block.ErrUnavailable, CreateSnapshot{Snapshot: snapshotID(8), Name: "monday", Volume: one, Created: 8, DecidedAt: m.Index()})
	m.refused(block.ErrConflict, EndRevert{Volume: one, Snapshot: snapshotID(1)})
	view := m.borrow(2)
	r := m.apply(Propose{Proposal: block.Proposal{Volume: one, Epoch: view.Epoch, Revision: view.Revision, Snapshot: &block.Snapshot{ID: snapshotID(7), Size: view.Size, Created: 7}}})
	if r.Verdict != block.Conflict || !errors.Is(r.Err, block.ErrInvalid) {
		t.Errorf("a snapshot that was reserved before is taken of it: %+v", r)
	}
	m.giveBack(view)
	m.keep(3)
	m.refused(block.ErrInUse, DeleteSnapshot{Snapshot: snapshotID(3)})
	m.refused(block.ErrInUse, EndRevert{Volume: one, Snapshot: snapshotID(1), GiveUp: true})
	m.must(DeleteSnapshot{Snapshot: snapshotID(2)}) // nobody needs it
	m.must(GrowVolume{Volume: one, Size: 1 << 31})

	// Back: what was kept is what it is to be, and is needed; the other one is not.
	m.must(RevertVolume{Volume: one, Snapshot: snapshotID(3), Keep: "kept-again"})
	m.refused(block.ErrInUse, DeleteSnapshot{Snapshot: snapshotID(3)})
	m.must(DeleteSnapshot{Snapshot: snapshotID(1)})
	view = m.borrow(4)
	m.must(EndRevert{Volume: one, Snapshot: snapshotID(1), Epoch: view.Epoch})
	if !m.reverting() {
		t.Error("the end of what was given up ends the way back")
	}
	m.must(EndRevert{Volume: one, Snapshot: snapshotID(3), Epoch: view.Epoch})
	if m.reverting() {
		t.Error("the way back does not end")
	}
}

func TestRevertIsRefused(t *testing.T) {
	m := reverted(t)
	one, two := volumeID(1), volumeID(2)
	m.must(CreateSnapshot{Snapshot: snapshotID(7), Name: "waits", Volume: one, Created: 7, DecidedAt: m.Index()})
	m.refused(block.ErrNotFound, RevertVolume{Volume: volumeID(9), Snapshot: snapshotID(1)})
	m.refused(block.ErrNotFound, RevertVolume{Volume: one, Snapshot: snapshotID(9)})
	m.refused(block.ErrInvalid, RevertVolume{Volume: two, Snapshot: snapshotID(1)})
	m.refused(block.ErrUnavailable, RevertVolume{Volume: one, Snapshot: snapshotID(7)})
	m.refused(block.ErrExists, RevertVolume{Volume: one, Snapshot: snapshotID(1), Keep: "snapshot-2"})
	m.must(Publish{Volume: one, Node: nodeID(1)})
	m.refused(block.ErrInUse, RevertVolume{Volume: one, Snapshot: snapshotID(1)})
	m.must(Unpublish{Volume: one, Node: nodeID(1)})

	// No room for the snapshot that keeps the head; it can go without.
	c := m.creation(3)
	c.Parameters.SnapshotsMax = 1
	m.must(c)
	for r := uint64(31); r <= 33; r++ {
		m.must(ReplicaReady{Replica: replicaID(r), Incarnation: incarnation(r)})
	}
	m.must(StartEngine{Volume: c.Volume, Node: nodeID(1), Start: startID(8), NewAttachment: attachmentID(8), Borrow: true})
	view := m.take(3, 8)
	m.giveBack(view)
	m.refused(block.ErrNoCapacity, RevertVolume{Volume: c.Volume, Snapshot: snapshotID(8), Keep: "kept"})
	m.must(RevertVolume{Volume: c.Volume, Snapshot: snapshotID(8)})
	v, _ := m.Volume(c.Volume)
	if !v.RevertBegun() {
		t.Error("nothing is to be kept, and it does not begin")
	}

	// Two are not to keep their heads under one name.
	m.must(RevertVolume{Volume: one, Snapshot: snapshotID(1), Keep: "kept"})
	m.ready(4)
	m.must(StartEngine{Volume: volumeID(4), Node: nodeID(1), Start: startID(9), NewAttachment: attachmentID(9), Borrow: true})
	m.giveBack(m.take(4, 9))
	m.refused(block.ErrExists, RevertVolume{Volume: volumeID(4), Snapshot: snapshotID(9), Keep: "kept"})

	// What has not begun is taken back, with the reservation.
	m.must(CreateSnapshot{Snapshot: snapshotID(10), Name: "kept", Volume: one, Created: 1, DecidedAt: m.Index()})
	m.must(EndRevert{Volume: one, Snapshot: snapshotID(1), GiveUp: true})
	if _, there := m.SnapshotByName("kept"); there || m.reverting() {
		t.Error("the intent was taken back and is there")
	}
}

// TestDeletionEndsARevert: the volume goes, from under the engine that reverts it.
func TestDeletionEndsARevert(t *testing.T) {
	m := reverted(t)
	m.must(RevertVolume{Volume: volumeID(1), Snapshot: snapshotID(1)})
	view := m.borrow(2)
	m.must(DeleteVolume{Volume: view.Volume})
	v, _ := m.Volume(view.Volume)
	if !v.Deleting || !v.View.Owner.IsZero() || v.Revert != nil {
		t.Errorf("after the deletion: %+v", v)
	}
	m.refused(block.ErrNotFound, EndRevert{Volume: view.Volume, Snapshot: snapshotID(1), Epoch: view.Epoch})
}

// TestTrashedWhileReverted: a revert that has begun goes on in the trash, and what is taken
// out of it is locked until that is done; one that has not begun is taken back.
func TestTrashedWhileReverted(t *testing.T) {
	m := reverted(t)
	one := volumeID(1)
	m.must(SetSettings{TrashKeep: number(60)})
	m.must(RevertVolume{Volume: one, Snapshot: snapshotID(1), Keep: "kept"})
	m.must(CreateSnapshot{Snapshot: snapshotID(7), Name: "kept", Volume: one, Created: 7, DecidedAt: m.Index()})
	m.must(DeleteVolume{Volume: one, At: 1})
	if _, there := m.SnapshotByName("kept"); there || m.reverting() {
		t.Error("what has not begun is not taken back")
	}
	m.refused(block.ErrNotFound, RevertVolume{Volume: one, Snapshot: snapshotID(1)})
	m.must(RestoreVolume{Volume: one})
	m.must(RevertVolume{Volume: one, Snapshot: snapshotID(1)})
	m.borrow(2)
	m.must(DeleteVolume{Volume: one, At: 1})
	view := m.borrow(3)
	if !m.reverting() {
		t.Error("what has begun is over")
	}
	m.must(RestoreVolume{Volume: one})
	m.refused(block.ErrUnavailable, Publish{Volume: one, Node: nodeID(1)})
	m.must(EndRevert{Volume: one, Snapshot: snapshotID(1), Epoch: view.Epoch})
	m.giveBack(view)
	m.must(Publish{Volume: one, Node: nodeID(1)})
}

// TestRevertFormat: the commands, and a state with a revert under way and one that is
// done.
func TestRevertFormat(t *testing.T) {
	checkCommands(t, "revert_commands.jsonl", []Command{
		RevertVolume{Volume: volumeID(1), Snapshot: snapshotID(1), Keep: "before-revert-20261129-120000"},
		EndRevert{Volume: volumeID(1), Snapshot: snapshotID(1), Epoch: 7},
		EndRevert{Volume: volumeID(1), Snapshot: snapshotID(1), GiveUp: true},
	})
	m := reverted(t)
	m.must(StartEngine{Volume: volumeID(2), Node: nodeID(1), Start: startID(8), NewAttachment: attachmentID(8), Borrow: true})
	view := m.take(2, 8)
	m.must(RevertVolume{Volume: view.Volume, Snapshot: snapshotID(8)})
	m.must(EndRevert{Volume: view.Volume, Snapshot: snapshotID(8), Epoch: view.Epoch})
	m.must(RevertVolume{Volume: volumeID(1), Snapshot: snapshotID(1), Keep: "kept"})
	m.keep(3)
	checkState(t, "revert_state.json", m.State)
}
