// Command reliability measures what Holdfast promises for bad times, each promise by
// enough samples to hold it against its limit, on real daemons in network namespaces
// with a verified load. docs/reliability.md says what the figures mean.
//
//	make reliability ONLY=replica-dies,busy SAMPLES=20 DURATION=10m
//	go run ./test/reliability -h
//
// # A line
//
// Each line has a cluster of its own: three daemons, one volume with a replica on
// each, shown as an NBD socket. Trouble is made once for each sample, and all
// replicas are in sync again before the next. With 100 samples or more the 99th
// percentile is judged, with fewer the maximum; and a missed limit makes the exit
// code 1.
//
// # The load
//
// Writers put stamped blocks at random places, each block by one writer, so that of
// each block it is known which write was acknowledged last (ledger.go). A pause is
// the longest time between two acknowledged writes of all writers together. Each
// line ends with reading the whole volume back, judging each block, and comparing it
// with every replica on its own disk. A request that is answered with an error ends
// the line as failed: I/O waits, it does not fail.
//
// # What it leaves behind
//
// Nothing, also when it is interrupted. It needs root, and the packages that
// build/deps.sh names for it.
package main
