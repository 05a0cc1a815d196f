package vfs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// OSDevice is a file on a real file system, read and written past the page
// cache by a fixed number of workers that it owns.
type OSDevice struct {
	path    string
	fd      int
	workers sync.WaitGroup

	growing sync.Mutex

	mu   sync.Mutex
	wake sync.Cond
	// queue is what waits for a worker; transfers counts the reads and writes in it
	// and those that the workers have.
	queue     ioQueue
	transfers int
	// idle workers sleep; finishing ones call Done and come for more at once.
	idle, finishing int

	closed bool
	size   int64
	// loop is who could read the sockets of those whose operations end here, nil for
	// nobody.
	loop turn.Loop
}

// Engine is how the operations of a device reach the kernel.
type Engine string

const (
	// EngineAuto is io_uring where the kernel allows it, else threads.
	EngineAuto Engine = "auto"
	// EngineUring is io_uring or nothing.
	EngineUring Engine = "io_uring"
	// EngineThreads is a thread for each operation under way.
	EngineThreads Engine = "threads"
)

// ParseEngine reads the name of an engine, empty for EngineAuto; others are
// block.ErrInvalid.
func ParseEngine(name string) (Engine, error) {
	switch e := Engine(name); e {
	case "":
		return EngineAuto, nil
	case EngineAuto, EngineUring, EngineThreads:
		return e, nil
	default:
		return "", fmt.Errorf("%q: want auto, io_uring or threads: %w", name, block.ErrInvalid)
	}
}

// OSDeviceOptions choose how a file is opened.
type OSDeviceOptions struct {
	// Engine is EngineAuto if empty.
	Engine Engine
	// Workers is the number of operations the kernel is given at once by threads;
	// 0 means 32.
	Workers int
	// Create makes the file; it must not exist.
	Create bool
	// ReadOnly opens a file that may lie on a medium that cannot be written; the lock
	// is the same.
	ReadOnly bool
	// Buffered goes through the page cache, for file systems without O_DIRECT.
	Buffered bool
	// LockWait is how long a lock that somebody has is waited for. The requests of a
	// process that was killed may hold it for as long as the disk works on them.
	LockWait time.Duration
	// Logger is told why there is no io_uring; nil for nobody.
	Logger *slog.Logger
}

// OpenDevice opens the file at path by the engine of the options. It takes an
// exclusive lock on it, which excludes every other process and every other device
// here, and fails with block.ErrInUse if the lock is taken, and with
// block.ErrNotFound if there is no file.
func OpenDevice(path string, options OSDeviceOptions) (Device, error) {
	d, err := OpenOSDevice(path, options)
	if err != nil || options.Engine == EngineThreads {
		return d, err
	}
	u, err := startUring(d, options.Logger)
	switch {
	case err == nil:
		return u, nil
	case options.Engine == EngineUring:
		return nil, errors.Join(fmt.Errorf("open %s: %w: %w", path, err, block.ErrUnavailable), d.Close())
	case options.Logger != nil:
		options.Logger.Info("no io_uring here, threads do its work", "path", path, "err", err)
	}
	return d, nil
}

// OpenOSDevice opens the file as OpenDevice does, for threads.
func OpenOSDevice(path string, options OSDeviceOptions) (*OSDevice, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if options.ReadOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if options.Create {
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	if !options.Buffered {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(path, flags, 0o600)
	if err != nil {
		return nil, openError(path, err)
	}
	d := &OSDevice{path: path, fd: fd}
	d.wake.L = &d.mu
	if err := d.lock(options.LockWait); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	workers := options.Workers
	if workers <= 0 {
		workers = 32
	}
	for range workers {
		d.workers.Go(d.work)
	}
	return d, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open %s: %w", path, block.ErrNotFound)
	case errors.Is(err, os.ErrExist):
		return fmt.Errorf("create %s: %w", path, block.ErrExists)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("open %s: the file system cannot bypass the page cache (O_DIRECT): %w", path, block.ErrInvalid)
	default:
		return fmt.Errorf("open %s: %w", path, err)
	}
}

func (d *OSDevice) lock(wait time.Duration) error {
	err := d.tryLock(wait)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: another process has it open: %w", d.path, block.ErrInUse)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", d.path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", d.path, err)
	}
	d.size = st.Size
	return nil
}

// tryLock takes the lock as soon as it is free, or fails after wait. The kernel
// tells nobody that it has become free who does not wait for ever, so it is asked
// again and again.
func (d *OSDevice) tryLock(wait time.Duration) error {
	const pause = 10 * time.Millisecond
	again := time.NewTicker(pause)
	defer again.Stop()
	for deadline := time.Now().Add(wait); ; <-again.C {
		err := retryInterrupted(func() error { return unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB) })
		if !errors.Is(err, unix.EWOULDBLOCK) || !time.Now().Before(deadline) {
			return err
		}
	}
}

// Submit implements Device.
func (d *OSDevice) Submit(io *IO) {
	io.next, io.rest = nil, nil
	d.mu.Lock()
	d.enqueue(io)
}

