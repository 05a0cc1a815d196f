package rawdisk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// minSize is what mkfs.xfs wants at least, in bytes.
const minSize = 300 << 20

// Identify is the UUID of the file system that this package once made on the device
// at path; block.ErrNotFound if it holds something else or nothing.
func Identify(path string) (uuid string, err error) {
	d, err := openDevice(path)
	if err != nil {
		return "", err
	}
	uuid, ours, err := readSuperblock(d.path)
	if err == nil && !ours {
		err = fmt.Errorf("the XFS on %s was made by somebody else: %w", path, block.ErrNotFound)
	}
	return uuid, err
}

// checkFree refuses a device that somebody uses, with block.ErrInUse, and one that
// cannot be a disk, with block.ErrInvalid.
func checkFree(d *device) error {
	switch size := d.size(); {
	case size < minSize:
		return fmt.Errorf("%s has %d MiB; a disk needs %d: %w", d.path, size>>20, minSize>>20, block.ErrInvalid)
	case d.attribute("ro") != 0:
		return fmt.Errorf("%s is read-only: %w", d.path, block.ErrInvalid)
	}
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.device == d.number() {
			return fmt.Errorf("%s is mounted at %s; unmount it first: %w", d.path, m.point, block.ErrInUse)
		}
	}
	if holders := d.holders(); len(holders) > 0 {
		return fmt.Errorf("%s is part of %s; give that to the cluster, or take it apart first: %w",
			d.path, strings.Join(holders, ", "), block.ErrInUse)
	}
	fd, err := unix.Open(d.path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is in use%s: %w", d.path, whoUses(d), block.ErrInUse)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", d.path, err)
	}
	return unix.Close(fd)
}

// whoUses guesses at who holds a device that the kernel does not give.
func whoUses(d *device) string {
	if swaps, err := os.ReadFile("/proc/swaps"); err == nil {
		for line := range strings.Lines(string(swaps)) {
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] == d.path {
				return ", as swap; turn that off first (swapoff)"
			}
		}
	}
	if parts := d.partitions(); len(parts) > 0 {
		return ", or one of its partitions is (" + strings.Join(parts, ", ") + "); lsblk shows by whom"
	}
	return "; lsblk and fuser show by whom, which may be another mount namespace"
}

// checkEmpty refuses a device that holds data, with block.ErrExists and a list of what
// was found.
func checkEmpty(ctx context.Context, d *device) error {
	found, err := signatures(ctx, d)
	if err != nil {
		return err
	}
	if parts := d.partitions(); len(parts) > 0 {
		found = append(found, "the partitions "+strings.Join(parts, ", "))
	}
	if len(found) == 0 {
		blank, err := beginsBlank(d)
		if err != nil {
			return err
		}
		if !blank {
			found = append(found, "bytes that no tool recognises in its first MiB")
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%s holds %s; force it if all of that may be lost: %w", d.path, strings.Join(found, ", "), block.ErrExists)
	}
	return nil
}

// signatures asks wipefs what lies on the device.
func signatures(ctx context.Context, d *device) ([]string, error) {
	output, err := run(ctx, "wipefs", "--no-act", "--json", "--output", "TYPE,USAGE,LABEL", d.path)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(output)) == 0 {
		return nil, nil
	}
	var answer struct {
		Signatures []struct{ Type, Usage, Label string }
	}
	if err := json.Unmarshal(output, &answer); err != nil {
		return nil, fmt.Errorf("read the answer of wipefs: %w", err)
	}
	var found []string
	for _, s := range answer.Signatures {
		what := s.Type
		switch s.Usage {
		case "filesystem":
			what = "the file system " + s.Type
		case "raid":
			what = "a part of a volume group or array (" + s.Type + ")"
		case "crypto":
			what = "an encrypted volume (" + s.Type + ")"
		case "partition-table":
			what = "a partition table (" + s.Type + ")"
		}
		if s.Label != "" {
			what += fmt.Sprintf(" labelled %q", s.Label)
		}
		// A backup of a partition table has a signature of its own.
		if len(found) == 0 || found[len(found)-1] != what {
			found = append(found, what)
		}
	}
	return found, nil
}

// beginsBlank reports whether the first MiB is zeros.
func beginsBlank(d *device) (bool, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	if _, err := io.ReadFull(f, b); err != nil {
		return false, fmt.Errorf("read %s: %w", d.path, err)
	}
	return bytes.Count(b, []byte{0}) == len(b), nil
}

// run runs a tool and returns what it printed; its error has what it complained of.
func run(ctx context.Context, tool string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, tool, args...)
	var complaint bytes.Buffer
	command.Stderr = &complaint
	command.Env = append(os.Environ(), "LC_ALL=C")
	output, err := command.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is not installed: install util-linux and xfsprogs: %w", tool, block.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", tool, err, strings.Join(strings.Fields(complaint.String()), " "))
	}
	return output, nil
}
