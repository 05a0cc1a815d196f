package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// CordonDisk takes a disk out of placement, or puts it back: what is on it stays and
// works, nothing new is put there. To put it back ends its draining, too.
type CordonDisk struct {
	Disk     block.DiskID
	Cordoned bool
}

// DrainDisk cordons a disk and has every replica on it replaced by one elsewhere, on
// Successor where that fits.
type DrainDisk struct {
	Disk      block.DiskID
	Successor block.DiskID `json:",omitzero"`
}

// RemoveDisk forgets a disk. Refused with block.ErrInUse while a volume has a replica
// on it, deleted ones included until they are gone.
//
// Lost: the disk does not come back, so that nobody will ever delete what was deleted
// on it; that is forgotten with it. Should it come back, what is on it is unknown, and
// left alone (rule 1).
type RemoveDisk struct {
	Disk block.DiskID
	Lost bool `json:",omitempty"`
}

// Kind implements Command.
func (CordonDisk) Kind() string { return "cordon-disk" }

// Kind implements Command.
func (DrainDisk) Kind() string { return "drain-disk" }

// Kind implements Command.
func (RemoveDisk) Kind() string { return "remove-disk" }

func (s *State) cordonDisk(c CordonDisk) (*State, Result) {
	d, ok := s.Disk(c.Disk)
	if !ok {
		return s.refuse(fmt.Errorf("cordon disk %s: %w", c.Disk, block.ErrNotFound))
	}
	if d.Cordoned == c.Cordoned {
		return s, Result{Disk: &d}
	}
	if d.Cordoned = c.Cordoned; !d.Cordoned {
		d.Draining, d.Successor = false, block.DiskID{}
	}
	return s.withDisk(d), Result{Disk: &d}
}

func (s *State) drainDisk(c DrainDisk) (*State, Result) {
	d, ok := s.Disk(c.Disk)
	if !ok {
		return s.refuse(fmt.Errorf("drain disk %s: %w", c.Disk, block.ErrNotFound))
	}
	switch successor, known := s.Disk(c.Successor); {
	case c.Successor.IsZero():
	case !known:
		return s.refuse(fmt.Errorf("drain disk %s: successor %s: %w", c.Disk, c.Successor, block.ErrNotFound))
	case successor.ID == d.ID || successor.Draining:
		return s.refuse(fmt.Errorf("drain disk %s: its successor %s is drained itself: %w", c.Disk, c.Successor, block.ErrInvalid))
	}
	if d.Draining && d.Successor == c.Successor {
		return s, Result{Disk: &d}
	}
	d.Cordoned, d.Draining, d.Successor = true, true, c.Successor
	return s.withDisk(d), Result{Disk: &d}
}

func (s *State) withDisk(d Disk) *State {
	next := *s
	next.disks = s.disks.with(d.ID.ID, d)
	return &next
}

func (s *State) removeDisk(index uint64, c RemoveDisk) (*State, Result) {
	d, ok := s.Disk(c.Disk)
	if !ok {
		return s.refuse(fmt.Errorf("remove disk %s: %w", c.Disk, block.ErrNotFound))
	}
	held := s.ReplicasOn(c.Disk)
	alive := slices.ContainsFunc(held, func(h HeldReplica) bool { return !h.Deleted })
	if len(held) > 0 && (alive || !c.Lost) {
		return s.refuse(fmt.Errorf("remove disk %s: it has %s: %w", c.Disk, showHeld(held), block.ErrInUse))
	}
	next := s
	for _, h := range held {
		v, _ := next.VolumeOf(h.Replica)
		next, _ = next.bury(index, v, h.Replica)
	}
	last := *next
	last.disks = s.disks.without(d.ID.ID)
	return &last, Result{Disk: &d}
}

// HeldReplica is a replica on a disk.
type HeldReplica struct {
	Replica block.ReplicaID
	// InSync and Others say whether it is in the in-sync set and how many other
	// replicas are.
	InSync bool
	Others int
	// Name is that of the volume; Deleted: it is a tombstone, Trashed: it is in the trash.
	Name    string
	Deleted bool
	Trashed bool
}

// ReplicasOn lists the replicas on a disk, deleted ones and those that are still to be
// made included.
func (s *State) ReplicasOn(disk block.DiskID) (held []HeldReplica) {
	for v := range s.Volumes() {
		for _, m := range v.View.Replicas {
			if m.Disk != disk {
				continue
			}
			others := v.View.InSync()
			if m.InSync {
				others--
			}
			held = append(held, HeldReplica{Replica: m.ID, InSync: m.InSync, Others: others, Name: v.Name, Deleted: v.Deleting, Trashed: v.InTrash()})
		}
		for _, p := range v.Elsewhere() {
			if p.Disk == disk {
				held = append(held, HeldReplica{Replica: p.Replica, Others: v.View.InSync(), Name: v.Name, Deleted: v.Deleting || v.IsRetired(p.Replica)})
			}
		}
	}
	return held
}

// showHeld lists replicas for people.
func showHeld(held []HeldReplica) string {
	const shown = 10
	var parts []string
	for i, h := range held {
		if i == shown {
			parts = append(parts, fmt.Sprintf("and %d more", len(held)-shown))
			break
		}
		what := fmt.Sprintf("replica %s of volume %q", h.Replica.Short(), h.Name)
		if h.Trashed {
			what += " in the trash"
		}
		switch {
		case h.Deleted:
			what += " (being deleted)"
		case !h.InSync:
			what += fmt.Sprintf(" (not in sync, %d others are)", h.Others)
		case h.Others == 0:
			what += " (the only one in sync)"
		default:
			what += fmt.Sprintf(" (in sync, as are %d others)", h.Others)
		}
		parts = append(parts, what)
	}
	return strings.Join(parts, ", ")
}
