// Package core is the mirroring protocol of one attached volume: a pure step
// machine that is given events (client requests, replies
// of replicas, lost links, outcomes of proposals, the passing of time) and
// answers with effects (connect, send, propose, complete). It starts no
// goroutine, reads no clock, draws no random number and iterates over no map
// where the order could show, so that the same events always give the same
// effects and the very code that runs in production can be driven by a
// simulator.
//
// Ownership. A Core belongs to one goroutine. The effects that Effects returns
// are valid until the next Step.
//
// Buffers. An event hands one reference of each buffer in it to the core. Each
// EffectSend and EffectComplete hands one reference out. The core keeps a
// reference of its own for as long as it may have to send a request again.
//
// Invariants, by the file that keeps them (the rules are explained in
// engine/DESIGN.md):
//
//	attach.go   nothing is served before every member of the view acknowledged
//	            the epoch, stored the view and the dirty sets, and older leases
//	            are waited out
//	propose.go  one proposal at a time; until its outcome is known, need()
//	            holds the members before and after it
//	write.go    an acknowledged write is on every member of need()
//	flush.go    a completed flush was finished by every member of need()
//	lease.go    a read is sent only under a lease answered by all of need()
//	log.go      a region leaves the intent logs only when nobody can lack it
//	            without a durable dirty mark
//	repair.go   divergent blocks are equal on all members before they are read
//	scrub.go    nothing is called verified that was not read on every replica it is
//	            said of; nothing is reported or repaired on the word of hashes that
//	            were taken while a write was under way
//	target.go   a target is proposed only when it has everything durably
//	cut.go      no write is under way while the members take a cut, and it is
//	            proposed when all of them have it durably
//	copy.go     a chunk is compared in every layer that is not valid, oldest first
//	grow.go     nobody is sent a write past the end that he has
package core
