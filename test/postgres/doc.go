// Command postgres runs PostgreSQL on a Holdfast volume with three replicas while
// daemons and disks fail, and then looks whether a database would notice: `make
// postgres` on this machine, TestPostgres of test/e2e behind the kernel's NBD client
// in a guest. It is one program for both; flags say what the guest has.
//
// # What happens
//
// Three real daemons (test/harness), each with a file system of its own for its disk;
// a volume made, staged and mounted through CSI; `initdb --data-checksums` on it, as
// PostgreSQL's unprivileged user; pgbench. In turn a replica's daemon is killed,
// another one stopped (SIGSTOP), a third replica's disk filled; two fail at once, so
// that no majority of the Raft group is left; the daemon of the engine is killed; and
// PostgreSQL itself is killed, every process of it, and recovers from its own log.
// Each fault has a run of pgbench of its own, around the fault, and reports the
// longest time in which no transaction of any client committed.
//
// # The ledger
//
// Every transaction does what pgbench's own (TPC-B like) does, and inserts a row into
// the table ledger: run, client, number. The number is counted by a variable of the
// script, which lives as long as the client. pgbench's log (--log) has a line for
// each transaction whose COMMIT was acknowledged to it, with client and number: its
// own count of the client's transactions, which is the same number, because a client
// that meets an error gives up instead of going on. (It is also checked that there
// was no error at all.) So the log is the list of acknowledged IDs. It lies off the
// volume, in files of a process that is never killed: a run ends by its time, or by
// its connections when the server is killed, and pgbench writes the rest of its log
// either way. Its summary says how many transactions it processed, and that must be
// the number of lines. Hence pgbench, and not a client of our own: what would be ours
// to get wrong is small, and the load is one that people know.
//
// # Snapshots
//
// While pgbench runs, with faults and without, a snapshot is taken every few seconds
// through CSI. When the replicas are in sync again, each is restored into a volume,
// mounted on one node after another, and a second PostgreSQL recovers there from the
// log that it finds. The ledger in it holds every transaction acknowledged before the
// snapshot was asked for, none that began after it was answered, and of each client no
// other than its first ones; the sums agree, every page has its checksum, and some are
// read by pg_amcheck. Then the restored volume and the
// snapshot are deleted, and each disk has to give back what that was said to free.
//
// # What must hold
//
//   - no client sees an error, no line in PostgreSQL's log is worse than LOG, the
//     kernel reports no error of the volume's device;
//   - while one replica is away the database goes on;
//   - every acknowledged ID is in the ledger, and no other, except for at most one of
//     each client when the server was killed between commit and answer;
//   - the sums of the balances of accounts, tellers and branches, and of the history,
//     agree;
//   - pg_amcheck --heapallindexed --parent-check and pg_checksums are content;
//   - after unmounting, the three replicas, each read from its own disk, are equal;
//   - the volume starts PostgreSQL on another node, too.
//
// In the end each of these checks is shown a planted fault that it has to find. With
// SABOTAGE=<step> it is planted in the step itself, and the whole must fail.
//
// # Goroutines
//
// Each process that is started has one that reaps it. The program ends all processes
// itself, those of PostgreSQL by their IDs, and looks whether something is left.
package main
