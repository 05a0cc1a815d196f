// Package harness runs real Holdfast processes on one machine: a cluster of
// daemons, each with a directory and a loopback address of its own, and CSI plugins
// beside them. Tests, the demo and the benchmarks start their clusters with it.
//
//	binaries, err := harness.Build(ctx, dir)
//	cluster, err := harness.Start(ctx, harness.Options{Binaries: binaries})
//	defer cluster.Stop(ctx)
//	disk, err := cluster.Nodes[0].AddDisk(ctx, "nvme")
//	volume, err := cluster.Nodes[1].Volumes().CreateVolume(ctx, ...)
//	cluster.Nodes[0].Kill()            // SIGKILL
//	cluster.Nodes[0].Start(ctx)        // the same node again
//
// In a test, New does the starting, the stopping and, if the test fails, prints the
// end of every log.
//
// # What it owns
//
// Everything of a cluster lies below one directory: <dir>/<node>/data, run, disks
// and the logs. Stop ends every process that was started, and every process that
// those left behind for the sake of a device (found by its command line, which
// names the directory), unmounts what is mounted below the directory, detaches
// loop devices whose files lie there, and removes the directory. Nothing else on
// the machine is touched.
//
// # Addresses
//
// Each cluster takes a random network 127.x.y.0/24, node i the address 127.x.y.i
// in it, with the same ports everywhere: no two clusters meet, and no address is
// taken by a connection of somebody else.
//
// # Waiting
//
// There are no pauses for something to have happened by then: Wait asks until it
// has, or its context ends.
package harness
