// Package sim runs a whole cluster in one goroutine: the real engine core, the
// real replica server, the real store on a disk in memory, and the real state
// machine of the cluster, on a virtual network, virtual disks and a virtual
// clock. Everything that happens follows from one seed, so that a failure is
// reproduced by its seed and its number of steps.
//
// # Fault model
//
//	process   killed: unsynced bytes stay in the page cache, an operation that
//	          was with the kernel is carried out or not, by sector; peers see a
//	          reset; paused (SIGSTOP, or a machine that sleeps): the clock goes
//	          on, everything that was meant for it happens at once afterwards
//	machine   loses power: of the unsynced writes to the data file survive none,
//	          all, some, or some of their 512-byte sectors; of the metadata
//	          directory's unsynced bytes none or all; its peers hear nothing for
//	          seconds; it comes back under a new boot ID. All at once, too
//	clocks    each boot has a clock of its own that starts anywhere and runs too
//	          fast or too slow; it is held up for a moment together with its
//	          machine, by no more than the margin of a lease is for (clock.go)
//	network   slow; cut in one direction or both, between two machines, around
//	          one, or between two halves; see below for drops and duplicates
//	disk      slow; full; some operations hang for seconds; a read, a write of
//	          data or journal, or a sync fails; bits that flip at rest, in data (on
//	          one node only, for what rots everywhere is nobody's to give back);
//	          put back to what it was some time ago, where the rules promise that
//	          it is noticed (nemesis_disk.go)
//	Raft      commands are lost before they land, land late, land after their
//	          proposer called them unknown, or land unanswered; the leader cannot
//	          be reached by a node; the quorum is lost, and what waited in the
//	          log lands when it returns, or never
//	identity  volumes are made and deleted all the time, while engines of theirs go on;
//	          a replica that was deleted comes up on its disk again; a disk is there
//	          twice; Raft is sent a report of a replica that is alive, or a volume with
//	          the ID of a replica that exists (estate.go)
//	disks     replicas move from disk to disk in every third of the other seeds, and
//	          some moves are given up (replace.go)
//	reverts   in every third of the seeds without faults that destroy data, volumes are
//	          taken from their nodes and made what a snapshot was; some go back to what
//	          was kept, some stay what they are, some engines lose the volume (reverts.go)
//	leader    terms end: the leader dies, freezes, loses the quorum, is replaced
//	flood     an engine sends more than a session may have in flight
//	engine    killed alone; aborted; the volume moved to another node with the
//	          old engine drained, or left running with its clients (a zombie);
//	          its device outlives the daemon, but not the machine
//
// Connections are TCP's, which neither drops nor doubles nor reorders: what a bad
// network does to a connection is to end it. So the model has these where they can
// happen. Drop: a connection ends at any point, and what was on its way arrives up
// to some message, in each direction, or not at all. Duplicate: what was carried out
// and not answered is sent again in the next session. Reorder: connections overtake
// each other; what an engine had sent before it closed a connection may arrive when
// the next one has long been open, and the far end may learn of the end seconds late.
// What that answers until then may reach the engine, late: real links drop it, and the
// core is not to rely on that (rule 29).
//
// A seed chooses the size of the cluster (3 to 6 nodes), the replicas of its two
// volumes (1 to 5), how busy the clients are, and how often faults come, how long
// they last and whether they like to strike at the protocol's important steps.
// One seed in five has faults that destroy data or fail a disk. Snapshots are taken and
// deleted, and volumes made larger, at any time (snapshots.go).
//
// Outside the model: disks that lie about a sync; a database inside the store whose
// own files fail; a boot clock that stands still for longer than the margin of a
// lease (rule 7 takes CLOCK_BOOTTIME, which counts sleep); a disk that is put back
// when nobody else knows how far it was; more than one cluster.
//
// # Checkers
//
// Each is shown a bad run by a test of its own (checkers_test.go, checkers_nodes_test.go, mirror_test.go),
// and planted bugs by TestPlanted:
//
//	check_linear.go    every read of a sector can be explained by one order of
//	                   the writes; unacknowledged ones may be in it or not, but
//	                   are settled when the next engine serves
//	check_porcupine.go the same by another judge: porcupine searches the whole
//	                   history of sectors that the seed draws; both must agree
//	check_flushed.go   after an attachment that ended because every copy lost its
//	                   memory, nothing older than the last flush shows; it ends for
//	                   no other reason
//	check_equal.go     at rest all in-sync replicas hold the same bytes, and those
//	                   that the history allows
//	check_acks.go      at most one engine acknowledges, at any instant, and none
//	                   with fewer members than the volume asks for
//	check_progress.go  once healed, everything is answered, every replica made, deleted
//	                   or admitted, and every intent log emptied, in bounded time
//	check_doors.go     epochs, sessions, revisions and flush numbers of a replica
//	                   only rise, through crashes too; older sessions get nothing;
//	                   nothing is answered by a view that a member does not hold, but
//	                   for what no answer relies on
//	check_cuts.go      as Raft takes a snapshot or a size, every member has it; what a
//	                   cut holds is what a read of the whole volume between call and
//	                   commit could have returned; at rest every replica holds the
//	                   snapshots of Raft, valid and equal, and no other cut
//	check_operations.go  nothing of an older session runs when a newer one is open, and
//	                   a session is told of no success once a newer one asked to enter
//	check_identity.go  the ID of a replica names one thing for ever; one is deleted on
//	                   its tombstone alone; what the cluster does not know is opened
//	                   by nobody, and a disk that is there twice not served
//	revert.go          while a volume is being reverted nobody publishes it, and the snapshot
//	                   stays; as it ends, the history allows that it is the snapshot,
//	                   durably (reverts.go)
//	replace.go         a replica leaves the view only when the one that takes its place is
//	                   in sync
//	check_memory.go    what an engine leaves queued is bounded, and what a replica
//	                   holds of one session
//	leader.go          no leader holds a node for dead that one has heard within a lease
//	stock.go           a daemon that has started keeps no device of an ended attachment
//	scrub.go           no scrub calls replicas different that are not, whatever is
//	                   written meanwhile; at rest one ends, covers every member, and
//	                   leaves no damage that could be repaired, in no snapshot either
//	check_store.go     each extent of a disk belongs to one place, whenever a store
//	                   is opened and at the end
//	attach.go          a volume has one device at a time, an engine serves its own,
//	                   and a start that was not heard of can be asked for again
//	truth.go           a view changes only by a proposal of its epoch's engine on
//	                   its revision; no other command changes an in-sync set,
//	                   or publishes what is borrowed; a snapshot that lands was
//	                   reserved, and a size wanted
//	payload.go         every sector's bytes are of a write to that very place;
//	                   two volumes share the disks, and neither shows the other's
//	world.go           a client gets no error but those that a fault allows
//	run.go             no assertion of the code under test fails
//
// The paths that a run took, faults and steps of the protocol, are counted
// (paths.go), and so is by rule how often a guard of it decided something (rules.go;
// what only the core can see, it counts itself: core.Guard). A set of runs that never
// took an expected one fails: it would prove nothing about it.
//
// The attacks against which the rules were written are listed by name with who plays
// them (attacks_test.go), most of them as scenarios here.
//
// # Use
//
//	make sim                        new seeds for a minute, on all cores, then a
//	                                table and a line of totals
//	make sim DURATION=1h            for longer
//	make sim EVENTS=100000000       until so many events were played
//	make sim FIRST=5000             beginning with seed 5000
//	make sim SEED=7 STEPS=15000     one run again, as the report of a failure says
//	make test                       two minutes of seeds, among everything else
//
// To see all of a run that failed, give the test -sim.trace a file; its last lines
// are in the report. Lines are: step, seconds, what happened; A, B, C are the
// replicas of a volume in the order of the view, E2@n0 is the engine of epoch 2 on
// node 0, s3 its third session with a replica, and a value is the number of the
// request that wrote it.
//
// What a seed has shown stays as a test. The code under test and this package make
// one program, so that after a change to either a seed stands for another run, and its
// number proves nothing; it is kept with what it has shown (kept_test.go) for the world
// that it draws. Find in the trace the few events that matter, script them
// as a scenario (scenario_*_test.go, scene_test.go has the verbs), see that it fails,
// mend the code, see that it passes, and test the part that was wrong beside its code.
//
// Bugs planted in the code itself are hunted with the flag -sim.hunt: faults come
// closer together then, and assertions do not count (test/canaries).
//
// To add a checker: give it a file, feed it from where it has to look (client,
// doors, committed, compare), let it call World.fail, and show it a bad run. To
// add a fault: a function in nemesis.go and a line in its list; what it breaks,
// heal must mend.
//
// # Structure
//
// A World owns a loop (virtual time, randomness, trace), a network, a truth (the
// stand-in for Raft), nodes with their storage, and volumes with their hosts (an
// engine core each) and clients. Beside these an estate has volumes that come and
// go, whose engines are visitors (connections without a core); agents of the nodes
// make and delete their replicas. The nemesis draws faults. Nothing here starts a
// goroutine; the database inside a store has its own, whose timing shows in nothing
// that the simulator looks at.
package sim
