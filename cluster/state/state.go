package state

import (
	"crypto/sha256"
	"iter"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// State is the cluster's truth after the command at Index. It never changes:
// readers may keep and share it. The slices in what its methods return are shared
// with it and must not be written to.
//
// The zero value is the state of a cluster that has not been bootstrapped.
type State struct {
	cluster     block.ClusterID
	incarnation block.ClusterIncarnation
	// index is that of the last applied command.
	index uint64
	// collected is the index at which the last volume record was dropped.
	collected uint64

	nodes   table[Node]
	disks   table[Disk]
	volumes table[Volume]
	// replicas leads from a replica to its volume, names from the hash of a name
	// to the volume that holds it. Both follow from volumes.
	replicas table[block.VolumeID]
	names    table[block.VolumeID]
}

// Node is a member of the cluster.
type Node struct {
	ID   block.NodeID
	Name string
	// host:port of the three listeners.
	ControlAddress string
	DataAddress    string
	RaftAddress    string
	Tags           []string `json:",omitempty"`
}

// Disk is a store on a disk of a node.
type Disk struct {
	ID    block.DiskID
	Node  block.NodeID
	Path  string
	Class string   `json:",omitempty"`
	Tags  []string `json:",omitempty"`
	// Capacity is that of the disk when it was added, in bytes.
	Capacity int64
}

// Parameters of a volume, fixed at its creation.
type Parameters struct {
	Replicas  int
	MinInSync int
	DiskClass string   `json:",omitempty"`
	DiskTags  []string `json:",omitempty"`
	NodeTags  []string `json:",omitempty"`
}

// Equal reports whether p and q ask for the same.
func (p Parameters) Equal(q Parameters) bool {
	return p.Replicas == q.Replicas && p.MinInSync == q.MinInSync && p.DiskClass == q.DiskClass &&
		slices.Equal(p.DiskTags, q.DiskTags) && slices.Equal(p.NodeTags, q.NodeTags)
}

// Volume is the record of a volume.
type Volume struct {
	ID         block.VolumeID
	Name       string
	Parameters Parameters
	// Published is the node that may stage the volume, zero if none.
	Published block.NodeID `json:",omitzero"`
	// Pending are the replicas that have not been made yet.
	Pending []block.ReplicaID `json:",omitempty"`
	// Deleting makes the record a tombstone: its replicas are to be deleted, and
	// leave the view as they are gone.
	Deleting bool `json:",omitempty"`
	View     block.View
}

// Ready reports whether every replica was made and the volume is not deleted.
func (v *Volume) Ready() bool { return len(v.Pending) == 0 && !v.Deleting }

// IsPending reports whether the replica has not been made yet.
func (v *Volume) IsPending(id block.ReplicaID) bool { return slices.Contains(v.Pending, id) }

// clone is a copy whose view and pending list may be changed.
func (v Volume) clone() Volume {
	v.View = v.View.Clone()
	v.Pending = slices.Clone(v.Pending)
	return v
}

// Cluster is the ID of the cluster, zero before its bootstrap.
func (s *State) Cluster() block.ClusterID { return s.cluster }

// Incarnation is the incarnation of the cluster.
func (s *State) Incarnation() block.ClusterIncarnation { return s.incarnation }

// Index is the index of the last applied command.
func (s *State) Index() uint64 { return s.index }

// Node finds a node.
func (s *State) Node(id block.NodeID) (Node, bool) { return s.nodes.get(id.ID) }

// Nodes yields all nodes by rising ID.
func (s *State) Nodes() iter.Seq[Node] { return s.nodes.all() }

// NodeCount is the number of nodes.
func (s *State) NodeCount() int { return s.nodes.count }

// Disk finds a disk.
func (s *State) Disk(id block.DiskID) (Disk, bool) { return s.disks.get(id.ID) }

// Disks yields all disks by rising ID.
func (s *State) Disks() iter.Seq[Disk] { return s.disks.all() }

// Volume finds a volume, including one that is being deleted.
func (s *State) Volume(id block.VolumeID) (Volume, bool) { return s.volumes.get(id.ID) }

// VolumeByName finds the volume that holds a name; one that is being deleted has
// given it back.
func (s *State) VolumeByName(name string) (Volume, bool) {
	id, ok := s.names.get(nameKey(name))
	if !ok {
		return Volume{}, false
	}
	return s.volumes.get(id.ID)
}

// VolumeOf finds the volume of a replica.
func (s *State) VolumeOf(id block.ReplicaID) (Volume, bool) {
	volume, ok := s.replicas.get(id.ID)
	if !ok {
		return Volume{}, false
	}
	return s.volumes.get(volume.ID)
}

// Volumes yields all volumes by rising ID, tombstones included.
func (s *State) Volumes() iter.Seq[Volume] { return s.volumes.all() }

// VolumesAfter yields the volumes whose IDs are above id, by rising ID.
func (s *State) VolumesAfter(id block.VolumeID) iter.Seq[Volume] { return s.volumes.after(id.ID) }

// VolumeCount is the number of volumes, tombstones included.
func (s *State) VolumeCount() int { return s.volumes.count }

// nameKey hashes a name, so that names need no table of another kind.
func nameKey(name string) block.ID {
	sum := sha256.Sum256([]byte(name))
	return block.ID(sum[:len(block.ID{})])
}

// withVolume is the state in which v is recorded and indexed.
func (s *State) withVolume(v Volume) *State {
	next := *s
	next.volumes = s.volumes.with(v.ID.ID, v)
	for i := range v.View.Replicas {
		if id := v.View.Replicas[i].ID; !next.replicas.has(id.ID) {
			next.replicas = next.replicas.with(id.ID, v.ID)
		}
	}
	key := nameKey(v.Name)
	holder, taken := next.names.get(key)
	switch {
	case !v.Deleting && !taken:
		next.names = next.names.with(key, v.ID)
	case v.Deleting && taken && holder == v.ID:
		next.names = next.names.without(key)
	}
	return &next
}
