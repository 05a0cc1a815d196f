package rawdisk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

const sysBlock = "/sys/class/block"

// device is a block device of this machine.
type device struct {
	// path is the device node, without symbolic links; name is the kernel's name.
	path, name string
	// dir is the device's directory in sysfs.
	dir          string
	major, minor uint32
}

// IsDevice reports whether path leads to a block device, rather than a directory;
// block.ErrInvalid if it is neither.
func IsDevice(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("%s: no such directory or device: %w", path, block.ErrNotFound)
	}
	if err != nil {
		return false, err
	}
	device := info.Mode().Type() == os.ModeDevice
	if !device && !info.IsDir() {
		return false, fmt.Errorf("%s is neither a directory nor a block device: %w", path, block.ErrInvalid)
	}
	return device, nil
}

// openDevice finds out which device path leads to.
func openDevice(path string) (device, error) {
	node, err := filepath.EvalSymlinks(path)
	if err != nil {
		return device{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return device{}, fmt.Errorf("stat %s: %w", node, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return device{}, fmt.Errorf("%s is not a block device: %w", path, block.ErrInvalid)
	}
	d := device{path: node, major: unix.Major(st.Rdev), minor: unix.Minor(st.Rdev)}
	d.dir, err = filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", d.major, d.minor))
	if err != nil {
		return device{}, fmt.Errorf("%s: the kernel has no such device: %w", path, block.ErrNotFound)
	}
	d.name = filepath.Base(d.dir)
	return d, nil
}

// number is how mountinfo names the device.
func (d *device) number() string { return fmt.Sprintf("%d:%d", d.major, d.minor) }

// attribute reads a number from sysfs, of the whole disk where a partition has none
// of its own; 0 if there is none.
func (d *device) attribute(name string) int64 {
	for _, dir := range []string{d.dir, filepath.Dir(d.dir)} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// size is in bytes.
func (d *device) size() int64 { return 512 * d.attribute("size") }

// partitions are the kernel's names of the partitions.
func (d *device) partitions() []string {
	found, _ := filepath.Glob(filepath.Join(d.dir, "*", "partition")) // the pattern is well-formed
	var names []string
	for _, path := range found {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	return names
}

// holders are the kernel's names of the devices that are built on this one.
func (d *device) holders() []string {
	entries, err := os.ReadDir(filepath.Join(d.dir, "holders"))
	if err != nil {
		return nil // partitions of some drivers have no such directory
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Label marks the file systems that this package makes.
const Label = "holdfast"

// superblockLength covers what is read of the superblock of XFS: magic at byte 0,
// UUID at 32, label at 108.
const superblockLength = 512

// readSuperblock is the UUID of the XFS on the device and whether this package made
// it; block.ErrNotFound if there is no XFS.
func readSuperblock(path string) (uuid string, ours bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	var b [superblockLength]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return "", false, fmt.Errorf("read %s: %w", path, err)
	}
	if string(b[:4]) != "XFSB" || binary.BigEndian.Uint32(b[4:]) == 0 {
		return "", false, fmt.Errorf("%s has no XFS: %w", path, block.ErrNotFound)
	}
	label, _, _ := bytes.Cut(b[108:120], []byte{0})
	return formatUUID(b[32:48]), string(label) == Label, nil
}

func formatUUID(b []byte) string {
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
