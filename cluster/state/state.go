package state

import (
	"cmp"
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
	// snapshots are those that were asked for and not deleted; snapshotNames leads to
	// them from the hash of their names.
	snapshots     table[Snapshot]
	snapshotNames table[block.SnapshotID]
	// borrowed are the volumes that are, making those that are being made from a source,
	// reserved the snapshots that are not taken yet: few, and looked for often.
	borrowed table[block.VolumeID]
	making   table[block.VolumeID]
	reserved table[block.SnapshotID]
	// reverting are the volumes that are being reverted.
	reverting table[block.VolumeID]
	// unsettled are the volumes that are not settled: few, as long as all is well.
	unsettled table[block.VolumeID]
	// scrubs has a record of each volume of whose verification something is known.
	scrubs   table[Scrub]
	settings *Settings
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
	// Cordoned: no new replica is placed on it.
	Cordoned bool `json:",omitempty"`
	// Draining: what is on it is to move elsewhere, to Successor first if that is set.
	Draining  bool         `json:",omitempty"`
	Successor block.DiskID `json:",omitzero"`
}

// Parameters of a volume, fixed at its creation.
type Parameters struct {
	Replicas  int
	MinInSync int
	DiskClass string   `json:",omitempty"`
	DiskTags  []string `json:",omitempty"`
	NodeTags  []string `json:",omitempty"`
	// SnapshotsMax is how many snapshots the volume may have, 0 for SnapshotsDefault.
	SnapshotsMax int `json:",omitempty"`
	// SnapshotSpace is what they may hold.
	SnapshotSpace SpaceLimit `json:",omitzero"`
}

// SnapshotsDefault is how many snapshots a volume may have unless it says.
const SnapshotsDefault = 250

// SnapshotLimit is how many snapshots the volume may have.
func (p Parameters) SnapshotLimit() int { return cmp.Or(p.SnapshotsMax, SnapshotsDefault) }

// Equal reports whether p and q ask for the same.
func (p Parameters) Equal(q Parameters) bool {
	return p.Replicas == q.Replicas && p.MinInSync == q.MinInSync && p.DiskClass == q.DiskClass &&
		p.SnapshotsMax == q.SnapshotsMax && p.SnapshotSpace == q.SnapshotSpace && slices.Equal(p.DiskTags, q.DiskTags) && slices.Equal(p.NodeTags, q.NodeTags)
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
	// GrowTo is the size that the volume is to have, 0 while it has the one it is to
	// have.
	GrowTo int64 `json:",omitempty"`
	// Source is what the volume was made from, nil if it began as zeros.
	Source *Source `json:",omitempty"`
	// Absent are the replicas that share nothing with the source, until the volume is
	// ready; from then on they are what the view says of them.
	Absent []block.ReplicaID `json:",omitempty"`
	// Dropped is the index at which the last of its snapshots was deleted.
	Dropped uint64 `json:",omitempty"`
	// Revert is under way, or was the last thing that was done; nil otherwise. It is
	// replaced, never changed.
	Revert *Revert `json:",omitempty"`
	// SnapshotSpace is what its snapshots may hold, if that was changed, nil if it is what
	// Parameters say.
	SnapshotSpace *SpaceLimit `json:",omitempty"`
	// Trashed is set while it is in the trash.
	Trashed Trashed `json:",omitzero"`
	// Replacing are the replacements under way, Retired the tombstones that they leave
	// behind: replicas that were replaced, or were given up.
	Replacing []Replacement `json:",omitempty"`
	Retired   []Placement   `json:",omitempty"`
	// Yields: who has borrowed it lets go of it as soon as somebody else wants it.
	Yields bool `json:",omitempty"`
}

// Source is a snapshot that a volume begins with. It may be gone once the volume is
// ready.
type Source struct {
	Snapshot block.SnapshotID
	Volume   block.VolumeID
	// Clone: a copy of the volume was asked for. The snapshot is but the means and goes
	// when the copy is made.
	Clone bool `json:",omitempty"`
}

// asks reports whether p and q are the same wish.
func (p *Source) asks(q *Source) bool {
	if p == nil || q == nil {
		return p == q
	}
	if p.Clone {
		return q.Clone && p.Volume == q.Volume
	}
	return !q.Clone && p.Snapshot == q.Snapshot
}

