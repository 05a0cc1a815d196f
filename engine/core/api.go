package core

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Config is what a core needs to know at its birth. It is born for one epoch
// and never outlives it.
type Config struct {
	// Node is where the engine runs; the replica on it is read by preference.
	Node block.NodeID
	// Cluster is checked by every replica.
	Cluster block.ClusterID
	// View is what Raft answered to the start of this engine: View.Epoch is the
	// core's own epoch.
	View block.View
	// MinInSync is how many members an in-sync set must have for a removal to
	// release acknowledgements (rule 9).
	MinInSync int
	Timing    Timing
	Limits    Limits
}

// Timing are the protocol's durations in nanoseconds of CLOCK_BOOTTIME.
type Timing struct {
	PingInterval int64
	// IdlePing is the interval while nobody uses the volume; up to PingInterval the
	// regular pings never become rarer.
	IdlePing    int64
	Lease       int64
	LeaseMargin int64
	// PingDeadline is how long a replica may leave a ping unanswered,
	// ReplicaDeadline anything else: a disk may take its time, a network or a
	// machine may not.
	PingDeadline    int64
	ReplicaDeadline int64
	// AttachGrace is how long members are waited for at the start while there is
	// one that lost no memory, AttachWait while there is none (rule 5).
	AttachGrace  int64
	AttachWait   int64
	ConnectRetry int64
	ProposeRetry int64
	NoSpaceRetry int64
	LogIdle      int64
	// CutHold is how long a cut may keep clients waiting before it is given up
	// (rule 24).
	CutHold int64
	// NumberGap is how long flushes may carry one number (rule 10); with 0 each has a
	// number of its own.
	NumberGap int64
	// FlushGather is how long a flush waits at most for the clients that flushed last
	// time.
	FlushGather int64
	// JobGap is the longest time between the beginnings of two jobs that are slowed
	// down for the sake of clients; 0 slows none down.
	JobGap int64
}

// Limits bound a core's memory.
type Limits struct {
	// Requests are the client requests in flight or waiting; the frontend holds
	// back what exceeds them.
	Requests int
	// TargetWindow is the number of writes that may be queued for one sync
	// target before it misses them (rule 21).
	TargetWindow int
	// Copies are the chunks being repaired or resynced at once.
	Copies int
	// LogRegions is the size past which intent logs are flushed and cleared
	// (rule 15).
	LogRegions int
}

// EventKind tells which fields of an Event are set.
type EventKind uint8

const (
	// EventTick: time has passed. Now is set in every event.
	EventTick EventKind = iota + 1
	// EventRequest: a client asks; Request is set.
	EventRequest
	// EventReply: Reply came from Replica on session Reply.Session. The reply to
	// OpOpen reports a new session.
	EventReply
	// EventLost: the link of (Replica, Session) ended or could not be made; Err
	// says why.
	EventLost
	// EventOutcome: the proposal Proposal has Verdict, and View unless Unknown.
	EventOutcome
	// EventView: Raft shows View (a hint: another engine may have been started).
	EventView
	// EventDetach: end cleanly: drain, flush, clear the logs, stop. New requests
	// fail with block.ErrDetached.
	EventDetach
	// EventAbort: end now; all pending I/O fails with block.ErrDetached.
	EventAbort
	// EventCut: take Snapshot of the volume, whose ID and Created are set; its Size
	// is that of the view. One at a time: another one, and one whose snapshot the view
	// has, are answered at once; the same again waits for the same end. EffectCut tells
	// it. What the cut has to wait for before it may begin, it waits for.
	EventCut
	// EventGrow: make the volume Size bytes large, whole sectors and the intent of
	// Raft (rule 27). It is tried until it is done; repeated, it raises the size that
	// is aimed at. EffectResized tells of every committed size; one that the view has
	// already is answered at once.
	EventGrow
	// EventScrub: verify the volume as Scrub says, instead of what an earlier one has
	// asked for; nil ends that.
	EventScrub
	// EventRetire: Replica is to leave the in-sync set because Successor has taken its
	// place, instead of what an earlier one has asked for; zero IDs ask for nobody. It is
	// proposed once Successor is in sync and nothing speaks against it. Raft tells when
	// it has happened.
	EventRetire
)

