package wire

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Sizes of what speaks of snapshots, in bytes, and the bounds of their lists.
const (
	snapshotSize   = idSize + 16
	cutSize        = idSize + 17
	cutRequestSize = idSize + 9

	// maxSnapshots bounds the snapshots of a volume. A replica may hold a few cuts
	// more: its kept head, and those whose commit is yet to come or never will.
	maxSnapshots = 4096
	maxCuts      = maxSnapshots + 64
)

// flag bits of cuts.
const (
	cutValid         = 1
	cutKept          = 2
	cutRequestTarget = 1
)

// appendSnapshotIDs is the metadata of an operation on a cut, its name; one on the head
// has none. A hash may name another cut behind it; then the head is a name of zeros.
func appendSnapshotIDs(b []byte, id, since block.SnapshotID) []byte {
	if id.IsZero() && since.IsZero() {
		return b
	}
	b = append(b, id.ID[:]...)
	if !since.IsZero() {
		b = append(b, since.ID[:]...)
	}
	return b
}

func appendSnapshots(b []byte, list []block.Snapshot) []byte {
	b = appendCount(b, len(list))
	for i := range list {
		b = append(b, list[i].ID.ID[:]...)
		b = appendU64(b, uint64(list[i].Size))
		b = appendU64(b, uint64(list[i].Created))
	}
	return b
}

func appendCuts(b []byte, list []block.Cut) []byte {
	b = appendCount(b, len(list))
	for i := range list {
		c := &list[i]
		b = append(b, c.Snapshot.ID[:]...)
		b = appendU64(b, uint64(c.Epoch))
		b = appendU64(b, uint64(c.Size))
		b = append(b, flagBits(c.Valid, cutValid)|flagBits(c.Kept, cutKept))
	}
	return b
}

// appendCutChanges is what an Update does to cuts and to the size.
func appendCutChanges(b []byte, u *block.Update) []byte {
	b = appendCount(b, len(u.Cuts))
	for i := range u.Cuts {
		b = append(b, u.Cuts[i].Snapshot.ID[:]...)
		b = appendU64(b, uint64(u.Cuts[i].Epoch))
		b = append(b, flagBits(u.Cuts[i].Target, cutRequestTarget))
	}
	for _, ids := range [...][]block.SnapshotID{u.ValidCuts, u.DropCuts} {
		b = appendCount(b, len(ids))
		for _, id := range ids {
			b = append(b, id.ID[:]...)
		}
	}
	return appendU64(b, uint64(u.Grow))
}

// snapshotIDs reads what appendSnapshotIDs has written; a second name is there only if
// two may be.
func (d *decoder) snapshotIDs(two bool) (id, since block.SnapshotID) {
	if len(d.rest) == 0 {
		return id, since
	}
	id.ID = d.id()
	if two && len(d.rest) > 0 {
		since.ID = d.id()
		if since.IsZero() {
			d.fail("another cut without a name")
		}
	} else if id.IsZero() {
		d.fail("a cut without a name")
	}
	return id, since
}

func (d *decoder) snapshots() []block.Snapshot {
	n := d.countTo(maxSnapshots, snapshotSize)
	if n == 0 {
		return nil
	}
	list := make([]block.Snapshot, n)
	for i := range list {
		list[i] = block.Snapshot{ID: block.SnapshotID{ID: d.id()}, Size: int64(d.u64()), Created: int64(d.u64())}
	}
	return list
}

func (d *decoder) cuts() []block.Cut {
	n := d.countTo(maxCuts, cutSize)
	if n == 0 {
		return nil
	}
	list := make([]block.Cut, n)
	for i := range list {
		list[i] = block.Cut{Snapshot: block.SnapshotID{ID: d.id()}, Epoch: block.Epoch(d.u64()), Size: int64(d.u64())}
		flags := d.flags(cutValid | cutKept)
		list[i].Valid, list[i].Kept = flags&cutValid != 0, flags&cutKept != 0
	}
	return list
}

func (d *decoder) cutChanges(u *block.Update) {
	for range d.countTo(maxCuts, cutRequestSize) {
		u.Cuts = append(u.Cuts, block.CutRequest{
			Snapshot: block.SnapshotID{ID: d.id()}, Epoch: block.Epoch(d.u64()), Target: d.bit(cutRequestTarget),
		})
	}
	for _, ids := range [...]*[]block.SnapshotID{&u.ValidCuts, &u.DropCuts} {
		for range d.countTo(maxCuts, idSize) {
			*ids = append(*ids, block.SnapshotID{ID: d.id()})
		}
	}
	u.Grow = int64(d.u64())
}

// fitsUpdate and fitsOpened refuse lists that no receiver takes.
func fitsUpdate(u *block.Update) error {
	if u.View != nil && len(u.View.Snapshots) > maxSnapshots || max(len(u.Cuts), len(u.ValidCuts), len(u.DropCuts)) > maxCuts {
		return fmt.Errorf("send: update with more than %d snapshots: %w", maxSnapshots, block.ErrProtocol)
	}
	return nil
}

func fitsOpened(o *block.Opened) error {
	if len(o.View.Snapshots) > maxSnapshots || len(o.Cuts) > maxCuts {
		return fmt.Errorf("send: replica with more than %d snapshots: %w", maxSnapshots, block.ErrProtocol)
	}
	return nil
}
