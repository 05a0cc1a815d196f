// Package state is the cluster's truth as a pure state machine: nodes, disks,
// volumes, replicas, attachments and views. A State is an immutable value; Apply
// makes the next one from a command. It reads no clock, draws nothing at random
// and does no I/O, so that every Raft member that applies the same log holds the
// same state, and the simulator can drive the very code that runs in production.
//
// # Invariants
//
// Check verifies them; it is run on every restored snapshot and after every step
// of the tests.
//
//   - The epoch and the revision of a volume only rise. Every commit that changes
//     a volume raises its revision by one; a command that is repeated changes
//     nothing.
//   - A volume whose replicas were all made has at least one in-sync member
//     (rule 9), and a removal names the revision at which it was committed
//     (rule 16).
//   - Owner and start are set together; an attachment never exists without them,
//     nor on another node than the volume is published to (rule 2). A volume that is
//     published to nobody and yet has an owner is borrowed: that owner's engine has no
//     frontend.
//   - No replica appears twice; two replicas of a volume share a node only if one of
//     them takes the place of the other.
//   - A replacement never makes the in-sync set smaller: the old replica leaves it by
//     the proposal of its engine once the new one is in, and the view in that commit.
//     What leaves the view, or was to join it and is not to any more, is a tombstone
//     until its node says that it is gone.
//   - The snapshots in a view are the records that are ready, and every record is of
//     a volume that is not deleted. A snapshot that a volume is being made from stays.
//   - A volume that is being reverted is published to nobody, and its snapshots that are
//     needed for that stay (rule 26).
//   - The size of a volume only rises, and only to what an intent names (rule 27).
//   - A record of a scrub is of a volume that is not deleted. It is no part of the
//     volume: it changes neither view nor revision.
//   - A volume in the trash is whole, published to nobody, and holds no name.
//   - IDs are never reused (rule 1). The records of nodes stay for ever. That of a
//     disk goes with its removal, while no volume has a replica there; its store
//     keeps the ID, and may be added again. Those of volumes and replicas go when the
//     last replica is gone, those of snapshots when they are deleted; what keeps a
//     delayed creation from bringing their IDs back is its DecidedAt, compared with the
//     index of the last record that was dropped. An attachment is made only together with a new epoch,
//     compared-and-set on the old one, so that a delayed start cannot bring it back
//     either.
//
// # Formats
//
// Commands, results and saved states are JSON, because they are small, off the I/O
// path and worth reading in an emergency. IDs are 32 hexadecimal digits. The
// field names are those of the Go types, including block.View, block.Member and
// block.Proposal: renaming a field there changes the format, and the golden files
// in testdata fail.
//
//	command  {"version":1,"kind":"create-volume","command":{…}}
//	result   {"version":1,"code":"in-use","message":"…","verdict":1,…}
//	state    {"version":1,"cluster":"…","incarnation":1,"index":7,"collected":5,
//	          "nodes":[…],"disks":[…],"volumes":[…],"snapshots":[…],"scrubs":[…],
//	          "settings":{…}}, lists by rising ID
//
// A field unknown to a build would be lost by it and make members disagree, so
// unknown fields are refused and a new field raises the version. A build refuses
// versions and kinds it does not know with block.ErrVersion; a member that meets
// one in its log must stop rather than skip it. What uses nothing of version 2
// (snapshots, growth, reverts, sources, borrowed volumes, scrubs, settings,
// replacements, the trash, limits of space) is written as version 1, byte for byte, so
// that members of both builds agree until somebody asks for those.
package state
