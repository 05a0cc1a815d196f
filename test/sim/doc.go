// Package sim runs a whole cluster in one goroutine: the real engine core, the
// real replica server, the real store on a disk in memory, and the real state
// machine of the cluster, on a virtual network, virtual disks and a virtual
// clock. Everything that happens follows from one seed, so that a failure is
// reproduced by its seed and its number of steps.
//
// # Fault model
//
//	process   killed: unsynced bytes stay in the page cache, an operation that
//	          was with the kernel is carried out or not, peers see a reset;
//	          paused (SIGSTOP, or a machine that hangs): the clock goes on,
//	          everything that was meant for it happens at once when it resumes
//	machine   loses power: of the unsynced writes to the data file survive none,
//	          all, some, or some of their 512-byte sectors; of the metadata
//	          directory's unsynced bytes none or all; its peers hear nothing for
//	          seconds; it comes back under a new boot ID. All at once, too
//	network   a connection delivers in order and connections overtake each other;
//	          it loses only by ending, at any point, of which the far end may
//	          learn much later; links are cut in one direction or both, and slow
//	disk      slow; full; a sync that fails once; bits that flip at rest (on one
//	          node only, for what rots everywhere is nobody's to give back)
//	Raft      commands are lost before they land, land late, land after their
//	          proposer called them unknown, or land unanswered; the leader cannot
//	          be reached by a node; the quorum is lost, and what waited in the
//	          log lands when it returns, or never
//	engine    killed alone; aborted; the volume moved to another node with the
//	          old engine drained, or left running with its clients (a zombie)
//
// Outside the model: disks that lie about a sync, disks put back to an older
// state, and more than one cluster.
//
// # Checkers
//
// One file each, and each is shown a bad history by a test:
//
//	check_linear.go    every read of a sector can be explained by one order of
//	                   the writes; unacknowledged ones may be in it or not, but
//	                   are settled when the next engine serves
//	check_flushed.go   after an attachment that ended because every copy lost its
//	                   memory, nothing older than the last flush shows
//	check_equal.go     at rest all in-sync replicas hold the same bytes, and those
//	                   that the history allows
//	check_acks.go      at most one engine acknowledges, at any instant
//	check_progress.go  once healed, everything is answered and every replica
//	                   admitted, within a bounded time
//	check_doors.go     epochs, sessions, revisions and flush numbers of a replica
//	                   only rise, through crashes too; older sessions get nothing
//	check_memory.go    what an engine leaves queued is bounded
//	payload.go         every sector's bytes are of a write to that very place;
//	                   two volumes share the disks, and neither shows the other's
//
// The paths that a run took, faults and steps of the protocol, are counted
// (paths.go). A set of runs that never took an expected one fails: it would
// prove nothing about it.
//
// # Structure
//
// A World owns a loop (virtual time, randomness, trace), a network, a truth (the
// stand-in for Raft), nodes with their storage, and volumes with their hosts (an
// engine core each) and clients. The nemesis draws faults. Nothing here starts a
// goroutine; the database inside a store has its own, whose timing shows in
// nothing that the simulator looks at.
package sim
