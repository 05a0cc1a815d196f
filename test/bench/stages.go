package main

import (
	"bufio"
	"io"
	"slices"
	"strings"
)

// codeStage is a part of what a request costs: code that does one kind of thing.
type codeStage struct {
	title string
	// functions begin like these.
	prefixes []string
}

// module is the prefix of the product's own functions.
const module = "github.com/holdfast-io/holdfast/"

// codeStages are tried in this order for each function of a stack, from where the sample
// was taken outwards; the first function that is of any decides.
var codeStages = []codeStage{
	{"threads: futex, epoll, switches, Go's scheduler", []string{
		"schedule", "__schedule", "finish_task_switch", "do_futex", "futex_", "do_epoll_wait", "ep_poll", "eventfd_write",
		"try_to_wake_up", "wake_up_q", "do_nanosleep", "__x64_sys_sched_yield", "runtime.findRunnable", "runtime.schedule",
		"runtime.park_m", "runtime.futex", "runtime.netpoll", "runtime.usleep", "runtime.stealWork", "runtime.wakep", "runtime.ready",
		"runtime.startm", "runtime.stopm", "runtime.coroswitch_m", "runtime.exitsyscall", "runtime.reentersyscall", "runtime.entersyscall",
	}},
	{"TCP between the nodes, both sides", []string{"tcp_", "__tcp_", "ip_", "__ip_", "inet_", "__inet_", "net_rx_action", "process_backlog", "loopback_", "dev_"}},
	{"unix socket to the client", []string{"unix_"}},
	{"the disk: file system, block layer, doorbell", []string{
		"ext4_", "iomap_", "blk_", "__blk_", "bio_", "submit_bio", "dd_", "virtio", "virtqueue_", "vp_notify", "iowrite", "io_submit_sqes",
		"io_issue_sqe", "__io_issue_sqe", "io_write", "io_read", "__x64_sys_pwrite64", "__x64_sys_pread64", "__io_run_local_work", "io_cqring_wait",
		"vfs_fsync", "jbd2_", "xfs_", "generic_perform_write",
	}},
	{"interrupts", []string{"asm_", "sysvec_", "common_interrupt", "handle_softirqs", "__irq_exit_rcu", "irq_"}},
	{"clock", []string{"__x64_sys_clock_gettime", "runtime.nanotime", "time.Now", "time.now", module + "internal/clock."}},
	{"other system calls", []string{"do_syscall_64", "entry_SYSCALL_64"}},
	{"CRC32C", []string{"hash/crc32."}},
	{"garbage collector", []string{"runtime.gcBgMarkWorker", "runtime.gcDrain", "runtime.bgsweep", "runtime.bgscavenge"}},
	{"sockets, turns and the NBD server", []string{module + "internal/nbd.", module + "internal/socket.", module + "internal/turn.", module + "engine/frontend"}},
	{"frames between engine and replica", []string{module + "internal/wire."}},
	{"engine (core and shell)", []string{module + "engine"}},
	{"store and replica server", []string{module + "replica/", "github.com/cockroachdb/"}},
	{"handing I/O to the kernel and back", []string{module + "internal/vfs."}},
	{"Raft, gRPC", []string{module + "cluster", "github.com/hashicorp/", "google.golang.org/", "net/http."}},
}

// otherCode is the stage of what no stage knows.
const otherCode = "the rest"

// stageOf is the title of a stack's stage. The stack begins where the sample was taken.
func stageOf(stack []string) string {
	for _, function := range stack {
		for _, s := range codeStages {
			if slices.ContainsFunc(s.prefixes, func(prefix string) bool { return strings.HasPrefix(function, prefix) }) {
				return s.title
			}
		}
	}
	return otherCode
}

// readStacks reads what `perf script -F ip,sym` prints: for each sample a line for each
// function, from where it was taken outwards, and an empty line.
func readStacks(r io.Reader, each func(stack []string)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var stack []string
	end := func() {
		if len(stack) > 0 {
			each(stack)
		}
		stack = stack[:0]
	}
	for lines.Scan() {
		_, function, found := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		switch {
		case found:
			stack = append(stack, function)
		case lines.Text() == "":
			end()
		}
	}
	end()
	return lines.Err()
}
