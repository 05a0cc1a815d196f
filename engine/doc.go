// Package engine serves attached volumes. It is the shell around engine/core:
// the core decides, the shell owns links, timers, proposals and the table of
// client requests.
//
// One Engine serves one epoch of one volume. Events reach its core through
// post, which combines: whoever finds the core idle steps it for everybody who
// posts meanwhile, and carries the effects out. So the core needs no lock, no
// request costs a goroutine or a channel, no lock is held while effects are
// carried out, and an effect may post again without deadlock. Nobody who steps
// the core waits for a network, a disk or Raft: what takes time is a chore.
//
// A Host owns the engines and devices of a node: it stages and unstages volumes,
// takes the devices of a previous daemon over when it starts, and starts an
// engine again, at a new epoch of the same attachment, when one stops by itself.
//
// # Invariants
//
//   - Every request is completed exactly once, whatever ends the engine; when
//     Stopped is closed, all were.
//   - A request fails because of its engine only when its attachment has ended
//     (block.ErrDetached). Any other end is worded so that the frontend leaves the
//     request unanswered, and the kernel asks the next engine.
//   - A device has its engine taken off before that engine is ended, unless the
//     engine ended by itself.
//   - A device is made after its attachment is in Raft, and removed, in use or not,
//     when Raft no longer shows the attachment here (rule 2).
//
// # Goroutines
//
// Engine.Run owns one for each link being made, each proposal and each link that
// is ending, and joins them, the goroutines of the links and the timer.
// Host.Run owns one for each staged volume, which runs the volume's keeper and,
// in a second one, its engine; and one that removes devices that are left over.
// Run joins them all.
package engine
