package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// umountTimeout is how long an unmount may wait for a device that does not answer.
const umountTimeout = 10 * time.Second

// mountsBelow lists the mount points below dir, in the order they were mounted,
// without the file systems of the types left out.
func mountsBelow(dir string, without ...string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		// The fifth field is the mount point, the first one after the hyphen the type.
		mount, source, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(source)
		if len(fields) > 4 && len(kind) > 0 && isBelow(fields[4], dir) && !slices.Contains(without, kind[0]) {
			points = append(points, fields[4])
		}
	}
	return points, nil
}

func isBelow(path, dir string) bool { return strings.HasPrefix(path, dir+string(filepath.Separator)) }

// unmountBelow unmounts everything below dir, the newest first. What does not let
// go in time is detached from the tree, so that the rest of the cleaning can go on.
func unmountBelow(ctx context.Context, dir string, without ...string) error {
	points, err := mountsBelow(dir, without...)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	slices.Reverse(points)
	var errs []error
	for _, point := range points {
		if err := umount(ctx, point); err == nil {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// umount runs umount(8) as a process of its own, which can be given up.
func umount(ctx context.Context, point string) error {
	ctx, cancel := context.WithTimeout(ctx, umountTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "umount", point)
	cmd.WaitDelay = time.Second
	return cmd.Run()
}

// Naming are the processes of a program whose command line names something below dir.
func Naming(program, dir string) ([]int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range lines {
		line, err := os.ReadFile(file)
		if err != nil || !slices.ContainsFunc(bytes.Split(line, []byte{0}), func(arg []byte) bool { return isBelow(string(arg), dir) }) {
			continue
		}
		exe, err := os.Readlink(filepath.Join(filepath.Dir(file), "exe"))
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != program {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killNaming kills the servers of devices, which outlive the daemon that started them on
// purpose. The name of the directory is unique, so these belong to the cluster.
func killNaming(program, dir string) error {
	pids, err := Naming(program, dir)
	errs := []error{err}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// detachLoops detaches the loop devices whose files lie below dir.
func detachLoops(ctx context.Context, dir string) error {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err != nil || !isBelow(strings.TrimSpace(string(backing)), dir) {
			continue
		}
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file)))
		if out, err := exec.CommandContext(ctx, "losetup", "--detach", device).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("detach %s: %w: %s", device, err, out))
		}
	}
	return errors.Join(errs...)
}
