package vfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// OSDevice is a file on a real file system, read and written past the page
// cache by a fixed number of workers that it owns.
type OSDevice struct {
	path    string
	fd      int
	workers sync.WaitGroup

	growing sync.Mutex

	mu     sync.Mutex
	wake   sync.Cond
	first  *IO
	last   *IO
	idle   int
	closed bool
	size   int64
}

// OSDeviceOptions choose how a file is opened.
type OSDeviceOptions struct {
	// Workers is the number of operations the kernel is given at once; 0 means 32.
	Workers int
	// Create makes the file; it must not exist.
	Create bool
	// Buffered goes through the page cache, for file systems without O_DIRECT.
	Buffered bool
}

// OpenOSDevice opens the file at path and takes an exclusive lock on it, which
// excludes every other process and every other OSDevice. It fails with
// block.ErrInUse if the lock is taken, and with block.ErrNotFound if there is no
// file.
func OpenOSDevice(path string, options OSDeviceOptions) (*OSDevice, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
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
	if err := d.lock(); err != nil {
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

func (d *OSDevice) lock() error {
	err := unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB)
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

// Submit implements Device.
func (d *OSDevice) Submit(io *IO) {
	io.next = nil
	d.mu.Lock()
	if d.last == nil {
		d.first = io
	} else {
		d.last.next = io
	}
	d.last = io
	wake := d.idle > 0
	d.mu.Unlock()
	if wake {
		d.wake.Signal()
	}
}

func (d *OSDevice) work() {
	d.mu.Lock()
	for {
		io := d.first
		if io == nil {
			if d.closed {
				d.mu.Unlock()
				return
			}
			d.idle++
			d.wake.Wait()
			d.idle--
			continue
		}
		if d.first = io.next; d.first == nil {
			d.last = nil
		}
		io.next = nil
		d.mu.Unlock()
		io.Err = d.carryOut(io)
		io.Done(io)
		d.mu.Lock()
	}
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
	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("close %s: %w", d.path, err)
	}
	return nil
}
