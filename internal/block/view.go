package block

// View is the committed truth about who serves a volume and who holds it
// (rule 3). Raft is its home; every in-sync replica keeps a durable copy.
type View struct {
	Volume     VolumeID
	Generation Generation
	// Cluster is the incarnation of the cluster that committed the view.
	Cluster ClusterIncarnation
	// Attachment is the staged device, zero when there is none.
	Attachment AttachmentID
	// Owner is the node whose engine may serve, zero when nobody may.
	Owner NodeID
	// Start is the random ID of the engine start that holds Epoch.
	Start    StartID
	Epoch    Epoch
	Revision Revision
	// Size is the committed size in bytes.
	Size int64
	// Replicas are all copies of the volume, in the order of their creation.
	Replicas []Member
	// Snapshots are the committed ones, oldest first.
	Snapshots []Snapshot `json:",omitempty"`
	// NotWaitedOut is the mark of rule 7: some removal has not been waited out,
	// so that an older engine may still hold a lease.
	NotWaitedOut bool
}

// Member is what a view says of one replica.
type Member struct {
	ID   ReplicaID
	Node NodeID
	Disk DiskID
	// InSync: the replica is in the in-sync set.
	InSync bool
	// Removed is the revision at which the replica last left the in-sync set; it
	// names its dirty set (rule 16). Zero while in sync, and for a replica that
	// has never been in.
	Removed Revision
	// Incarnation is that of the replica's store when it was last known in sync
	// (rule 17).
	Incarnation Incarnation
}

// Clone is an independent copy.
func (v View) Clone() View {
	v.Replicas = append([]Member(nil), v.Replicas...)
	v.Snapshots = append([]Snapshot(nil), v.Snapshots...)
	return v
}

// Snapshot finds a committed snapshot; nil if there is none of that ID.
func (v *View) Snapshot(id SnapshotID) *Snapshot {
	for i := range v.Snapshots {
		if v.Snapshots[i].ID == id {
			return &v.Snapshots[i]
		}
	}
	return nil
}

// Member finds a replica of the view; nil if it is not one.
func (v *View) Member(id ReplicaID) *Member {
	for i := range v.Replicas {
		if v.Replicas[i].ID == id {
			return &v.Replicas[i]
		}
	}
	return nil
}

// InSync counts the members of the in-sync set.
func (v *View) InSync() int {
	n := 0
	for i := range v.Replicas {
		if v.Replicas[i].InSync {
			n++
		}
	}
	return n
}

// Proposal asks Raft to change a view, compared-and-set on (Epoch, Revision).
// The committed view has Revision+1. A proposal that changes nothing is a no-op
// that ends an unknown outcome (rule 6).
type Proposal struct {
	Volume   VolumeID
	Epoch    Epoch
	Revision Revision
	// Remove leaves the in-sync set. At least one member must stay. A removal
	// sets NotWaitedOut unless WaitedOut says that the proposer already waited.
	Remove []ReplicaID
	// Admit joins the in-sync set.
	Admit []ReplicaID
	// Incarnations are recorded with the change.
	Incarnations []MemberIncarnation
	// WaitedOut clears NotWaitedOut.
	WaitedOut bool
	// EndAttachment ends the attachment in the same commit (rule 17).
	EndAttachment bool
	// Snapshot is added to the snapshots of the view: every member has the cut
	// durably (rule 24).
	Snapshot *Snapshot `json:",omitempty"`
	// Size, unless zero, becomes that of the view: every member has it durably
	// (rule 27). It is never below the present one.
	Size int64 `json:",omitempty"`
}

// MemberIncarnation is a replica and the incarnation of its store.
type MemberIncarnation struct {
	Replica     ReplicaID
	Incarnation Incarnation
}

// Verdict is the outcome of a proposal.
type Verdict uint8

const (
	// Unknown: the proposal may be committed now, later or never.
	Unknown Verdict = iota
	// Committed: the returned view is the one that the proposal made.
	Committed
	// Conflict: another revision or epoch was found; the proposal changed
	// nothing. The returned view is the one that was found.
	Conflict
)