// enqueue gives io, with what is joined to it, to the workers and unlocks mu, which
// is held.
func (d *OSDevice) enqueue(io *IO) {
	d.queue.push(io)
	if io.transfers() {
		_, count := io.joined()
		d.transfers += count
	}
	wake := d.idle > 0 && d.queue.length > d.finishing
	d.mu.Unlock()
	if wake {
		d.wake.Signal()
	}
}

// yieldEvery is after how many operations a worker lets Go's scheduler pass. A worker that
// always finds the next one is never scheduled anew, and the runtime takes it for one that
// has run all the time although it waits for the disk: after 10 ms it takes the processor
// away in the calls that follow and looks for others to use it, on the CPU that the disk
// needs. That cost a seventh of the operations of a disk that takes 80 us for each.
const yieldEvery = 32

func (d *OSDevice) work() {
	done := 0
	var own turn.Turn
	d.mu.Lock()
	for {
		if d.queue.first == nil {
			if d.closed {
				d.mu.Unlock()
				return
			}
			d.idle++
			d.wake.Wait()
			d.idle--
			continue
		}
		io := d.queue.take()
		d.mu.Unlock()
		transferred := d.carryOutAll(io)
		d.mu.Lock()
		d.transfers -= transferred
		d.finishing++
		if own.Loop() != d.loop {
			own = turn.Of(d.loop)
		}
		d.mu.Unlock()
		io.done(&own)
		own.End()
		if done++; done%yieldEvery == 0 {
			runtime.Gosched()
		}
		d.mu.Lock()
		d.finishing--
	}
}

// carryOutAll carries io out with what is joined to it, and returns how many of them
// are transfers. When they fail together each is tried alone, for its own result.
func (d *OSDevice) carryOutAll(io *IO) (transfers int) {
	data, count := io.joined()
	if io.transfers() {
		transfers = count
	}
	if count > 1 {
		all := IO{Kind: io.Kind, Offset: io.Offset, Data: data}
		if d.carryOut(&all) == nil {
			for ; io != nil; io = io.rest {
				io.Err = nil
			}
			return transfers
		}
	}
	for ; io != nil; io = io.rest {
		io.Err = d.carryOut(io)
	}
	return transfers
}

func (d *OSDevice) carryOut(io *IO) error {
	switch io.Kind {
	case Read:
		return d.read(io)
	case Write:
		return d.write(io)
	case Sync:
		return d.classify("sync", 0, retryInterrupted(func() error { return unix.Fdatasync(d.fd) }))
	case Discard:
		const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		return d.classify("discard", io.Offset, retryInterrupted(func() error {
			return unix.Fallocate(d.fd, mode, io.Offset, io.Length)
		}))
	default:
		return fmt.Errorf("device %s: operation %d: %w", d.path, io.Kind, block.ErrInvalid)
	}
}

func (d *OSDevice) read(io *IO) error {
	for done := 0; done < len(io.Data); {
		n, err := unix.Pread(d.fd, io.Data[done:], io.Offset+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return d.classify("read", io.Offset+int64(done), err)
		case n == 0:
			clear(io.Data[done:])
			return nil
		default:
			done += n
		}
	}
	return nil
}

func (d *OSDevice) write(io *IO) error {
	for done := 0; done < len(io.Data); {
		n, err := unix.Pwrite(d.fd, io.Data[done:], io.Offset+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return d.classify("write", io.Offset+int64(done), err)
		default:
			done += n
		}
	}
	return nil
}

// classify turns what the kernel said into the sentinels of Device.
func (d *OSDevice) classify(verb string, offset int64, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s %s at %d: %w", verb, d.path, offset, block.ErrNoSpace)
	default:
		return fmt.Errorf("%s %s at %d: %w: %w", verb, d.path, offset, block.ErrDiskFailed, err)
	}
}

func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Size implements Device.
func (d *OSDevice) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// Grow implements Device. It allocates the blocks, so that later writes cannot
// run out of space, and makes the new size durable.
func (d *OSDevice) Grow(size int64) error {
	d.growing.Lock()
	defer d.growing.Unlock()
	old := d.Size()
	if size <= old {
		return nil
	}
	err := retryInterrupted(func() error { return unix.Fallocate(d.fd, 0, old, size-old) })
	if err == nil {
		err = retryInterrupted(func() error { return unix.Fdatasync(d.fd) })
	}
	if err != nil {
		return d.classify("grow", size, err)
	}
	d.mu.Lock()
	d.size = size
	d.mu.Unlock()
	return nil
}

// Free implements Device.
func (d *OSDevice) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w: %w", d.path, block.ErrDiskFailed, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Close implements Device.
func (d *OSDevice) Close() error {
	d.mu.Lock()
	already := d.closed
	d.closed = true
	d.mu.Unlock()
	if already {
		return nil
	}
	d.wake.Broadcast()
	d.workers.Wait()
	// The lock is given back by a call of its own: the kernel may hold the file for a
	// moment longer.
	if err := errors.Join(unix.Flock(d.fd, unix.LOCK_UN), unix.Close(d.fd)); err != nil {
		return fmt.Errorf("close %s: %w", d.path, err)
	}
	return nil
}