// Borrowed reports whether the attachment is that of an engine without a frontend
// (StartEngine.Borrow): nobody may stage the volume, yet somebody serves it.
func (v *Volume) Borrowed() bool { return !v.View.Owner.IsZero() && v.Published.IsZero() }

// settled reports whether there is nothing to be done about the volume, whoever would do
// it: every replica is made, in sync, and neither on its way nor on its way out; it has
// the size that it is to have, and it is not in the trash, where its time runs out.
func (v *Volume) settled() bool {
	return v.Ready() && !v.InTrash() && v.GrowTo == 0 && len(v.Replacing)+len(v.Retired) == 0 && v.View.InSync() == len(v.View.Replicas)
}

// making reports whether the volume is being made from a source.
func (v *Volume) making() bool { return v.Source != nil && len(v.Pending) > 0 }

// version is the lowest version that can say v.
func (v *Volume) version() int {
	if v.GrowTo != 0 || v.Source != nil || len(v.Absent) > 0 || v.Dropped != 0 || v.Parameters.SnapshotsMax != 0 ||
		len(v.View.Snapshots) > 0 || v.Borrowed() || v.InTrash() || v.Revert != nil || len(v.Replacing)+len(v.Retired) > 0 ||
		v.Parameters.SnapshotSpace != (SpaceLimit{}) || v.SnapshotSpace != nil {
		return version2
	}
	return version1
}

// Ready reports whether every replica was made and the volume is not deleted.
func (v *Volume) Ready() bool { return len(v.Pending) == 0 && !v.Deleting }

// IsPending reports whether the replica has not been made yet.
func (v *Volume) IsPending(id block.ReplicaID) bool { return slices.Contains(v.Pending, id) }

// clone is a copy whose view and lists may be changed.
func (v Volume) clone() Volume {
	v.View = v.View.Clone()
	v.Pending = slices.Clone(v.Pending)
	v.Absent = slices.Clone(v.Absent)
	v.Replacing = slices.Clone(v.Replacing)
	v.Retired = slices.Clone(v.Retired)
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

// VolumeByName finds the volume that holds a name; one that is being deleted, or in the
// trash, has given it back.
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

// HasReplica reports whether a replica is known, deleted ones included.
func (s *State) HasReplica(id block.ReplicaID) bool { return s.replicas.has(id.ID) }

// Volumes yields all volumes by rising ID, tombstones included.
func (s *State) Volumes() iter.Seq[Volume] { return s.volumes.all() }

// VolumesAfter yields the volumes whose IDs are above id, by rising ID.
func (s *State) VolumesAfter(id block.VolumeID) iter.Seq[Volume] { return s.volumes.after(id.ID) }

// BorrowedVolumes yields the borrowed ones, by rising ID.
func (s *State) BorrowedVolumes() iter.Seq[Volume] { return s.indexed(s.borrowed) }

// UnsettledVolumes yields the volumes that are not settled, by rising ID. Whoever looks
// again and again for what is to be done looks at these, and not at all.
func (s *State) UnsettledVolumes() iter.Seq[Volume] { return s.indexed(s.unsettled) }

// indexed yields the volumes of an index, by rising ID.
func (s *State) indexed(index table[block.VolumeID]) iter.Seq[Volume] {
	return func(yield func(Volume) bool) {
		for id := range index.all() {
			if v, ok := s.Volume(id); ok && !yield(v) {
				return
			}
		}
	}
}

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
	next.borrowed = s.borrowed.mark(v.ID.ID, v.ID, v.Borrowed())
	next.making = s.making.mark(v.ID.ID, v.ID, v.making())
	next.reverting = s.reverting.mark(v.ID.ID, v.ID, v.Reverting())
	next.unsettled = s.unsettled.mark(v.ID.ID, v.ID, !v.settled())
	for i := range v.View.Replicas {
		if id := v.View.Replicas[i].ID; !next.replicas.has(id.ID) {
			next.replicas = next.replicas.with(id.ID, v.ID)
		}
	}
	for _, p := range v.Elsewhere() {
		next.replicas = next.replicas.mark(p.Replica.ID, v.ID, true)
	}
	key := nameKey(v.Name)
	holder, taken := next.names.get(key)
	switch {
	case v.Named() && !taken:
		next.names = next.names.with(key, v.ID)
	case !v.Named() && taken && holder == v.ID:
		next.names = next.names.without(key)
	}
	return &next
}
