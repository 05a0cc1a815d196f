// Package robustness runs real daemons through real trouble and then looks whether
// the volume kept its promises. Its long test is built with the tag robust and run
// by `make robustness`; the parts have tests of their own that `make test` runs.
//
// # A round
//
// One seed gives a round: three to five daemons, each in a network namespace of its
// own behind a bridge in another one, a disk each on a small file system of its
// own, and one volume with three replicas, shown as an NBD socket. Writers put a
// verified load on it while faults are drawn and mended one after the other:
// processes killed, frozen and restarted, links cut both ways or one way without a
// reset, disks filled, the volume moved to another node. Then everything is healed,
// and
//
//   - writes must flow again and all replicas be in sync within a bound;
//   - no request may have been answered with an error: I/O waits;
//   - the recorded history of each sector must be linearizable (check.go);
//   - the replicas, each read from its own disk, must equal each other and what the
//     volume reads as;
//   - taking everything away again must leave no process, mount, loop device,
//     socket, namespace or file behind (leaks.go).
//
// # What is written
//
// Every sector of 512 bytes that the load writes says which write it is of and where
// it belongs, under a CRC (sector.go). So a read tells, sector by sector, which write
// it saw, and bytes of another place or another volume are known at once. Requests
// are whole blocks of 4 KiB, as the export wants them; histories are kept by sector,
// because a crash may leave a block half new.
//
// # Outcomes
//
// A request whose connection ended before its answer is of unknown outcome. It may
// have happened, but not later than the moment at which the next connection was
// served: what the old one left is finished or dropped before (rules 4 and 29). The
// check holds the volume to that, so a write that was given up and reappears later
// is found.
//
// # Pauses
//
// For each kind of fault the longest time without any acknowledged write is
// reported, from the fault to its mending and from the mending until all replicas
// are in sync again. These are figures, not checks.
//
// # Goroutines
//
// A load owns its writers and the one that connects; stop joins them. Everything
// else runs on the goroutine of the test.
package robustness
