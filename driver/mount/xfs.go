package mount

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

const (
	ext4 = "ext4"
	xfs  = "xfs"
	// noUUID is the option that mounts an XFS beside another of the same UUID.
	noUUID = "nouuid"
)

// identify sees to it that the XFS on a device has the UUID asked for, and returns
// the options to mount it with. It can be done again after it was interrupted.
func (m *Mounter) identify(ctx context.Context, r Request) ([]string, error) {
	have, err := m.uuid(ctx, r.Device)
	switch {
	case err != nil:
		return nil, err
	case r.UUID == "" || have == r.UUID:
		return r.Options, nil
	case r.readOnly():
		return append(slices.Clone(r.Options), noUUID), nil
	}
	said, err := m.rename(ctx, r)
	if err != nil {
		return nil, err
	}
	if said == "" {
		return r.Options, nil
	}
	if err := m.recoverLog(r); err != nil {
		return nil, fmt.Errorf("recover its log: %w", err)
	}
	if said, err = m.rename(ctx, r); err != nil {
		return nil, err
	}
	if said != "" {
		return nil, fmt.Errorf("xfs_admin does not do it: %s", said)
	}
	return r.Options, nil
}

// rename has xfs_admin set the UUID. It returns why xfs_admin did not; empty if it
// did, which is seen by the UUID and not by the exit code.
func (m *Mounter) rename(ctx context.Context, r Request) (refusal string, err error) {
	out, failed := m.exec.CommandContext(ctx, "xfs_admin", "-U", r.UUID, r.Device).CombinedOutput()
	have, err := m.uuid(ctx, r.Device)
	if err != nil || have == r.UUID {
		return "", err
	}
	return fmt.Sprintf("%s (%v)", strings.TrimSpace(string(out)), failed), nil
}

// uuid reads the UUID of the file system on a device.
func (m *Mounter) uuid(ctx context.Context, device string) (string, error) {
	out, err := m.exec.CommandContext(ctx, "blkid", "-p", "-s", "UUID", "-o", "value", device).Output()
	if err != nil {
		return "", fmt.Errorf("ask blkid for the UUID: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// recoverLog has the kernel write back what the log holds. Cut off in between, it
// leaves the volume mounted as asked for, but for the UUID.
func (m *Mounter) recoverLog(r Request) error {
	if err := m.mounter.Mount(r.Device, r.Target, r.FSType, append(slices.Clone(r.Options), noUUID)); err != nil {
		return err
	}
	return m.Unmount(r.Target)
}
