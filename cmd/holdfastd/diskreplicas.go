package main

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// Create implements cluster.ReplicaHost.
func (d *disks) Create(ctx context.Context, spec cluster.ReplicaSpec) (block.Incarnation, error) {
	host, disk, err := d.find(spec.Disk)
	if err != nil {
		return block.Incarnation{}, err
	}
	err = disk.patiently(ctx, func() error {
		if spec.Source.IsZero() {
			return host.CreateReplica(spec.Disk, spec.Replica, spec.Volume, spec.Size)
		}
		return host.CloneReplica(spec.Disk, store.CloneSpec{
			ReplicaSpec: store.ReplicaSpec{Replica: spec.Replica, Volume: spec.Volume, Size: spec.Size},
			Source:      spec.Source, Snapshot: spec.Snapshot,
		})
	})
	if err != nil {
		return block.Incarnation{}, err
	}
	host.Quarantine(spec.Replica, false)
	return disk.store.Incarnation(), nil
}

// Delete implements cluster.ReplicaHost.
func (d *disks) Delete(ctx context.Context, disk block.DiskID, replica block.ReplicaID) error {
	host, open, err := d.find(disk)
	if err != nil {
		return err
	}
	return open.patiently(ctx, func() error { return host.DeleteReplica(disk, replica) })
}

// Cuts implements cluster.ReplicaHost.
func (d *disks) Cuts(replica block.ReplicaID) cluster.HeldCuts {
	r := d.replica(replica)
	if r == nil {
		return cluster.HeldCuts{}
	}
	// First what it holds: the view is then no older than that.
	held := cluster.HeldCuts{Cuts: r.Cuts()}
	if len(held.Cuts) > 0 {
		view := r.View()
		held.Epoch, held.Revision = view.Epoch, view.Revision
	}
	return held
}

// replica is one of this node's, nil if it is not here.
func (d *disks) replica(id block.ReplicaID) *store.Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, disk := range d.stores {
		if r, err := disk.store.Replica(id); err == nil {
			return r
		}
	}
	return nil
}

// DropCuts implements cluster.ReplicaHost.
func (d *disks) DropCuts(ctx context.Context, replica block.ReplicaID, cuts []block.SnapshotID) error {
	d.mu.Lock()
	host := d.host
	d.mu.Unlock()
	if host == nil {
		return fmt.Errorf("drop cuts of replica %s: the disks of this node are not served yet: %w", replica, block.ErrUnavailable)
	}
	return host.DropCuts(ctx, replica, cuts)
}

// usage is what a snapshot takes on a replica here.
func (d *disks) usage(id block.ReplicaID, snapshot block.SnapshotID) (store.Usage, error) {
	held := d.replica(id)
	if held == nil {
		return store.Usage{}, fmt.Errorf("usage of replica %s: it is not on a disk of this node: %w", id, block.ErrNotFound)
	}
	return held.Usage(snapshot)
}

// patiently lets the disk's executor do what waits for the disk, and leaves it to that
// when ctx ends: a disk that hangs must not hold up the work on others. What is left so
// may still happen; the caller repeats it.
func (k *openDisk) patiently(ctx context.Context, do func() error) error {
	ended := make(chan error, 1)
	k.executor.Go(func() { ended <- do() })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("disk %s does not answer: %w", k.store.Identity().Disk, block.ErrUnavailable)
	}
}

// Quarantine implements cluster.ReplicaHost.
func (d *disks) Quarantine(replica block.ReplicaID, on bool) {
	d.mu.Lock()
	host := d.host
	d.mu.Unlock()
	if host != nil {
		host.Quarantine(replica, on)
	}
}

// Replicas implements cluster.ReplicaHost.
func (d *disks) Replicas() []cluster.HeldReplica {
	d.mu.Lock()
	defer d.mu.Unlock()
	var held []cluster.HeldReplica
	for id, disk := range d.stores {
		for _, r := range disk.store.Replicas() {
			held = append(held, cluster.HeldReplica{Disk: id, Replica: r.ID(), Volume: r.Volume()})
		}
	}
	return held
}

func (d *disks) find(id block.DiskID) (*server.Host, *openDisk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	disk := d.stores[id]
	if disk == nil {
		return nil, nil, fmt.Errorf("disk %s is not open on this node: %w", id, block.ErrNotFound)
	}
	return d.host, disk, nil
}
