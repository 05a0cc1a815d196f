package block

// Snapshot is a committed state of a volume's bytes. Raft is its home; every
// in-sync replica holds the cut that it names.
type Snapshot struct {
	ID SnapshotID
	// Size is that of the volume when it was cut, in bytes.
	Size int64
	// Created is when it was asked for, in milliseconds since 1970 (UTC).
	Created int64
}

// Cut is what a replica holds of a snapshot (rules 24 and 25).
type Cut struct {
	Snapshot SnapshotID
	// Epoch is that of the engine that took it: one that Raft does not know of an
	// earlier epoch never will be committed.
	Epoch Epoch
	Size  int64
	// Valid: the replica was a member when it was taken and has flushed it since,
	// or has been given what it lacked of it. Its bytes never change any more.
	Valid bool
	// Kept: not a snapshot of the volume, but the head with which the replica left
	// the in-sync set, kept until it is back (rule 22).
	Kept bool
}

// CutRequest asks a replica to keep its head as it is now, in the step of an
// Update.
type CutRequest struct {
	Snapshot SnapshotID
	Epoch    Epoch
	// Target: the replica is not in sync, so that the cut becomes valid by
	// Update.ValidCuts alone; else it does with the next OpFlush.
	Target bool
}
