package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"

	"github.com/holdfast-io/holdfast/internal/block"
)

// ErrNotBlockDevice: the path is not a block device.
var ErrNotBlockDevice = errors.New("not a block device")

// deletedSuffix is what the kernel appends to the root of a bind mount whose file
// was removed.
const deletedSuffix = "//deleted"

// DeviceName names the device of one attachment of a volume.
type DeviceName struct {
	Volume     block.VolumeID
	Attachment block.AttachmentID
}

// String is the name of the device node.
func (n DeviceName) String() string { return n.Volume.String() + "-" + n.Attachment.String() }

// UUID is the ID of the volume in the form of a UUID.
func (n DeviceName) UUID() string {
	id := n.Volume.String()
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// parseDeviceName reads what String prints.
func parseDeviceName(s string) (DeviceName, bool) {
	volume, attachment, found := strings.Cut(s, "-")
	if !found {
		return DeviceName{}, false
	}
	var n DeviceName
	var err error
	if n.Volume.ID, err = block.ParseID(volume); err != nil {
		return DeviceName{}, false
	}
	if n.Attachment.ID, err = block.ParseID(attachment); err != nil {
		return DeviceName{}, false
	}
	return n, true
}

// Devices is the directory of the device nodes, /dev/holdfast unless a test
// chooses another on a file system that allows devices.
type Devices string

// DefaultDevices is where the nodes are.
const DefaultDevices = Devices("/dev/holdfast")

// Path is the node of an attachment.
func (d Devices) Path(name DeviceName) string { return filepath.Join(string(d), name.String()) }

// Link makes the node of an attachment with the number of the block device at
// path and returns that number. A node that has another number is replaced.
func (d Devices) Link(name DeviceName, path string) (major, minor uint32, err error) {
	var want unix.Stat_t
	if err := unix.Stat(path, &want); err != nil {
		return 0, 0, fmt.Errorf("look at device %s: %w", path, err)
	}
	if want.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("look at device %s: %w", path, ErrNotBlockDevice)
	}
	major, minor = unix.Major(want.Rdev), unix.Minor(want.Rdev)
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return 0, 0, fmt.Errorf("make device directory: %w", err)
	}
	node := d.Path(name)
	var have unix.Stat_t
	switch err := unix.Lstat(node, &have); {
	case err == nil && have.Mode&unix.S_IFMT == unix.S_IFBLK && have.Rdev == want.Rdev:
		return major, minor, nil
	case err == nil:
		if err := os.Remove(node); err != nil {
			return 0, 0, fmt.Errorf("replace device node: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return 0, 0, fmt.Errorf("look at device node %s: %w", node, err)
	}
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(want.Rdev)); err != nil {
		return 0, 0, fmt.Errorf("make device node %s: %w", node, err)
	}
	return major, minor, nil
}

// List names the nodes of a volume.
func (d Devices) List(volume block.VolumeID) ([]DeviceName, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list device nodes: %w", err)
	}
	var names []DeviceName
	for _, entry := range entries {
		if name, ok := parseDeviceName(entry.Name()); ok && name.Volume == volume {
			names = append(names, name)
		}
	}
	return names, nil
}

// Remove removes the node of an attachment. Removing what is not there succeeds.
func (d Devices) Remove(name DeviceName) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove device node: %w", err)
	}
	return nil
}

// Busy reports whether the kernel holds the device for a file system, in whatever
// mount namespace. A device that is gone is not busy.
func (d Devices) Busy(name DeviceName) (bool, error) {
	fd, err := unix.Open(d.Path(name), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return false, unix.Close(fd)
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EIO):
		return false, nil
	default:
		return false, fmt.Errorf("probe device %s: %w", d.Path(name), err)
	}
}

// point reads one line of the mount table: a file system whose source is a node
// of ours, or a bind mount of such a node itself. The latter shows the path of the
// node inside its own file system, of which only the end is known for certain.
func (d Devices) point(info *mountutils.MountInfo) (Point, bool) {
	p := Point{
		Path:     info.MountPoint,
		Major:    uint32(info.Major),
		Minor:    uint32(info.Minor),
		FSType:   info.FsType,
		ReadOnly: slices.Contains(info.MountOptions, "ro"),
	}
	if filepath.Dir(info.Source) == string(d) {
		name, ok := parseDeviceName(filepath.Base(info.Source))
		p.Device = name
		return p, ok
	}
	root := strings.TrimSuffix(info.Root, deletedSuffix)
	if filepath.Base(filepath.Dir(root)) != filepath.Base(string(d)) {
		return Point{}, false
	}
	name, ok := parseDeviceName(filepath.Base(root))
	if !ok {
		return Point{}, false
	}
	p.Device, p.FSType = name, ""
	if major, minor, err := number(info.MountPoint); err == nil {
		p.Major, p.Minor = major, minor
	}
	return p, true
}

// number is the device number of the node at path.
func number(path string) (major, minor uint32, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, 0, err
	}
	return unix.Major(stat.Rdev), unix.Minor(stat.Rdev), nil
}
