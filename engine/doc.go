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
// engine again, at a new epoch of the same attachment, when one stops by itself. For a
// snapshot, the growth or the revert of a volume that nobody has attached it borrows the
// volume: an engine without a frontend, at an epoch of its own, does that and ends.
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
//   - A device is never larger than the committed size of its volume, and follows it.
//   - What Raft shows as borrowed by this node is being used by the Host, or is ended.
//
// # Errors that a client may see
//
// While one in-sync replica is left, trouble with networks, disks, Raft or the
// daemon itself makes a request wait, not fail. What is left:
//
//	error            given by                     when                                 answer over NBD
//	ErrInvalid       frontend, engine, core       the request reaches past the end,    EINVAL
//	                                              or is none (a broken client)
//	ErrIO            core: unreadable, failWrite  no in-sync replica has the bytes     EIO (rule 19)
//	                                              intact; a write of a part of a
//	                                              block needs the rest of it
//	ErrDetached      core: finish, arrive         unstaged, or taken away: all lost    ESHUTDOWN, which the
//	                                              their memory (rule 17), forced       kernel shows as EIO
//	                                              detach, another owner (rules 2, 19)
//	ErrStaleEpoch    core: finish                 a newer engine serves the device     none: the connection
//	                                                                                   ends, the client asks
//	                                                                                   the next engine
//	ErrUnavailable   engine: end, table           a broken invariant; more requests    none, likewise
//	                                              than the table takes
//	none             host: leave                  the daemon stops                     none, likewise
//
// ErrNoSpace, ErrDiskFailed, ErrChecksum and lost links are dealt with by the core
// and never complete a request; core.Completions is its whole list, and asserted.
//
// # Goroutines
//
// Engine.Run owns one for each link being made, each proposal and each link that
// is ending, and joins them, the goroutines of the links and the timer.
// Host.Run owns one for each staged volume, which runs the volume's keeper and,
// in others, its engine and what fits its device; one that removes devices that are
// left over; and one for each borrowed attachment that is left over. Run joins them all.
// The engine of a borrowed volume belongs to the call that borrowed it.
package engine