// Event is one input of the core.
type Event struct {
	Kind    EventKind
	Now     block.Instant
	Request Request
	Replica block.ReplicaID
	Session block.Session
	Reply   block.Reply
	// Successor belongs to EventRetire.
	Successor block.ReplicaID
	Err       error
	Proposal  block.Proposal
	Verdict   block.Verdict
	View      block.View
	Snapshot  block.Snapshot
	Size      int64
	Scrub     *Scrub
}

// RequestKind is what a client asks.
type RequestKind uint8

const (
	// ReadRequest reads Length bytes.
	ReadRequest RequestKind = iota + 1
	// WriteRequest writes Buf. With ForceUnitAccess it is durable when completed.
	WriteRequest
	// ZeroRequest makes the span read as zeros (TRIM, WRITE_ZEROES).
	ZeroRequest
	// FlushRequest makes everything acknowledged before it durable.
	FlushRequest
	// ChangedRequest tells which extents of the span may differ between Snapshot and
	// the head, as block.OpChanged does. It is no client's.
	ChangedRequest
)

// Request is one client request. Spans are whole sectors within the volume; the
// frontend has checked that.
type Request struct {
	// Tag is the frontend's name for the request, given back in EffectComplete.
	Tag             uint64
	Kind            RequestKind
	ForceUnitAccess bool
	Offset          int64
	Length          int64
	// Snapshot, unless zero, is read instead of the head by a ReadRequest, or is what a
	// ChangedRequest compares the head with. One that the view does not have, or that
	// no member holds whole, is block.ErrInvalid.
	Snapshot block.SnapshotID
	// Buf is the payload of a write; the core takes over one reference.
	Buf *block.Buffer
}

// EffectKind tells which fields of an Effect are set.
type EffectKind uint8

const (
	// EffectConnect: make a link to Replica and send Request (its OpOpen) on it
	// first. An older link to the replica is closed.
	EffectConnect EffectKind = iota + 1
	// EffectDisconnect: close the link of (Replica, Request.Session).
	EffectDisconnect
	// EffectSend: send Request to Replica on the link of Request.Session; drop
	// it if that link is gone. Takes one reference of Request.Buf along.
	EffectSend
	// EffectPropose: hand Proposal to Raft; its outcome comes as EventOutcome.
	EffectPropose
	// EffectComplete: the client request Tag has ended with Err; a read's bytes, or
	// what has changed, are Buf, of which one reference goes along.
	EffectComplete
	// EffectServing: the core serves from now on.
	EffectServing
	// EffectStopped: the core has ended; Err is nil after a clean detach. Nothing
	// follows, and every request has been completed.
	EffectStopped
	// EffectNotice: something an operator wants to know.
	EffectNotice
	// EffectCut: the cut of Snapshot has ended with Err. Nil: Raft has committed the
	// snapshot, and every member has stored that view. block.ErrUnavailable: the cut
	// was given up, or another one is under way. block.ErrConflict: Raft wants no such
	// snapshot, or somebody holds a cut of that ID. block.ErrDetached: the core ended
	// first; whether the snapshot is committed is for Raft to tell. After each error
	// but for that a cut may be asked for again, under an ID that was never used: a
	// replica that was away may hold what was given up (rule 1).
	EffectCut
	// EffectResized: Raft has committed Size as that of the volume, and every member
	// has it durably; what was added reads as zeros.
	EffectResized
	// EffectScrubbed: a scrub has come as far as Scrubbed says, or has ended.
	EffectScrubbed
)

// Effect is one output of the core, to be carried out in order.
type Effect struct {
	Kind     EffectKind
	Replica  block.ReplicaID
	Request  block.Request
	Proposal block.Proposal
	Tag      uint64
	Err      error
	Buf      *block.Buffer
	Notice   Notice
	Snapshot block.SnapshotID
	Size     int64
	Scrubbed Scrubbed
}

// NoticeKind is what a Notice reports.
type NoticeKind uint8

