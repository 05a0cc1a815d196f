package server

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// StoreDisk shows a store as a Disk.
func StoreDisk(s *store.Store) Disk { return storeDisk{s} }

type storeDisk struct{ store *store.Store }

func (d storeDisk) ID() block.DiskID               { return d.store.Identity().Disk }
func (d storeDisk) Cluster() block.ClusterID       { return d.store.Identity().Cluster }
func (d storeDisk) Incarnation() block.Incarnation { return d.store.Incarnation() }
func (d storeDisk) Free() int64                    { return d.store.Space().Free }

func (d storeDisk) Replicas() []Replica {
	var all []Replica
	for _, r := range d.store.Replicas() {
		all = append(all, storeReplica{r})
	}
	return all
}

func (d storeDisk) Create(id block.ReplicaID, volume block.VolumeID, size int64) (Replica, error) {
	if err := d.store.Create(store.ReplicaSpec{Replica: id, Volume: volume, Size: size}); err != nil {
		return nil, err
	}
	r, err := d.store.Replica(id)
	if err != nil {
		return nil, err
	}
	return storeReplica{r}, nil
}

func (d storeDisk) Delete(id block.ReplicaID) error { return d.store.Delete(id) }

// storeReplica adds to a store's replica what exports ask.
type storeReplica struct{ *store.Replica }

// Mapped implements Mapper.
func (r storeReplica) Mapped(offset int64) (mapped bool, end int64, err error) {
	// A look at a limited stretch keeps the cost of one answer bounded.
	const stretch = 64 * block.RegionSize
	first := offset &^ (block.BlockSize - 1)
	span := block.Span{Offset: first, Length: min(stretch, r.Size()-first)}
	extents, err := r.Extents(span)
	if err != nil {
		return false, 0, err
	}
	for _, e := range extents {
		if e.End() > offset {
			return e.Data, e.End(), nil
		}
	}
	return false, span.End(), nil
}
