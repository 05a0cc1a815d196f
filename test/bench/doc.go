// Command bench measures the data path and compares it with what it costs to have
// no Holdfast at all. It prints ratios of contenders that took turns in one run, on
// one machine, because figures of different days or machines cannot be compared.
//
//	go run ./test/bench -h
//
// By a word it measures something else instead, see below.
//
// # Contenders
//
//	raw        the preallocated, fully written file itself, by libaio and O_DIRECT
//	qemu-nbd   the same file behind qemu-nbd --cache=none
//	holdfast-1 a volume with one replica, on the node of its replica
//	holdfast-remote the same, attached on another node than that of its replica
//	holdfast-3 a volume with three replicas, one on each of three daemons
//
// All lie on one disk. fio puts the same load on each; all but the first are
// reached by fio's nbd engine over a unix socket, Holdfast by its socket frontend.
// Each was written to its last byte before anything is measured.
//
// # What is measured
//
// A measurement is one run of fio: one workload on one contender for a few seconds.
// A round is one of each; the contender that begins changes from workload to
// workload and from round to round. Of the rounds the report gives median and
// spread. A ratio is taken within a round, where the machine was the same for both,
// and the median of these ratios is reported.
//
// CPU is what the contender's servers used (all three daemons, whatever they did)
// from before fio started until after it ended, divided by the operations; fio's own
// is given apart. CPU that neither used is reported as that of others: it says
// whether the machine was quiet.
//
// With write+flush an operation is a write and a flush, and its latency the sum of
// the percentiles of both, which is an upper bound for the 99th. Writers that flush are
// jobs of fio, each with a connection of its own. How many flushes one sync of a disk has
// answered is their number, divided by the syncs that the daemons have counted, for each
// replica: what the daemons sync for themselves meanwhile counts too.
//
// fio's nbd engine knows no FUA. Durable writes come from this process: to the file by
// O_DIRECT and O_DSYNC, to the servers by our own NBD client, one after the other.
//
// # bench store
//
// A store is driven in this process, without daemon or network, and compared with its
// own data file, preallocated and fully written, of which fio, by io_uring, and our own
// I/O layer (internal/vfs) read and write the same blocks while the store is closed: of
// two files on one disk one was seen to be half as fast again as the other. The better of
// the two counts. Where fio overwrites the file, the store overwrites a volume, which is
// written anew for that, or writes one for the first time; its data file was written once
// before, else the file system's own first writes would be measured. With a cold map the
// store is opened with memory for a tenth of it. A load in this process begins the next
// request where the last one ended, so that it costs little itself.
//
// # bench frontend
//
// Our NBD server (internal/nbd) has memory for a back end, in a process of its own, which is
// this program once more; nbdkit's memory plugin is as large. fio loads both over unix
// sockets. So what is compared is what a request costs between socket and back end, and no
// disk is in the way.
//
// # bench postgres
//
// Four contenders have an ext4 on a block device each, and on it a PostgreSQL with checksums,
// its defaults, and the tables of pgbench:
//
//	file-loop   a preallocated file under a loop device with direct I/O
//	file-device such a file behind the device that a daemon would make for a volume: the
//	            kernel's NBD client, or FUSE under a loop device where the kernel has none
//	holdfast-1  a volume with one replica, on its node
//	holdfast-3  a volume with three replicas
//
// Between file-device and a volume, all that differs is what is behind the frontend: this
// process, which reads and writes the file by our own I/O layer, or a daemon. Devices are
// written to their last byte before they are formatted. In each round pgbench runs once on
// each; only the server of that contender runs then, started for it, after the one before
// has stopped in order. What it uses is CPU of clients; that of servers is of all daemons and
// of the helpers that serve FUSE, and for file-device of this process and its helper. What
// the kernel's threads use for loop devices is nobody's, and so shown as that of others.
//
// # bench profile
//
// One workload on one volume is measured, and then sampled by perf in all daemons, user
// mode and kernel. The table has the shares of what the code does (stages.go) and what
// that is of the CPU for an operation; a file for `go tool pprof` has the stacks.
//
// # bench idle
//
// Volumes with three replicas, spread over three daemons, are attached, each by a client
// of its own that writes and reads one block and stays connected. When intent logs have
// been cleared and the daemons use no less CPU than before, CPU and memory of all daemons
// together are compared with what they were before there were volumes. It fails if a
// target is missed.
//
// # bench scrub
//
// The rate that a volume with three replicas reaches is measured first; then half of it is
// put on, in turns without and beside a scrub, which is looked at ten times a second: a
// measurement in which it did not run, or came nowhere, is void. The ratio of the 99th
// percentiles is taken within a round. It fails if the target is missed.
//
// # What it leaves behind
//
// Nothing, also when it is interrupted: everything lies in one directory, and every
// process is ended. Root is needed only for PostgreSQL: devices are unmounted and detached.
package main
