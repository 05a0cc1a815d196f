package block

// Epoch counts the engine starts of a volume. Raft hands it out; it is the
// fencing token of rule 4.
type Epoch uint64

// Revision counts the commits on a volume: in-sync set, size, snapshots,
// generation, no-ops. With the epoch it is the compare-and-set key of rule 3.
type Revision uint64

// Generation rises when the head of a volume is replaced (revert, restore,
// force).
type Generation uint64

// ClusterIncarnation rises when a cluster is recovered from its disks.
type ClusterIncarnation uint64

// Session numbers the connections of one engine start to one replica. A newer
// session ends the older.
type Session uint64

// Fence is what a replica's door compares, most significant field first
// (rule 4).
type Fence struct {
	Incarnation ClusterIncarnation
	Generation  Generation
	Epoch       Epoch
	Session     Session
}

// Less reports whether f is older than g.
func (f Fence) Less(g Fence) bool {
	switch {
	case f.Incarnation != g.Incarnation:
		return f.Incarnation < g.Incarnation
	case f.Generation != g.Generation:
		return f.Generation < g.Generation
	case f.Epoch != g.Epoch:
		return f.Epoch < g.Epoch
	default:
		return f.Session < g.Session
	}
}

// FlushNumber orders the flushes of a volume over all its engines (rule 10).
type FlushNumber struct {
	Epoch Epoch
	N     uint64
}

// Less reports whether f is older than g.
func (f FlushNumber) Less(g FlushNumber) bool {
	if f.Epoch != g.Epoch {
		return f.Epoch < g.Epoch
	}
	return f.N < g.N
}

// Incarnation identifies one continuous life of the page cache and of the
// drive's volatile cache under a store (rule 17): a store that reopens under
// the same incarnation lost nothing that the operating system had taken.
type Incarnation struct {
	// Boot is the machine's boot ID.
	Boot ID
	// DiskSequence is the kernel's sequence number of the block device.
	DiskSequence uint64
	// Superblock identifies the instance of the mounted file system. It is the
	// same through every mount of that instance, so that a container restart,
	// which makes a new mount, is not taken for a power loss.
	Superblock uint64
}

// Instant is a reading of CLOCK_BOOTTIME in nanoseconds. It never jumps back
// and goes on while the machine sleeps.
type Instant int64
