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
	return d.replica(id)
}

// Clone implements Cloner.
func (d storeDisk) Clone(spec store.CloneSpec) (Replica, error) {
	if err := d.store.Clone(spec); err != nil {
		return nil, err
	}
	return d.replica(spec.Replica)
}

func (d storeDisk) replica(id block.ReplicaID) (Replica, error) {
	r, err := d.store.Replica(id)
	if err != nil {
		return nil, err
	}
	return storeReplica{r}, nil
}

func (d storeDisk) Delete(id block.ReplicaID) error { return d.store.Delete(id) }

// storeReplica is a store's replica, which is a Mapper, too.
type storeReplica struct{ *store.Replica }

var _ Mapper = storeReplica{}
