package server

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// Cloner is what a Disk may be besides: one that can make a replica of another one's
// cut.
type Cloner interface {
	// Clone makes a replica that begins as a cut of another one, durably. It may wait
	// for the disk.
	Clone(spec store.CloneSpec) (Replica, error)
}

// CloneReplica makes a replica that begins as a cut of another one on the same disk,
// durably. It waits for the disk. Cloning one that exists with the same properties does
// nothing. A source or cut that is not there, or not valid, is block.ErrNotFound.
func (h *Host) CloneReplica(disk block.DiskID, spec store.CloneSpec) error {
	h.mu.Lock()
	existing := h.doors[spec.Replica]
	h.mu.Unlock()
	if existing != nil && existing.disk.ID() != disk {
		return fmt.Errorf("clone replica %s on disk %s: %w", spec.Replica, disk, block.ErrExists)
	}
	// The store knows what an existing one shows.
	err := h.makeReplica(disk, spec.Replica, func(target Disk) (Replica, error) {
		cloner, ok := target.(Cloner)
		if !ok {
			return nil, fmt.Errorf("the disk cannot clone: %w", block.ErrInvalid)
		}
		return cloner.Clone(spec)
	})
	if err != nil {
		return fmt.Errorf("clone replica %s on disk %s: %w", spec.Replica, disk, err)
	}
	return nil
}

// DropCuts forgets cuts of a replica, durably; those that it does not hold are passed
// over. It is called for cuts that Raft does not list and never will (rule 24), and
// goes past the door: it is of no session.
func (h *Host) DropCuts(ctx context.Context, id block.ReplicaID, cuts []block.SnapshotID) error {
	h.mu.Lock()
	d := h.doors[id]
	h.mu.Unlock()
	if d == nil {
		return fmt.Errorf("drop cuts of replica %s: %w", id, block.ErrNotFound)
	}
	done := make(chan error, 1)
	op := &store.Op{Kind: store.Update, Meta: &block.Update{DropCuts: cuts}}
	err := d.inspect(op, func(op *store.Op) { done <- op.Err })
	if err == nil {
		select {
		case err = <-done:
		case <-ctx.Done():
			err = fmt.Errorf("the disk is at it: %w", ctx.Err())
		}
	}
	if err != nil {
		return fmt.Errorf("drop cuts of replica %s: %w", id, err)
	}
	return nil
}
