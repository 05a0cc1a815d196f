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
//
//	stops.go    processes killed, frozen and restarted; two or all at once; leaders
//	            of the Raft group killed in a row
//	cuts.go     a node or a link cut, both ways or one way, without a reset; among
//	            them the link of the engine's node with the Raft leader; all
//	            nodes parted into two sides
//	space.go    disks filled, by the load and from outside
//	cpu.go      all CPUs kept busy by others
//	moves.go    the volume moved in order and by force, staged and unstaged by
//	            several callers at once
//	weather.go  delay, loss, reordering, duplicates and a turned wall clock: in a
//	            guest only, where test/e2e runs them
//
// One kind aims at the Raft leader. Then everything is healed, and
//
//   - writes must flow again and all replicas be in sync within a bound;
//   - no request may have been answered with an error: I/O waits;
//   - the recorded history of each sector must be linearizable (check.go);
//   - the replicas, each read from its own disk, must equal each other and what the
//     volume reads as;
//   - no daemon may hold many more files open than before;
//   - taking everything away again must leave no process, open file, mount (in any
//     mount namespace, FUSE or not), loop device, socket, network namespace, nftables
//     or file behind (leaks.go).
//
// # Who checks the checks
//
// Each is shown what it is there for: TestCheck histories, TestLeftBehind leaks,
// TestLoad a server that lies, TestFlippedByte and TestPutBackDisk a disk that
// changed behind the product's back. TestCanary is the whole of it: daemons built
// with a bug of test/canaries, and without their own assertions, must be convicted by
// the history or by the comparison of the replicas; `make robustness CANARY=name`.
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
// are in sync again. These are figures, not checks, but for faults that name a bound
// of their own: a link between engine and leader that is cut for longer than writes
// may pause, and a wall clock that is turned, after which also nobody may have been
// removed or elected.
//
// # Goroutines
//
// A load owns its writers and the one that connects; stop joins them. Everything
// else runs on the goroutine of the test.
package robustness
