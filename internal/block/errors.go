package block

import "errors"

// The sentinel errors. They are wrapped once a layer with operation and object
// and decided by errors.Is, never by text. Each edge (gRPC, wire, NBD) has one
// table that translates them, with a test that fails for a sentinel missing
// from it.
var (
	// ErrInvalid: the request can never succeed as it is.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotFound: what was named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken by something with other properties.
	ErrExists = errors.New("already exists")
	// ErrInUse: the volume is attached, or otherwise in the way.
	ErrInUse = errors.New("in use")
	// ErrStaleEpoch: a newer engine, generation or cluster incarnation has been
	// here; the sender must stop.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrStaleSession: a newer session of the same engine has been here.
	ErrStaleSession = errors.New("stale session")
	// ErrConflict: a compare-and-set found another revision.
	ErrConflict = errors.New("revision conflict")
	// ErrUnknown: the outcome of a proposal cannot be told (rule 6).
	ErrUnknown = errors.New("outcome unknown")
	// ErrNoSpace: the disk is full; the write may be tried again.
	ErrNoSpace = errors.New("no space on disk")
	// ErrNoCapacity: no set of disks can hold the volume.
	ErrNoCapacity = errors.New("not enough capacity")
	// ErrChecksum: the bytes on disk do not match their checksum.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrDiskFailed: the disk refused a read, a write or a flush and is out of
	// service.
	ErrDiskFailed = errors.New("disk failed")
	// ErrCorrupt: a structure on disk is damaged.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion: a format or protocol version this build does not speak.
	ErrVersion = errors.New("unsupported version")
	// ErrForeign: the peer or the disk belongs to another cluster.
	ErrForeign = errors.New("belongs to another cluster")
	// ErrProtocol: a peer broke the protocol, or a frame was damaged.
	ErrProtocol = errors.New("protocol violation")
	// ErrUnavailable: it cannot be done now; the same call may succeed later.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotLeader: the call must go to the Raft leader.
	ErrNotLeader = errors.New("not the leader")
	// ErrDetached: the attachment has ended; its I/O fails.
	ErrDetached = errors.New("attachment ended")
	// ErrIO: no in-sync replica can serve the bytes intact (rule 19).
	ErrIO = errors.New("input/output error")
	// ErrClosed: the object was closed.
	ErrClosed = errors.New("closed")
)

// Sentinels lists every sentinel, for the tests of the edges' tables.
func Sentinels() []error {
	return []error{
		ErrInvalid, ErrNotFound, ErrExists, ErrInUse, ErrStaleEpoch, ErrStaleSession,
		ErrConflict, ErrUnknown, ErrNoSpace, ErrNoCapacity, ErrChecksum, ErrDiskFailed,
		ErrCorrupt, ErrVersion, ErrForeign, ErrProtocol, ErrUnavailable, ErrNotLeader,
		ErrDetached, ErrIO, ErrClosed,
	}
}
