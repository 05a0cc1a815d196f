// Package mtls proves to each other's satisfaction that two ends of a connection belong
// to the cluster: mutual TLS 1.3 with certificates from files that may change.
//
// # Who is who
//
// Both ends present a certificate that the cluster's authority (CA) has issued. Its DNS
// name says which role its holder has:
//
//	holdfast-node    a daemon: whoever is dialled has to be one, and whoever dials the
//	                 port for replicas or that for Raft
//	holdfast-client  a command line or a CSI plugin: it is let in at the control port only
//
// # Invariants
//
//   - A handshake with an end that has no certificate, or one of another authority, of
//     another role, not valid yet or no more, fails on both sides.
//   - Every handshake is a full one (no tickets), made with the files as last read.
//   - Files that cannot be used never replace those that can.
//
// # Goroutines
//
// Run looks at the files until its context ends. The rest has none.
package mtls
