package rawdisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// mountPoint is a line of mountinfo.
type mountPoint struct{ device, point string }

// readMounts lists what is mounted in the namespace of this process.
func readMounts() ([]mountPoint, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []mountPoint
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			return nil, fmt.Errorf("mountinfo has the line %q: %w", line, block.ErrInvalid)
		}
		mounts = append(mounts, mountPoint{device: fields[2], point: unescape(fields[4])})
	}
	return mounts, nil
}

// unescape undoes how mountinfo writes blanks: a backslash and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// findTimeout bounds the wait for devices that do not answer.
const findTimeout = 5 * time.Second

// Find is the device node whose file system has the UUID; block.ErrNotFound if there is
// none, and block.ErrExists if there are several, of which one is a copy (rule 1). A
// device on which another one is built is left out: it shows what that one holds.
func Find(ctx context.Context, uuid string) (path string, err error) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	asked := 0
	answers := make(chan string, len(entries))
	for _, e := range entries {
		d, err := openDevice("/dev/" + strings.ReplaceAll(e.Name(), "!", "/"))
		if err != nil || d.size() == 0 || len(d.holders()) > 0 {
			continue
		}
		asked++
		go func() {
			if found, ours, err := readSuperblock(d.path); err == nil && ours && found == uuid {
				answers <- d.path
			} else {
				answers <- ""
			}
		}()
	}
	var found []string
wait:
	for range asked {
		select {
		case answer := <-answers:
			if answer != "" {
				found = append(found, answer)
			}
		case <-ctx.Done():
			break wait
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no block device has the file system %s; is the disk plugged in?: %w", uuid, block.ErrNotFound)
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("%s all have the file system %s; take the copies away: %w", strings.Join(found, ", "), uuid, block.ErrExists)
	}
}

// Mount mounts the file system with the UUID at dir, which is made. One that is mounted
// there already is left as it is. It returns the device node.
func Mount(ctx context.Context, uuid, dir string) (path string, err error) {
	path, err = Find(ctx, uuid)
	if err != nil {
		return "", err
	}
	d, err := openDevice(path)
	if err != nil {
		return "", err
	}
	mounts, err := readMounts()
	if err != nil {
		return "", err
	}
	on := ""
	for _, m := range mounts {
		if m.point == dir {
			on = m.device // the last one covers those before it
		}
	}
	if on == d.number() {
		return path, nil
	}
	if on != "" {
		return "", fmt.Errorf("mount %s at %s: device %s is mounted there: %w", path, dir, on, block.ErrInUse)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	const flags = unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	if err := unix.Mount(path, dir, "xfs", flags, ""); err != nil {
		return "", fmt.Errorf("mount %s at %s: %w", path, dir, err)
	}
	return path, giveUpOnErrors(&d)
}

// giveUpSeconds is how long XFS tries to write metadata that the device refuses before
// it shuts the file system down.
const giveUpSeconds = "10"

// giveUpOnErrors makes XFS fail where it would try again for ever. A kernel that does
// not offer that keeps its own way.
func giveUpOnErrors(d *device) error {
	name := filepath.Join("/sys/fs/xfs", d.name, "error/metadata/EIO/retry_timeout_seconds")
	err := os.WriteFile(name, []byte(giveUpSeconds), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

// Unmount takes the file system at dir away, and the directory with it. One that is not
// mounted is no error.
func Unmount(dir string) error {
	if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	// It is empty, or there is something under the mount that is not ours.
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unmounted %s: %w", dir, err)
	}
	return nil
}
