package fuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	loopControl = "/dev/loop-control"
	// loopMajor is the major number of loop devices.
	loopMajor = 7
	// loopAttempts bounds the race for a free loop device.
	loopAttempts = 32
	// claimGrace is how long a claim on a loop device may take to go: the kernel
	// ends a mount a moment after umount(2) returned if something still held it.
	claimGrace = 2 * time.Second
	// retryPause is the pause between attempts at what the kernel, or a passing
	// opener such as udev, finishes in its own time.
	retryPause = 10 * time.Millisecond
)

// loopName is what a loop device of ours carries.
func loopName(a block.AttachmentID) string { return "holdfast-" + a.String() }

// attachLoop puts a loop device on a file of a FUSE file system and returns its
// path. The process that serves the file system must not do this: killed in the
// midst of it, it would wait for its own answer for ever.
func attachLoop(path string, a block.AttachmentID, blockSize int) (string, error) {
	// Not os.OpenFile: that asks the file system whether the file can be polled,
	// by a system call that the Go scheduler does not know to block.
	file, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	// The loop device has a reference of its own.
	defer func() { _ = unix.Close(file) }()
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open loop control: %w: %w", block.ErrUnavailable, err)
	}
	defer control.Close()
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("find free loop device: %w", err)
		}
		path, err := loopNode(n)
		if err != nil {
			return "", err
		}
		err = configureLoop(path, file, a, blockSize)
		if err == nil {
			return path, nil
		}
		// Somebody else was faster.
		if !errors.Is(err, unix.EBUSY) {
			return "", err
		}
	}
	return "", fmt.Errorf("find free loop device: %w", block.ErrUnavailable)
}

// loopNode returns the path of a loop device, making the node where nobody does.
func loopNode(n int) (string, error) {
	path := "/dev/loop" + strconv.Itoa(n)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n))))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return "", fmt.Errorf("make %s: %w", path, err)
		}
	}
	return path, nil
}

func configureLoop(path string, file int, a block.AttachmentID, blockSize int) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open loop device: %w", err)
	}
	defer device.Close()
	config := unix.LoopConfig{Fd: uint32(file), Size: uint32(blockSize)}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:], loopName(a))
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		return fmt.Errorf("configure %s: %w", path, err)
	}
	return nil
}

// loopIs reports whether a loop device is the one of an attachment.
func loopIs(path string, a block.AttachmentID) (bool, error) {
	device, err := os.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open loop device: %w", err)
	}
	defer device.Close()
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("status of %s: %w", path, err)
	}
	return unix.ByteSliceToString(info.File_name[:]) == loopName(a), nil
}

// findLoop returns the loop device of an attachment, "" when there is none.
func findLoop(a block.AttachmentID) (string, error) {
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return "", fmt.Errorf("list loop devices: %w", err)
	}
	for _, dir := range bound {
		path := "/dev/" + filepath.Base(filepath.Dir(dir))
		if is, err := loopIs(path, a); is || err != nil {
			return path, err
		}
	}
	return "", nil
}

// detachLoop takes the loop device of an attachment down and waits until it is
// gone. One that is mounted or otherwise held stays: block.ErrInUse.
func detachLoop(ctx context.Context, path string, a block.AttachmentID) error {
	ctx, cancel := context.WithTimeout(ctx, claimGrace)
	defer cancel()
	for {
		if is, err := loopIs(path, a); !is || err != nil {
			return err
		}
		err := claimAndClear(path)
		if err != nil && !errors.Is(err, block.ErrInUse) {
			return err
		}
		if pauseErr := pause(ctx); pauseErr != nil {
			if err == nil {
				err = block.ErrInUse
			}
			return fmt.Errorf("detach %s: %w: %w", path, err, pauseErr)
		}
	}
}

// claimAndClear clears a loop device that nobody has claimed. It is gone when
// the last opener, perhaps udev for a moment, has closed it.
func claimAndClear(path string) error {
	device, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", path, block.ErrInUse)
	}
	if err != nil {
		return fmt.Errorf("open loop device: %w", err)
	}
	defer device.Close()
	if err := clearLoop(device); err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	return nil
}

func clearLoop(device *os.File) error {
	err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}

// forceLoop lets a loop device go as soon as its last user does.
func forceLoop(path string, a block.AttachmentID) error {
	if is, err := loopIs(path, a); !is || err != nil {
		return err
	}
	device, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open loop device: %w", err)
	}
	defer device.Close()
	if err := clearLoop(device); err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	return nil
}

// loopSize is the size of a loop device in bytes.
func loopSize(path string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "size"))
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", path, err)
	}
	// Always in units of 512 bytes.
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", path, err)
	}
	return sectors * block.SectorSize, nil
}

// growLoop gives a loop device the size that its file has now.
func growLoop(path string) error {
	device, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open loop device: %w", err)
	}
	defer device.Close()
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", path, err)
	}
	return nil
}

// tuneLoop sets the queue of a loop device for requests of up to 1 MiB.
func tuneLoop(path string) error {
	queue := filepath.Join("/sys/block", filepath.Base(path), "queue")
	raw, err := os.ReadFile(filepath.Join(queue, "max_hw_sectors_kb"))
	if err != nil {
		return fmt.Errorf("tune %s: %w", path, err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return fmt.Errorf("tune %s: %w", path, err)
	}
	value := strconv.Itoa(min(limit, block.MaxTransfer>>10))
	if err := os.WriteFile(filepath.Join(queue, "max_sectors_kb"), []byte(value), 0); err != nil {
		return fmt.Errorf("tune %s: %w", path, err)
	}
	return nil
}

// pause waits a moment, or fails when ctx ends.
func pause(ctx context.Context) error {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
