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
	// OpChanged tells which extents of the span, at most ChangedMax bytes, may differ
	// between Snapshot and the head, without reading them: the reply's Buf has bit i%8
	// of byte i/8 set for extent i of the span.
	OpChanged
)

// ChangedMax bounds the span of OpChanged, in bytes.
const ChangedMax = 1 << 30

// ChangedBytes is the length of the answer to OpChanged for a span of length bytes.
func ChangedBytes(length int64) int {
	extents := (length + ExtentSize - 1) / ExtentSize
	return int((extents + 7) / 8)
}

// Flags qualify a request.
type Flags uint8

const (
	// FlagResync marks a copy (resync, repair) apart from foreground traffic.
	FlagResync Flags = 1 << iota
	// FlagAcceptSuspect lets a read return bytes whose checksum does not match,
	// if they lie in the unflushed set of a store that was reopened after a
	// crash; the store then takes their checksum as it finds it.
	FlagAcceptSuspect
	// FlagRepair marks an OpWrite that gives a valid cut back blocks that its disk has
	// lost. It changes nothing else: bytes that are not the cut's are ErrChecksum.
	FlagRepair
	// FlagDurable has an OpWrite answered when it is durable, as an OpFlush without a
	// number of its own would make it (FUA).
	FlagDurable
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
	// Snapshot, unless zero, is the cut that OpChanged compares the head with, or the
	// one instead of the head that OpRead and OpHash read and that OpWrite and OpZero of a resync, in whole extents, make equal to a
	// source's (rule 25). A cut that the replica does not hold is ErrNotFound.
	Snapshot SnapshotID
	// Since, unless zero, is another cut, for OpHash: extents that the replica holds
	// but once for both are neither read nor hashed, and their Sum is zero.
	Since SnapshotID

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
	// Buf is what OpRead read, or the answer to OpChanged.
	Buf *Buffer
	// Hashes belong to OpHash, one for each extent of the span.
	Hashes []ExtentHash
	// Next belongs to OpHash of a cut: the oldest younger valid cut that may have other
	// bytes in the span, as the replica holds them; zero if there is none.
	Next SnapshotID
	// Opened belongs to OpOpen.
	Opened *Opened
}

// ExtentHash is the state of one extent of a replica.
type ExtentHash struct {
	// Sum is the SHA-256 of the extent as it reads; meaningless where Bad is
	// not zero. It is zero for an extent that was not read (Request.Since).
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
	// Cuts are those that the replica holds, oldest first, but for ones that it is
	// dropping.
	Cuts []Cut
	Size int64
	Free int64
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
	// KeepHead takes a cut of the head under KeptHead, unless there is one.
	KeepHead bool
	// Cuts are taken in this order; one that the replica holds is left as it is, but
	// one that is not valid becomes a target's if it is asked for as that.
	Cuts []CutRequest
	// ValidCuts are valid from now on, DropCuts are forgotten; what it does not
	// hold is passed over.
	ValidCuts []SnapshotID
	DropCuts  []SnapshotID
	// Grow, unless zero, is the new size of the replica; what is added reads as
	// zeros. A smaller one than it has is ErrInvalid.
	Grow int64
}

// KeptHead is the name of the cut that KeepHead takes; it is no snapshot of a
// volume, whose IDs are random.
var KeptHead = SnapshotID{ID{15: 1}}
