package robustness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/replica/store"
)

// diskBytes is the size of a disk's file system: what the store reserves for its
// metadata, the volume, and what the file system itself takes.
const diskBytes = store.DefaultReserve + 384*mebibyte

// disk is a small file system on a loop device, mounted where a node expects its
// disk. The cluster's end unmounts it. A ballast file decides how much of it is
// there for the store.
type disk struct {
	path  string
	image string
}

// newDisk makes and mounts the file system.
func newDisk(ctx context.Context, path, image string) (*disk, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, err
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, diskBytes); err != nil {
		return nil, err
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", image},
		{"mount", "-o", "loop", image, path},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make disk %s: %s: %w: %s", path, command[0], err, out)
		}
	}
	// A store wants an empty directory; this one also keeps the ballast out of it.
	return &disk{path: path, image: image}, errors.Join(os.Mkdir(filepath.Join(path, "store"), 0o750))
}

// storePath is the directory for the store.
func (d *disk) storePath() string { return filepath.Join(d.path, "store") }

func (d *disk) ballastPath() string { return filepath.Join(d.path, "ballast") }

// leave takes what is free but for so many bytes.
func (d *disk) leave(bytes int64) error {
	if err := d.empty(); err != nil {
		return err
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(d.path, &stat); err != nil {
		return fmt.Errorf("look at disk %s: %w", d.path, err)
	}
	take := int64(stat.Bavail)*stat.Bsize - bytes
	if take <= 0 {
		return nil
	}
	file, err := os.Create(d.ballastPath())
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(file.Fd()), 0, 0, take)
	if errors.Is(err, unix.ENOSPC) && bytes == 0 {
		err = nil // it took what there is
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("fill disk %s: %w", d.path, err)
	}
	return nil
}

// empty gives back what leave took.
func (d *disk) empty() error {
	if err := os.Remove(d.ballastPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
