// Package cluster is this node's member of the one Raft group that holds the
// cluster's truth: nodes, disks, volumes, attachments and views. It is asked when
// something changes and never on the path of a read or write.
//
// Files by subject: cluster.go the member's life, fsm.go the adapter to
// cluster/state, logstore.go and identity.go what is on disk, transport.go the
// connections of Raft, apply.go the way of a command to the leader and back,
// following.go the end of that way when the leader changes, detour.go the way
// through another member, engineapi.go what the engine's shell calls, leader.go
// the duties of the leader, membership.go joining and voters, leases.go and
// heartbeat.go who is alive, placement.go where replicas go, source.go what a volume
// begins with, worker.go who does something to a volume, replace.go which replicas are
// to move and drain.go their moving, tidy.go what the leader sees to
// unasked, trash.go what was deleted, usage.go what volumes take, agent.go what a node does to
// its own disks, and the services by their names. DESIGN.md says why.
//
// # Invariants
//
//   - A command that this build cannot read never enters the log through it, and
//     a member that finds one in the log stops (fsm.go).
//   - An error after a command was handed to Raft is block.ErrUnknown. Only what
//     certainly was not queued is block.ErrNotLeader, and tried again by itself.
//   - A request on a detour has one stop: from there it goes to the leader or to
//     nobody (detour.go).
//   - A leader answers nothing before it has applied what earlier terms committed,
//     and holds nobody for dead before a full lease (rule 28).
//   - The agent makes and deletes replicas only on the word of a state that is not
//     older than its decision, and deletes only tombstones (rule 1). It forgets only
//     cuts that no snapshot names and no engine needs.
//   - A replica leaves a disk that is drained only after another one has taken its place.
//     All that is decided of that is in Raft; the leader remembers but who rests how long.
//   - A snapshot whose request failed was not taken, or is found by the next request
//     of its name.
//   - A Raft connection reaches the very node it is meant for, of the same
//     cluster, or is refused (transport.go). A node ID goes with its Raft state;
//     a node that lost that becomes another one (rule 1).
//
// # Goroutines
//
// Run owns and joins: the acceptor of Raft connections and its greeters, the
// election watcher and through it the duties of a term, its tidying and the moving of replicas, the watcher of whom it
// follows, the registration, the heartbeats and the agent. Raft's own end in
// Close, which Run calls. A request runs on the goroutine of its caller; the one
// helper that waits for an answer of Raft ends when Raft answers, at the latest
// with the process.
//
// # Files
//
//	<dir>/lock            held while a process uses the directory
//	<dir>/identity.json   {"version":1,"node":"…","cluster":"…","joined":true}
//	<dir>/raft/log/       the log and Raft's numbers, by raft-wal
//	<dir>/raft/snapshots/ by Raft; the content is cluster/state's
//	<dir>/raft.lost/      what was left of a Raft state that was partly lost
package cluster