const (
	// NoticeMemberLost: Replica left the in-sync set; Err says why, block.ErrDetached if
	// another one has taken its place.
	NoticeMemberLost NoticeKind = iota + 1
	// NoticeResyncStarted: Replica is a target; Bytes is what may differ.
	NoticeResyncStarted
	// NoticeResyncProgress: Bytes remain to be compared, Copied have been copied.
	NoticeResyncProgress
	// NoticeNoRoom: the disk of Replica, a target, has no room for what it lacks, at most
	// Bytes; that is tried again.
	NoticeNoRoom
	// NoticeAdmitted: Replica is in sync again; Copied bytes were copied.
	NoticeAdmitted
	// NoticeRepaired: Replica, on Disk of Node, had Bytes from Offset on, within one
	// chunk, that are now a peer's. Err is block.ErrChecksum if they were damaged,
	// and nil if they may have differed after the end of an engine.
	NoticeRepaired
	// NoticeFrozen: I/O waits; Err says for what. NoticeThawed ends it.
	NoticeFrozen
	NoticeThawed
	// NoticeDiffer: Replica, on Disk of Node, has other Bytes from Offset on than
	// another in-sync replica, and the checksums of both are good (rule 30). If Err is
	// block.ErrChecksum, it has them damaged, and they cannot be copied.
	NoticeDiffer
	// NoticeUnreadable: neither Replica, on Disk of Node, nor any other in-sync replica
	// has Bytes from Offset on intact, as a request that fails for it or a scrub has
	// found; there is one for each.
	NoticeUnreadable
)

// Notice is one observation, for logs, metrics and the status of a volume.
type Notice struct {
	Kind    NoticeKind
	Replica block.ReplicaID
	Node    block.NodeID
	Disk    block.DiskID
	// Snapshot is the one whose bytes they are, zero for the head. Younger ones that
	// have them from it, and the head, are not told of.
	Snapshot block.SnapshotID
	Err      error
	Bytes    int64
	Copied   int64
	Offset   int64
}

// Status is a snapshot of a core for people.
type Status struct {
	View    block.View
	Serving bool
	// Frozen is nil while I/O flows, else what it waits for.
	Frozen error
	// InFlight are client requests.
	InFlight int
	// Divergent are bytes not yet known to be equal on all members.
	Divergent int64
	// Targets are the replicas being resynced.
	Targets []TargetStatus
	// LogRegions is the number of regions in the intent logs.
	LogRegions int
	// Scrub is how far the scrub under way is; its zero value if there is none.
	Scrub ScrubStatus
	// Guards is how often each of the rules' guards has decided something.
	Guards [Guards]uint64
	Usage  Usage
}

// Usage is what a core holds of everything that is bounded by Limits (rule 32).
type Usage struct {
	// Requests, Writes and Jobs are slots in use, Locks the ranges held or wanted.
	Requests, Writes, Jobs, Locks int
	// Calls are the calls to the replica that has most of them, CallSlots the
	// places for calls that its table has grown to. Queued are the writes among the
	// calls to the sync target that has most of them.
	Calls, CallSlots, Queued int
	// Suspects are the chunks that wait for a repair after a read.
	Suspects int
}

// Bounds are the highest Usage that limits allow, whatever replicas, clients and
// Raft do or leave undone.
func (l Limits) Bounds() Usage {
	slots := l.Requests + l.Copies
	calls := 3*slots + l.TargetWindow + callsOfCore
	return Usage{
		Requests: l.Requests, Writes: slots, Jobs: l.Copies, Locks: slots,
		Calls: calls, CallSlots: calls, Queued: slots + l.TargetWindow, Suspects: maxSuspects,
	}
}

// callsOfCore are those calls to one replica that neither a write nor a request nor
// a job owns: a ping, a flush and an update, and one of each that an end has made
// pointless.
const callsOfCore = 8

// Exceeds names the first count that is above its bound, or is empty.
func (u Usage) Exceeds(bound Usage) string {
	for _, c := range []struct {
		name      string
		is, bound int
	}{
		{"requests", u.Requests, bound.Requests}, {"writes", u.Writes, bound.Writes},
		{"jobs", u.Jobs, bound.Jobs}, {"locks", u.Locks, bound.Locks},
		{"calls", u.Calls, bound.Calls}, {"places for calls", u.CallSlots, bound.CallSlots},
		{"queued writes", u.Queued, bound.Queued}, {"suspects", u.Suspects, bound.Suspects},
	} {
		if c.is > c.bound {
			return fmt.Sprintf("%d %s, at most %d", c.is, c.name, c.bound)
		}
	}
	return ""
}

// TargetStatus is the progress of one resync.
type TargetStatus struct {
	Replica   block.ReplicaID
	Remaining int64
	Copied    int64
	Counts    bool
	// Waits is nil while it goes on, else what holds it up: block.ErrNoSpace if its disk
	// had no room of late.
	Waits error
}
