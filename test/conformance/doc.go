// Package conformance judges the CSI plugin from outside: real daemons, the real
// plugin, and gRPC. It holds csi-sanity, the specification's own test suite, and
// what a user must be told when a request is wrong.
//
// csi-sanity skips what a plugin does not announce. testdata/skips.txt names every
// test that is skipped, with the reason; the list is compared exactly, so that it
// shrinks with every capability and never grows unseen.
package conformance
