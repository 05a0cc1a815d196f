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
//     nor on a node that the volume is not published to (rule 2).
//   - No replica appears twice; two replicas of a volume never share a node.
//   - IDs are never reused (rule 1). The records of nodes and disks stay for
//     ever. Those of volumes and replicas go when the last replica is gone; what
//     keeps a delayed creation from bringing their IDs back is CreateVolume's
//     DecidedAt, compared with the index of the last record that was dropped. An
//     attachment is made only together with a new epoch, compared-and-set on the
//     old one, so that a delayed start cannot bring it back either.
//
// # Formats
//
// Commands, results and snapshots are JSON, because they are small, off the I/O
// path and worth reading in an emergency. IDs are 32 hexadecimal digits. The
// field names are those of the Go types, including block.View, block.Member and
// block.Proposal: renaming a field there changes the format, and the golden files
// in testdata fail.
//
//	command   {"version":1,"kind":"create-volume","command":{…}}
//	result    {"version":1,"code":"in-use","message":"…","verdict":1,…}
//	snapshot  {"version":1,"cluster":"…","incarnation":1,"index":7,"collected":5,
//	           "nodes":[…],"disks":[…],"volumes":[…]}, lists by rising ID
//
// A field unknown to a build would be lost by it and make members disagree, so
// unknown fields are refused and a new field raises the version. A build refuses
// versions and kinds it does not know with block.ErrVersion; a member that meets
// one in its log must stop rather than skip it.
package state
