package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	mountutils "k8s.io/mount-utils"
	utilexec "k8s.io/utils/exec"
)

var (
	// ErrForeignData: the device holds something other than the file system that
	// was asked for, and is left as it is.
	ErrForeignData = errors.New("device holds other data")
	// ErrUnformatted: a device without a file system was to be mounted read-only.
	ErrUnformatted = errors.New("device is not formatted")
	// ErrBusy: something still uses the mount.
	ErrBusy = errors.New("mount is in use")
	// ErrDamaged: fsck found errors that it could not correct.
	ErrDamaged = errors.New("file system is damaged")
)

// emptyCheckBytes is how much of a device without a signature must read as zeros
// before it is formatted.
const emptyCheckBytes = 1 << 20

// Mounter does the mounting in the mount namespace of the process.
type Mounter struct {
	mounter mountutils.Interface
	exec    utilexec.Interface
}

// New returns a Mounter.
func New() *Mounter {
	return &Mounter{mounter: mountutils.NewWithoutSystemd(""), exec: utilexec.New()}
}

// Check reports which of the tools that mounting needs are missing.
func (m *Mounter) Check() error {
	var missing []string
	for _, tool := range []string{
		"mount", "umount", "blkid", "fsck", "fstrim", "mkfs.ext4", "resize2fs", "mkfs.xfs", "xfs_admin", "xfs_growfs",
	} {
		if _, err := m.exec.LookPath(tool); errors.Is(err, exec.ErrNotFound) {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs not found: %v; install util-linux, e2fsprogs and xfsprogs", missing)
	}
	return nil
}

// Request is a file system that is to be mounted.
type Request struct {
	// Device is the block device, Target an existing directory.
	Device, Target string
	// FSType is "ext4" or "xfs".
	FSType string
	// Options are those of mount(8).
	Options []string
	// UUID is what an XFS is to be called, which is no other's name (see the package
	// comment). An ext4 keeps its own.
	UUID string
}

func (r Request) readOnly() bool { return slices.Contains(r.Options, "ro") }

// FormatAndMount mounts a file system. A device that is empty is formatted first,
// any other is checked first, and an XFS given its UUID; none of that happens with
// the option "ro". It fails with ErrForeignData, ErrUnformatted or ErrDamaged and
// changes nothing then.
func (m *Mounter) FormatAndMount(ctx context.Context, r Request) error {
	formatter := mountutils.NewSafeFormatAndMount(m.mounter, m.boundBy(ctx))
	formatted, err := checkContent(formatter, r)
	if err != nil {
		return fmt.Errorf("look at device %s: %w", r.Device, err)
	}
	options := r.Options
	if formatted && r.FSType == xfs {
		if options, err = m.identify(ctx, r); err != nil {
			return fmt.Errorf("give the file system on %s its UUID: %w", r.Device, err)
		}
	}
	err = formatter.FormatAndMountSensitiveWithFormatOptions(r.Device, r.Target, r.FSType, options, nil, formatOptions(r))
	if err == nil {
		return nil
	}
	var mountErr mountutils.MountError
	if errors.As(err, &mountErr) && mountErr.Type == mountutils.HasFilesystemErrors {
		return fmt.Errorf("check device %s: %s: %w", r.Device, mountErr.Message, ErrDamaged)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("mount %s at %s: %w", r.Device, r.Target, ctx.Err())
	}
	return fmt.Errorf("mount %s at %s: %w", r.Device, r.Target, err)
}

// checkContent refuses a device that formatting would hurt, or that holds another
// file system. It reports whether the right one is there already.
func checkContent(formatter *mountutils.SafeFormatAndMount, r Request) (formatted bool, err error) {
	found, err := formatter.GetDiskFormat(r.Device)
	switch {
	case err != nil:
		return false, fmt.Errorf("ask blkid: %w", err)
	case found == r.FSType:
		return true, nil
	case found != "":
		return false, fmt.Errorf("found %s where %s was asked for: %w", found, r.FSType, ErrForeignData)
	case r.readOnly():
		return false, ErrUnformatted
	}
	return false, checkEmpty(r.Device)
}

// checkEmpty fails unless the beginning of the device reads as zeros. blkid alone
// cannot tell: it answers "nothing found" for a device it could not read, too.
func checkEmpty(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, emptyCheckBytes))
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(head, func(b byte) bool { return b != 0 }); i >= 0 {
		return fmt.Errorf("no file system, but data at byte %d: %w", i, ErrForeignData)
	}
	return nil
}

// formatOptions are the options of mkfs. The volume is thin already, so that
// discarding all of it first would be idle work. Blocks of 4 KiB match the volume's
// unit of checksums; mke2fs would choose 1 KiB below 512 MiB.
func formatOptions(r Request) []string {
	if r.FSType == xfs {
		options := []string{"-K"}
		if r.UUID != "" {
			options = append(options, "-m", "uuid="+r.UUID)
		}
		return options
	}
	return []string{"-b", "4096", "-E", "nodiscard"}
}

// Bind shows source, a directory or a device node, at target, which must exist
// and be of the same kind.
func (m *Mounter) Bind(source, target string, readOnly bool) error {
	options := []string{"bind"}
	if readOnly {
		options = append(options, "ro")
	}
	if err := m.mounter.Mount(source, target, "", options); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	return nil
}

// Unmount takes the topmost mount off target.
func (m *Mounter) Unmount(target string) error {
	err := m.mounter.Unmount(target)
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "target is busy"): // the words of umount(8)
		return fmt.Errorf("unmount %s: %w", target, ErrBusy)
	default:
		return fmt.Errorf("unmount %s: %w", target, err)
	}
}

// Point is one mount of a volume.
type Point struct {
	Path string
	// Device names the attachment the mount belongs to.
	Device DeviceName
	// Major and Minor are the number of the device the mount shows.
	Major, Minor uint32
	// FSType is empty for a mount of the device node itself.
	FSType   string
	ReadOnly bool
}

// Mounts lists the mounts of volumes that this process sees, whatever made them.
// Mounts of anything else are not listed; see IsMounted.
func (m *Mounter) Mounts(devices Devices) ([]Point, error) {
	infos, err := mountutils.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	var points []Point
	for i := range infos {
		if p, ok := devices.point(&infos[i]); ok {
			points = append(points, p)
		}
	}
	return points, nil
}

// IsMounted reports whether anything at all is mounted at path. A path that does
// not exist is not.
func (m *Mounter) IsMounted(path string) (bool, error) {
	mounted, err := m.mounter.IsMountPoint(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a mount at %s: %w", path, err)
	}
	return mounted, nil
}

// Resolve is path without symbolic links, as the mount table shows it, even if
// its last element does not exist yet.
func Resolve(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(parent, filepath.Base(path))
	}
	return filepath.Clean(path)
}

// boundExec makes commands by a function of its own.
type boundExec struct {
	utilexec.Interface
	command func(name string, args ...string) utilexec.Cmd
}

// Command implements utilexec.Interface.
func (e boundExec) Command(name string, args ...string) utilexec.Cmd { return e.command(name, args...) }

// boundBy runs every command until the context ends, for a library that passes
// none.
func (m *Mounter) boundBy(ctx context.Context) utilexec.Interface {
	return boundExec{Interface: m.exec, command: func(name string, args ...string) utilexec.Cmd {
		return m.exec.CommandContext(ctx, name, args...)
	}}
}
