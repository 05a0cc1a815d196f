// Package engine serves attached volumes. It is the shell around engine/core:
// the core decides, the shell owns links, timers, proposals and the table of
// client requests.
//
// One Engine serves one epoch of one volume. Events reach its core through
// post, which combines: whoever finds the core idle steps it for everybody who
// posts meanwhile, and carries the effects out. So the core needs no lock, no
// request costs a goroutine or a channel, no lock is held while effects are
// carried out, and an effect may post again without deadlock.
//
// A Host owns the engines and devices of a node: it stages and unstages volumes,
// takes the devices of a previous daemon over when it starts, and starts an
// engine again, at a new epoch of the same attachment, when one stops by itself.
//
// Goroutines: an Engine owns one for each link being made and one for each
// proposal; Close joins them. A Host owns one for each staged volume and one
// that follows Raft's state; Run joins them.
package engine
