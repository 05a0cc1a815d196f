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
	for _, tool := range []string{"mount", "umount", "blkid", "fsck", "mkfs.ext4"} {
		if _, err := m.exec.LookPath(tool); errors.Is(err, exec.ErrNotFound) {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs not found: %v; install util-linux and e2fsprogs", missing)
	}
	return nil
}

// FormatAndMount mounts device at target, an existing directory, as fsType. A
// device that is empty is formatted first, any other is checked by fsck first;
// neither happens with the option "ro". It fails with ErrForeignData,
// ErrUnformatted or ErrDamaged and changes nothing then.
func (m *Mounter) FormatAndMount(ctx context.Context, device, target, fsType string, options []string) error {
	formatter := mountutils.NewSafeFormatAndMount(m.mounter, m.boundBy(ctx))
	if err := checkContent(formatter, device, fsType, slices.Contains(options, "ro")); err != nil {
		return fmt.Errorf("look at device %s: %w", device, err)
	}
	err := formatter.FormatAndMountSensitiveWithFormatOptions(device, target, fsType, options, nil, formatOptions(fsType))
	if err == nil {
		return nil
	}
	var mountErr mountutils.MountError
	if errors.As(err, &mountErr) && mountErr.Type == mountutils.HasFilesystemErrors {
		return fmt.Errorf("check device %s: %s: %w", device, mountErr.Message, ErrDamaged)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("mount %s at %s: %w", device, target, ctx.Err())
	}
	return fmt.Errorf("mount %s at %s: %w", device, target, err)
}

// checkContent refuses a device that formatting would hurt, or that holds
// another file system.
func checkContent(formatter *mountutils.SafeFormatAndMount, device, fsType string, readOnly bool) error {
	found, err := formatter.GetDiskFormat(device)
	switch {
	case err != nil:
		return fmt.Errorf("ask blkid: %w", err)
	case found == fsType:
		return nil
	case found != "":
		return fmt.Errorf("found %s where %s was asked for: %w", found, fsType, ErrForeignData)
	case readOnly:
		return ErrUnformatted
	}
	return checkEmpty(device)
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

// formatOptions are the options of mkfs. Blocks of 4 KiB match the volume's unit
// of checksums, also below 512 MiB, where mke2fs would choose 1 KiB; the volume is
// thin already, so that discarding all of it first would be idle work.
func formatOptions(fsType string) []string {
	if fsType != "ext4" {
		return nil
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
