package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

const (
	dataName = "data"
	// unfinishedName is the data file until its format is complete.
	unfinishedName = "data.new"
)

// DiskOptions are those of a store in a real directory. Dir, Path, Device and
// Incarnation of the embedded Options are filled in.
type DiskOptions struct {
	Options
	// Engine is how I/O on the data file reaches the kernel; empty chooses.
	Engine vfs.Engine
	// Workers is the number of operations the kernel is given at once by threads; 0
	// chooses.
	Workers int
	// LockWait is how long OpenDisk waits for a lock that somebody has, such as the
	// last requests of a process that was killed.
	LockWait time.Duration
	// Spent is an incarnation under which the disk has failed, or zero. It is not opened
	// under that again: what was lost then would pass for durable.
	Spent block.Incarnation
	// Buffered goes through the page cache, for file systems without O_DIRECT.
	Buffered bool
}

// FormatDisk makes an empty store in the directory at path, which must exist and
// be empty but for lost+found and the remains of a format that was interrupted.
// Otherwise it fails with block.ErrExists.
func FormatDisk(path string, options DiskOptions, id Identity) error {
	if err := clearUnfinished(path); err != nil {
		return err
	}
	unfinished := filepath.Join(path, unfinishedName)
	dev, err := vfs.OpenOSDevice(unfinished, vfs.OSDeviceOptions{Workers: 1, Create: true, Buffered: options.Buffered})
	if err != nil {
		return fmt.Errorf("format disk: %w", err)
	}
	o := options.Options
	o.Dir, o.Path, o.Device = pebblevfs.Default, path, dev
	err = Format(o, id)
	if err == nil {
		// The name makes it a store.
		err = os.Rename(unfinished, filepath.Join(path, dataName))
	}
	if err == nil {
		err = syncDir(pebblevfs.Default, path)
	}
	return errors.Join(err, dev.Close())
}

// clearUnfinished refuses a directory with anything of value and removes the
// remains of an interrupted format.
func clearUnfinished(path string) error {
	names, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("format disk in %s: no such directory: %w", path, block.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("format disk: %w", err)
	}
	unfinished := false
	for _, entry := range names {
		switch name := entry.Name(); {
		case name == "lost+found":
		case name == unfinishedName:
			unfinished = true
		case name == metaName || strings.HasPrefix(name, journalPrefix):
		case name == dataName:
			return fmt.Errorf("format disk in %s: there is a store already: %w", path, block.ErrExists)
		default:
			return fmt.Errorf("format disk in %s: the directory is not empty: it has %s: %w", path, name, block.ErrExists)
		}
	}
	if !unfinished {
		if _, err := os.Stat(filepath.Join(path, metaName)); err == nil {
			return fmt.Errorf("format disk in %s: there is %s without a data file: %w", path, metaName, block.ErrExists)
		}
		return nil
	}
	// The lock tells a format that was interrupted from one that is going on.
	dev, err := vfs.OpenOSDevice(filepath.Join(path, unfinishedName), vfs.OSDeviceOptions{Workers: 1, Buffered: true})
	if err != nil {
		return fmt.Errorf("format disk: %w", err)
	}
	return errors.Join(os.RemoveAll(filepath.Join(path, metaName)), os.Remove(filepath.Join(path, unfinishedName)), dev.Close())
}

// OpenDisk opens the store in the directory at path. It fails with
// block.ErrNotFound if there is no store, block.ErrInUse if a process has it
// open, block.ErrForeign if it belongs to another cluster, block.ErrVersion if
// another version wrote it, and block.ErrCorrupt if it is damaged.
func OpenDisk(path string, options DiskOptions) (*Store, error) {
	data := filepath.Join(path, dataName)
	dev, err := vfs.OpenDevice(data, vfs.OSDeviceOptions{
		Engine: options.Engine, Workers: options.Workers, Buffered: options.Buffered,
		LockWait: options.LockWait, Logger: options.Logger,
	})
	if errors.Is(err, block.ErrNotFound) {
		return nil, fmt.Errorf("open disk in %s: it has not been formatted: %w", path, block.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	o := options.Options
	o.Dir, o.Path, o.Device = pebblevfs.Default, path, dev
	if o.Incarnation, err = vfs.SystemIncarnation(data); err != nil {
		return nil, errors.Join(fmt.Errorf("open disk in %s: %w", path, err), dev.Close())
	}
	if o.Incarnation == options.Spent {
		err := fmt.Errorf("open disk in %s: it has failed: unmount its file system and mount it again, or restart the machine, which shows whether it lost anything, then add it: %w",
			path, block.ErrDiskFailed)
		return nil, errors.Join(err, dev.Close())
	}
	s, err := Open(o)
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return s, nil
}
