package block

// Op is what a Request asks of a replica.
type Op uint8

const (
	// OpOpen opens a session and fences everything older (rule 4).
	OpOpen Op = iota + 1
	// OpRead reads Length bytes; the reply's Buf has them, verified.
	OpRead
	// OpWrite writes Buf.
	OpWrite
	// OpZero makes the span read as zeros and frees what it can (TRIM and
	// WRITE_ZEROES, rule 12).
	OpZero
	// OpFlush makes everything acknowledged durable and records Flush and
	// Confirmed in the data file (rule 10).
	OpFlush
	// OpPing answers when every request handed to the replica before it has
	// passed the door; for leases and liveness (rule 7).
	OpPing
	// OpUpdate stores Update in one durable step.
	OpUpdate
	// OpHash returns the SHA-256 of each extent of the span, read and verified
	// now (rule 22).
	OpHash
)

// Flags qualify a request.
type Flags uint8

const (
	// FlagResync marks a copy (resync, repair) apart from foreground traffic.
	FlagResync Flags = 1 << iota
	// FlagAcceptSuspect lets a read return bytes whose checksum does not match,
	// if they lie in the unflushed set of a store that was reopened after a
	// crash; the store then takes their checksum as it finds it.
	FlagAcceptSuspect
)

// Request is one message of an engine to a replica. It is passed by value; the
// receiver owns one reference of Buf.
type Request struct {
	Op      Op
	Flags   Flags
	Epoch   Epoch
	Session Session
	// Seq is unique in the session; the reply carries it back. Late replies of
	// older sessions are dropped (rule 29).
	Seq    uint64
	Offset int64
	Length int64
	Buf    *Buffer

	// Flush and Confirmed belong to OpFlush.
	Flush     FlushNumber
	Confirmed []Confirmed
	// Open belongs to OpOpen, Update to OpUpdate.
	Open   *Open
	Update *Update
}

// Span is the range the request touches.
func (r *Request) Span() Span { return Span{Offset: r.Offset, Length: r.Length} }

// Reply answers one request. It is passed by value; the receiver owns one
// reference of Buf.
type Reply struct {
	Op      Op
	Epoch   Epoch
	Session Session
	Seq     uint64
	// Err is nil, or one of the sentinel errors (wrapped when local).
	Err error
	// Free is the free space of the replica's disk in bytes, as of OpWrite,
	// OpZero and OpPing (rule 31).
	Free int64
	// Buf is what OpRead read.
	Buf *Buffer
	// Hashes belong to OpHash, one for each extent of the span.
	Hashes []ExtentHash
	// Opened belongs to OpOpen.
	Opened *Opened
}

// ExtentHash is the state of one extent of a replica.
type ExtentHash struct {
	// Sum is the SHA-256 of the extent as it reads; meaningless where Bad is
	// not zero.
	Sum [32]byte
	// Bad has bit b set when block b fails its checksum.
	Bad uint16
	// Suspect has bit b set when block b fails its checksum inside the unflushed
	// set of a reopened store: its bytes may be accepted if nobody has better.
	Suspect uint16
}

// Open asks for a session.
type Open struct {
	Cluster ClusterID
	Volume  VolumeID
	Replica ReplicaID
	Fence   Fence
	// Size is the committed size of the volume.
	Size int64
}

// Opened describes the replica behind a new session.
type Opened struct {
	Incarnation Incarnation
	// View is the highest view the replica holds; its Epoch is zero if it holds
	// none.
	View View
	// Log is the replica's intent log.
	Log Regions
	// Dirty are the dirty sets the replica keeps for others.
	Dirty []DirtySet
	// Flush is the highest flush number found in the data file (rule 10).
	Flush FlushNumber
	// Confirmed are the flush numbers that this replica knows others confirmed.
	Confirmed []Confirmed
	Size      int64
	Free      int64
}

// Confirmed says that a replica finished a flush.
type Confirmed struct {
	Replica ReplicaID
	Flush   FlushNumber
}

// DirtySet is what an absent replica may lack (rule 16).
type DirtySet struct {
	Replica ReplicaID
	// Removal is the revision of the replica's removal; it names the set.
	Removal Revision
	Regions Regions
}

// Update is one durable step on a replica's metadata. Its parts are applied in
// the order of the fields; all or none survive a crash.
type Update struct {
	// View replaces the stored view, unless that is newer by (epoch, revision).
	View *View
	// SetDirty replaces or creates whole dirty sets.
	SetDirty []DirtySet
	// AddDirty adds regions to the dirty sets of those names; a set that does
	// not exist under that name is created with just these regions only if
	// Removal matches no other set of the replica, else the update fails.
	AddDirty []DirtySet
	// ClearDirty takes regions out of the dirty sets of those names.
	ClearDirty []DirtySet
	// DropDirty removes the dirty sets of these replicas, whatever their name.
	DropDirty []ReplicaID
	// ClearLog takes regions out of the intent log. Their checksums are made
	// durable first (rule 15 is the engine's to keep).
	ClearLog Regions
}
