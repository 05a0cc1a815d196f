// Package server serves the replicas on a node's disks to engines. It keeps old
// engines out, and translates the messages of an engine into operations of a
// store.
//
// # The door
//
// Every replica has one door (rule 4). It lets in one session at
// a time, the one with the highest fence it has seen: cluster incarnation,
// generation, epoch, session number. An OpOpen with a higher fence
//
//  1. shuts out all older sessions: what of theirs is still queued is dropped
//     unapplied, what they send from now on is refused;
//  2. waits until the store runs nothing more for them;
//  3. makes the fence durable;
//  4. is answered with block.Opened.
//
// A lower fence is refused with block.ErrStaleEpoch, or block.ErrStaleSession
// if the epoch is the door's own. The local engine passes through the same door
// as remote ones. Once shut out, a session gets no success any more, not even
// for what was in the store at that moment: an engine that was replaced learns
// it from the next answer, whatever it asked.
//
// # Requests
//
// Requests wait in a queue in front of the store and leave it in their order,
// so that at most Limits.Running of them are in the store and a new session never
// waits for more than those. Answers come in any order. A session with more than
// Limits.InFlight unanswered requests breaks the protocol. OpPing goes through
// the same queue and is answered when its turn comes.
//
// Everything an engine sends is checked before it is queued; what cannot be
// right is answered with block.ErrInvalid (a wrong range) or block.ErrProtocol
// (a message that no engine sends) and changes nothing.
//
// # Goroutines
//
// The package has none of its own but those of an export that repairs, which end with
// it. It reads no clock and draws no random numbers:
// it runs on the goroutines of those who call it (connections and completions of
// the store), one of which at a time feeds a door's queue to its store. Mutexes
// guard memory only; no lock is held while a store or a reply function is
// called. Run on a single goroutine it is therefore deterministic.
//
// # Exports
//
// A snapshot can be read with any NBD client under the name snapshot/<SnapshotID>,
// from each node with a replica that holds it valid and was told that it is
// committed. base:allocation tells where it holds data, holdfast:changed/<SnapshotID>
// which bytes may differ from an older snapshot of the same volume (flag 1).
//
// A read that comes upon damage has it repaired from another in-sync replica (Elsewhere),
// which is read under the name copy/<SnapshotID>, where nobody is asked further.
//
// A raw replica can be read under the name
// replica/<ReplicaID>, for inspection only. Such an export never writes, reads
// its own disk alone, and does not pass through the door: it shows whatever
// bytes are there while an engine goes on writing.
package server
