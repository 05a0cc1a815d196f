// Package explore visits every state that small configurations of the mirror can
// reach. It drives the very engine core that runs in production and the real
// state machine of the cluster; only replicas, connections and clients are
// modelled, and each state of all of them together is visited once.
//
// # What may happen
//
// In a state, each of these may happen next, and each is tried, as often as the
// bounds of the configuration allow:
//
//	delivery    any request under way is carried out, in any order that the
//	            replica's store allows, and its answer arrives, now or late
//	connection  ends; what was under way is carried out or not, until the
//	            replica is opened anew or ends
//	replica     its process is killed: the page cache stays, checksums that were
//	            not durable may go; or its power is lost: each block holds any
//	            value written since the last flush; or its disk is put back to what
//	            it was at the beginning, once others know of a flush since then
//	Raft        decides a proposal; its proposer hears of it, or is told that
//	            nobody knows, after which it lands at any time or never; shows
//	            a view to an engine that did not ask
//	engine      another one starts, on the next node; the older ones are left
//	            running. One that takes no further step is a dead one, so death
//	            needs no step of its own. It is detached
//	client      writes, reads or flushes, or asks for a snapshot, at any engine that
//	            serves, old or new
//	time        a timer runs out whenever it likes; half a lease passes, or all
//	            of one and its margin
//
// # What is checked
//
//	history.go  each block is linearizable: of all states that it may be in after
//	            some order of what happened, one must explain each answer.
//	            What was flushed survives the loss of every memory. No engine
//	            answers what it was asked after a newer one served. A write of an
//	            older engine takes effect before the newer one serves, or never
//	cuts.go     a snapshot is a read of all blocks at one moment between call and
//	            commit; as Raft takes it, every member holds it valid and the same; at
//	            rest every replica holds Raft's snapshots as they were, and no other cut
//	world.go    no error reaches a client but the end of its attachment; members
//	            never differ outside of what may be divergent; an attachment ends
//	            by loss only if every member that stays lost its memory; the
//	            core's own assertions hold
//	finish.go   from each state in which the newest engine waits for nobody, the
//	            rest is reached without faults: everything is answered, every
//	            replica in sync, all hold the same, and that is what the history
//	            allows; with the same engine and with another one
//
// The views of replicas only rise because the modelled replica, like the real
// one, keeps the higher; the simulator checks that of the real one.
//
// # Why the replica may be a model
//
// replica.go says what replica/server and replica/store promise an engine, a
// request at a time. Cloning a store for each of millions of states would cost
// milliseconds each. TestReplica sends the same random requests, kills and losses
// of power to both and compares every answer; what is found on the real disk
// after a crash must be among the things that the explorer tries.
//
// The real server is concurrent, and the model is not. What that leaves out is
// put back by the deliveries:
//
//   - Requests of one session may overtake each other in the store unless they
//     touch the same block and one of them changes it (store: "A piece waits for
//     earlier pieces that touch the same blocks"), or the first takes a cut and the
//     second changes a block. So any request is delivered that
//     no such earlier one holds back.
//   - A request that is carried out while its answer is under way is a step apart
//     only if somebody could see the replica in between. Carrying out commutes
//     with everything that happens elsewhere, so it is moved to just before the
//     next step at the same replica that does not commute with it: an OpOpen of
//     another session, a kill, a loss of power. Such a step is tried once for each
//     set of requests in flight that may have been carried out (action.done), and
//     their answers may arrive at any time later. Between two such steps, delivery
//     and answer are one.
//   - A session that is shut out while its request runs gets no success from the
//     real door, though the request is carried out. Here it may get the success:
//     more than can happen, and its engine has to live with it.
//   - A session's requests may run, unseen, after its connection has ended, until
//     the door lets in another. They are the orphans of its link, of the last ended
//     session that had any; those of sessions before it are taken for lost.
//
// Bytes are one number for each block, and a block changes as a whole. The blocks of
// a volume lie side by side, or each in a region of its own, so that one region's log
// is cleared while another is written; then the hashes of chunks in which no block lies
// are asked for and answered in one step, because nobody can change what they say.
//
// # What is outside of the model
//
// Partial blocks, torn blocks, damage, full disks and failed syncs; clocks that do not
// run alike; two volumes; more than three replicas; the doors' and stores' own queues
// but for the order in which they let requests go; cuts beside losses of power, deletions
// of snapshots, growth. A disk is put back only to the image of the first state, and only
// while every other member knows better: rule 10 promises nothing else. All of that is
// the simulator's (test/sim).
//
// # Why the core may be made to hurry
//
// Leases are counted in units of a time that really passes, for all engines alike,
// and engines notice when they next do something. Every other wait (for members,
// to connect or propose again, for regions to be idle) must be safe whatever it
// takes. So its length is a year, and a step of the explorer moves its end to now
// (timers.go). Regular pings are off: a read asks for the lease it needs, and a
// connection that is silent is one that ends.
//
// # When two states are one
//
// States are compared by a hash of 128 bits of their canonical form. It is made by
// reflection from the real core (plan.go): whatever field the core gains is in it,
// and a field that is renamed ends the program. Nothing is left out but what
// notes.go names:
//
//   - Numbers that only grow, of which only equal, next and later matter: revisions,
//     flush numbers, the core's serial, sessions. They are written as the gaps
//     between those in use, one for the next and two for anything later.
//   - Names that are only compared for equality with one other place: stamps,
//     tickets and sequence numbers become places in a list, or "current" and
//     "gone".
//   - Instants: units since, up to the end of a lease and its margin; for a timer
//     only whether it is over.
//   - What only people see: counters of bytes, causes, notices.
//   - What is left of jobs, flushes and updates that have ended.
//
// TestMerge holds this to its word: where two ways lead to one canonical form, the
// states are compared by what can happen next, and what that leads to.
//
// Replicas are not exchanged for one another: the core breaks ties by their order,
// and each engine prefers the one on its node. Outcomes of a proposal that can only
// fail, or that nobody else can see, arrive as it is decided.
//
// # Searching
//
// Workers go depth first, each with its own stack, and give half of it to one that
// has none. A step copies the one core that it changes (plan.go: no look at types
// while it runs) and nothing else. Buffers are shared, from a stock whose
// references never run out.
//
// A violation ends the search. Its trace is shortened by leaving out what it does
// not need, printed as a story, and can be repeated:
//
//	go run ./test/explore/cmd/explore -list
//	go run ./test/explore/cmd/explore -config loss -set writes=2,flushes=1
//	go run ./test/explore/cmd/explore -config loss -set losses=3 -walk 1 -limit 1h
//	go run ./test/explore/cmd/explore -replay FILE
//
// test/canaries shows that it is able to find something.
//
// # Goroutines
//
// Run starts its workers and a reporter and joins them. A world belongs to the
// worker that has it; the set of visited states has a mutex for each of its parts.
package explore
