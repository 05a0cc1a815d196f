package vfs

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// SystemIncarnation implements IncarnationOf on Linux.
//
// Boot is /proc/sys/kernel/random/boot_id. DiskSequence is the diskseq of the
// block device under path (of the whole disk for a partition); it changes when a
// device is unplugged, attached to another image or reset as a new disk.
// Superblock is drawn from the device number and from the inode of the file
// system's own directory in sysfs (/sys/fs/ext4/DEV, /sys/fs/xfs/DEV): the
// kernel makes that directory when the file system is mounted first and removes
// it with the last mount, and never gives its inode number again before a
// reboot. So a bind mount, a new mount namespace and a container restart keep
// it, and a real unmount and mount change it.
//
// Its limits: on a file system without such a directory only the device number
// counts, and a remount goes unseen; without sysfs the same is true and
// DiskSequence is zero. A drive that loses power while the machine keeps running
// and the device stays is not seen either; the flush numbers in the data file
// are the guard against that (rule 10).
func SystemIncarnation(path string) (block.Incarnation, error) {
	return incarnation(path, "/proc", "/sys")
}

func incarnation(path, proc, sys string) (inc block.Incarnation, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return inc, fmt.Errorf("stat %s: %w", path, err)
	}
	boot, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return inc, fmt.Errorf("read the machine's boot ID: %w", err)
	}
	inc.Boot, err = block.ParseID(strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", ""))
	if err != nil {
		return inc, fmt.Errorf("read the machine's boot ID: %w", err)
	}
	device, err := blockDevice(st.Dev, sys)
	if err != nil {
		return inc, err
	}
	if inc.DiskSequence, err = diskSequence(device); err != nil {
		return inc, err
	}
	instance, err := superblockInstance(device, sys)
	if err != nil {
		return inc, err
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d", st.Dev, instance)
	inc.Superblock = h.Sum64()
	return inc, nil
}

// blockDevice is the directory in sysfs of the block device with that number,
// empty if there is none.
func blockDevice(dev uint64, sys string) (string, error) {
	link := filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)))
	device, err := filepath.EvalSymlinks(link)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find block device: %w", err)
	}
	return device, nil
}

// diskSequence reads the diskseq of a device, or of the disk that a partition
// lies on.
func diskSequence(device string) (uint64, error) {
	if device == "" {
		return 0, nil
	}
	for _, dir := range []string{device, filepath.Dir(device)} {
		b, err := os.ReadFile(filepath.Join(dir, "diskseq"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read disk sequence: %w", err)
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read disk sequence in %s: %w", dir, err)
		}
		return n, nil
	}
	return 0, nil
}

// superblockInstance is the inode number of the directory that the file system
// on device has in sysfs, 0 if it has none.
func superblockInstance(device, sys string) (uint64, error) {
	if device == "" {
		return 0, nil
	}
	for _, kind := range []string{"ext4", "xfs", "f2fs"} {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(sys, "fs", kind, filepath.Base(device)), &st)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find superblock: %w", err)
		}
		return st.Ino, nil
	}
	return 0, nil
}
