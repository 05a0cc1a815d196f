// Package holdfastv1 is the control API of the daemons, by gRPC. The .proto
// files beside it are its documentation; the Go code is generated from them by
// make generate.
package holdfastv1
