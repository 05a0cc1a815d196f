package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Disk is a small ext4 file system that can be filled: a ballast file decides how
// much of it is there for the store. Below a cluster's directory, the cluster's end
// unmounts it.
type Disk struct {
	// Path is where it is mounted.
	Path string
}

// NewDisk makes a file system on a block device, or in a new sparse file of that
// size if the path given names nothing yet, and mounts it. args are further ones for
// mkfs.ext4.
func NewDisk(ctx context.Context, path, device string, bytes int64, args ...string) (*Disk, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, err
	}
	options := "defaults"
	if _, err := os.Stat(device); errors.Is(err, os.ErrNotExist) {
		options = "loop"
		if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, bytes)); err != nil {
			return nil, err
		}
	}
	for _, command := range [][]string{
		append(append([]string{"mkfs.ext4", "-q", "-m", "0"}, args...), device),
		{"mount", "-o", options, device, path},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make disk %s: %s: %w: %s", path, command[0], err, out)
		}
	}
	d := &Disk{Path: path}
	return d, os.Mkdir(d.StorePath(), 0o750)
}

// StorePath is the directory for the store, which wants an empty one.
func (d *Disk) StorePath() string { return filepath.Join(d.Path, "store") }

func (d *Disk) ballastPath() string { return filepath.Join(d.Path, "ballast") }

// Leave takes what is free but for so many bytes, or gives back of it. What was taken
// before stays taken meanwhile: whoever waits for room would have it at once.
func (d *Disk) Leave(bytes int64) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(d.Path, &stat); err != nil {
		return fmt.Errorf("look at disk %s: %w", d.Path, err)
	}
	file, err := os.OpenFile(d.ballastPath(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	more := int64(stat.Bavail)*stat.Bsize - bytes
	if more > 0 {
		err = unix.Fallocate(int(file.Fd()), 0, info.Size(), more)
	} else {
		err = file.Truncate(max(info.Size()+more, 0))
	}
	if errors.Is(err, unix.ENOSPC) && bytes == 0 {
		err = nil // it took what there is
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("fill disk %s: %w", d.Path, err)
	}
	return nil
}

// Empty gives back what Leave took.
func (d *Disk) Empty() error {
	if err := os.Remove(d.ballastPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// FlipByte turns one byte of a file over, durably.
func FlipByte(path string, offset int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err = file.ReadAt(b[:], offset); err == nil {
		b[0] ^= 0xff
		_, err = file.WriteAt(b[:], offset)
	}
	return errors.Join(err, file.Sync(), file.Close())
}

// SyncFileSystem writes all that the kernel holds of the file system at path.
func SyncFileSystem(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}
