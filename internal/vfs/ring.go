package vfs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What io_uring(7) names, with the numbers of include/uapi/linux/io_uring.h.
const (
	ringSetupCQSize       = 1 << 3
	ringSetupSingleIssuer = 1 << 12
	ringSetupDeferTaskrun = 1 << 13

	ringFeatureSingleMmap = 1 << 0
	ringFeatureNoDrop     = 1 << 1

	ringOffsetRings   = 0
	ringOffsetEntries = 0x10000000

	ringEnterGetEvents = 1 << 0

	ringSyncData = 1 << 0

	ringOpSync    = 3
	ringOpCancel  = 14
	ringOpRead    = 22
	ringOpWrite   = 23
	ringOpReceive = 27
)

// ringParams is struct io_uring_params: what setup is asked for, and where in the
// shared memory it put things.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32

	_  [3]uint32
	sq struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32

		_ uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, entries, flags, _ uint32

		_ uint64
	}
}

// ringSQE is struct io_uring_sqe, a submission.
type ringSQE struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset        uint64
	address       uint64
	length        uint32
	opFlags       uint32
	userData      uint64
	_             [3]uint64
}

// ringCQE is struct io_uring_cqe, a completion: result is a number of bytes or,
// negative, an errno.
type ringCQE struct {
	userData uint64
	result   int32
	flags    uint32
}

// ring is an io_uring: the memory shared with the kernel and the calls on it. Only
// the thread that made it may use it.
type ring struct {
	fd int
	// shared has the heads and tails and the completions, entries the submissions.
	shared, entries []byte

	sqMask, cqMask         uint32
	sqTail, cqHead, cqTail *uint32
	sqes                   []ringSQE
	cqes                   []ringCQE
	// unsubmitted are the newest submissions, which the kernel has not taken.
	unsubmitted uint32
}

// ringOwnThread has the kernel end operations on the thread that waits for them, when
// it waits, and interrupt nobody. It came with Linux 6.1.
const ringOwnThread = ringSetupSingleIssuer | ringSetupDeferTaskrun

// newRing makes a ring of depth submissions, a power of two, and twice as many
// completions, with these flags if the kernel knows them. It fails where the kernel
// has no io_uring, or one that is too old, or was told to refuse it.
func newRing(depth, flags uint32) (*ring, error) {
	params := ringParams{flags: ringSetupCQSize | flags, cqEntries: 2 * depth}
	fd, err := setupRing(depth, &params)
	if errors.Is(err, unix.EINVAL) && flags != 0 {
		return newRing(depth, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("io_uring_setup: %w", err)
	}
	r := &ring{fd: fd}
	const needed = ringFeatureSingleMmap | ringFeatureNoDrop
	if params.features&needed != needed {
		return nil, errors.Join(fmt.Errorf("io_uring has features %#x, %#x are needed: %w", params.features, needed, unix.ENOSYS), r.close())
	}
	if err := r.mapMemory(&params); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func setupRing(depth uint32, params *ringParams) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(depth), uintptr(unsafe.Pointer(params)), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func (r *ring) mapMemory(p *ringParams) (err error) {
	const sqeSize, cqeSize = uint32(unsafe.Sizeof(ringSQE{})), uint32(unsafe.Sizeof(ringCQE{}))
	const access, share = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(p.sq.array+4*p.sqEntries, p.cq.entries+cqeSize*p.cqEntries)
	if r.shared, err = unix.Mmap(r.fd, ringOffsetRings, int(size), access, share); err != nil {
		return fmt.Errorf("map the rings of io_uring: %w", err)
	}
	if r.entries, err = unix.Mmap(r.fd, ringOffsetEntries, int(sqeSize*p.sqEntries), access, share); err != nil {
		return fmt.Errorf("map the entries of io_uring: %w", err)
	}
	word := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.shared[offset])) }
	r.sqMask, r.cqMask = *word(p.sq.ringMask), *word(p.cq.ringMask)
	r.sqTail, r.cqHead, r.cqTail = word(p.sq.tail), word(p.cq.head), word(p.cq.tail)
	r.sqes = unsafe.Slice((*ringSQE)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*ringCQE)(unsafe.Pointer(&r.shared[p.cq.entries])), p.cqEntries)
	// Place i of the ring is entry i, for ever.
	for i := range p.sqEntries {
		*word(p.sq.array + 4*i) = i
	}
	return nil
}

// push adds a submission, for which there must be room.
func (r *ring) push(entry ringSQE) {
	tail := *r.sqTail
	r.sqes[tail&r.sqMask] = entry
	atomic.StoreUint32(r.sqTail, tail+1)
	r.unsubmitted++
}

// takeBack takes the newest submission back, of which the kernel has nothing yet,
// and returns its userData.
func (r *ring) takeBack() uint64 {
	tail := *r.sqTail - 1
	atomic.StoreUint32(r.sqTail, tail)
	r.unsubmitted--
	return r.sqes[tail&r.sqMask].userData
}

// enter submits what was pushed and waits until at least wait operations have
// ended. It returns early for a signal, and after a submission that the kernel
// refuses, whose completion then says why.
func (r *ring) enter(wait uint32) error {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.unsubmitted), uintptr(wait), ringEnterGetEvents, 0, 0)
	if errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		return errno
	}
	r.unsubmitted -= uint32(n)
	return nil
}

// reap moves completions to out and returns how many.
func (r *ring) reap(out []ringCQE) int {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	n := 0
	for ; head != tail && n < len(out); head++ {
		out[n] = r.cqes[head&r.cqMask]
		n++
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

func (r *ring) close() error {
	var errs []error
	for _, memory := range [][]byte{r.entries, r.shared} {
		if memory != nil {
			errs = append(errs, unix.Munmap(memory))
		}
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}
