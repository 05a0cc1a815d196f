// Package driver is the CSI plugin: it translates between the Container Storage
// Interface (version 1.13) and the control API of the local daemon.
//
// # Invariants
//
//   - It holds no state. What is published is asked of the daemon, what is staged
//     and published on this node is read from the kernel's mount table; the plugin
//     may be killed and started anywhere, at any time, between any two calls.
//   - Every call is idempotent. A call for a volume for which another is running
//     answers ABORTED, as the specification asks.
//   - Bad input changes nothing: a request is checked completely before the first
//     call to the daemon.
//   - A mount belongs to one attachment (package mount). A mount whose attachment
//     has ended is never reused and never mounted over: the call says what to do.
//   - Nothing is unstaged while it is mounted anywhere.
//   - Trimming gives way: a call for the volume ends it.
//   - Secrets are never logged.
//
// # Errors
//
// errors.go is the edge: one table turns what the daemon answers into the code
// that the specification has for the case. Sidecars and kubelet tell "failed" from
// "may have happened" by the code, so an unknown outcome is UNAVAILABLE, never
// INTERNAL.
//
// # Goroutines
//
// Run serves gRPC, which starts one goroutine for each call, and starts one that trims
// file systems. Run lets them finish before it returns; only one that sits in a system
// call waiting for frozen I/O, which nothing can interrupt, is left behind after a
// while.
package driver
