package mount

import (
	"context"
	"fmt"
	"strings"
)

// Grow makes a file system that is mounted at target for writing as large as its
// device. It does nothing to one that is.
func (m *Mounter) Grow(ctx context.Context, device, target, fsType string) error {
	var command []string
	switch fsType {
	case ext4:
		command = []string{"resize2fs", device}
	case xfs:
		command = []string{"xfs_growfs", "-d", target}
	default:
		return fmt.Errorf("grow %s: file system %q cannot grow", target, fsType)
	}
	out, err := m.exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("grow the file system at %s: %w", target, ctx.Err())
	case err != nil:
		return fmt.Errorf("grow the file system at %s: %s: %w: %s", target, command[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
