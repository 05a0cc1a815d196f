package core

// Guard is a place in the core where a rule of engine/DESIGN.md decides something:
// something waits, is refused, or is done that would not have been. Each time it
// does is counted, so that whoever tests the core sees that its rules were put to
// the test.
type Guard uint8

const (
	// GuardGate: something waits until a view and its dirty sets are stored (rule 3).
	GuardGate Guard = iota
	// GuardMembers: an attach waits for members that cannot be reached (rule 5).
	GuardMembers
	// GuardJoining: a write that all members have waits for a replica that counts,
	// or whose admission is proposed (rule 6).
	GuardJoining
	// GuardLease: a read waits for a lease (rule 7).
	GuardLease
	// GuardWaitOut: an attach waits for the leases of older engines (rule 7).
	GuardWaitOut
	// GuardRemoval: a write that all other members have waits for the removal of one
	// that failed (rule 9).
	GuardRemoval
	// GuardMinimum: a write waits for more members (rule 9).
	GuardMinimum
	// GuardRolledBack: a disk went back behind a flush (rule 10).
	GuardRolledBack
	// GuardOrder: a write waits for something that overlaps it (rule 11).
	GuardOrder
	// GuardRead: a read waits for a write that overlaps it (rule 13).
	GuardRead
	// GuardLeaving: a write waits until a region has left the logs (rule 14).
	GuardLeaving
	// GuardDivergentLog: a region stays in the logs because it is divergent or has
	// checksums to be taken (rule 15).
	GuardDivergentLog
	// GuardLackedLog: a region that leaves the logs is marked for an absent replica
	// first (rule 15).
	GuardLackedLog
	// GuardRemovalSet: a dirty set begins as the union of logs that are not empty
	// (rule 16).
	GuardRemovalSet
	// GuardLogsAgain: logs are added to the dirty set of a target whose session
	// ended (rule 16).
	GuardLogsAgain
	// GuardLostMemory: a member came back without what was not flushed (rule 17).
	GuardLostMemory
	// GuardDivergent: a request waits for a repair (rule 18).
	GuardDivergent
	// GuardDark: all members are lost, and none is removed (rule 19).
	GuardDark
	// GuardUnreadable: a read that nobody can serve fails (rule 19).
	GuardUnreadable
	// GuardWindow: a write misses a target whose window is full (rule 21).
	GuardWindow
	// GuardNoSet: a dirty set is missing or of another removal, so that all is dirty
	// (rule 22).
	GuardNoSet
	// GuardCopy: a write waits at a target for a copy of its chunk (rule 22).
	GuardCopy
	// GuardKeptHead: a target gives up the head that it kept, for room (rule 22).
	GuardKeptHead
	// GuardTakeOver: a target takes over the dirty set of another (rule 23).
	GuardTakeOver
	// GuardCutWaits: a cut waits, for divergent chunks or another change (rule 24).
	GuardCutWaits
	// GuardCut: a write waits for a cut (rule 24).
	GuardCut
	// GuardCutTarget: a write waits at a target for its cut (rule 24).
	GuardCutTarget
	// GuardCutGivenUp: a cut that was begun is given up (rule 24).
	GuardCutGivenUp
	// GuardPartial: a member that lacks a snapshot leaves (rule 24).
	GuardPartial
	// GuardLayer: a copy goes through a layer below the head (rule 25).
	GuardLayer
	// GuardLate: a late reply is dropped (rule 29).
	GuardLate
	// GuardBadSource: a copy stops at bytes that do not verify (rule 30).
	GuardBadSource
	// GuardSpace: a full member leaves, because another one took the write and has
	// space (rule 31).
	GuardSpace
	// GuardFull: a write waits for space (rule 31).
	GuardFull
	// GuardReadOnly: the last member takes no writes (rule 31).
	GuardReadOnly

	// Guards is their number.
	Guards
)

// guarded counts one decision.
func (c *Core) guarded(g Guard) { c.guards[g]++ }
