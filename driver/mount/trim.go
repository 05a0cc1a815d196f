package mount

import (
	"context"
	"fmt"
	"strings"
)

// Trim tells the device which blocks the file system at target does not use, and
// returns what fstrim says of it.
func (m *Mounter) Trim(ctx context.Context, target string) (string, error) {
	out, err := m.exec.CommandContext(ctx, "fstrim", "--verbose", target).CombinedOutput()
	said := strings.TrimSpace(string(out))
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("trim the file system at %s: %w", target, ctx.Err())
	case err != nil:
		return "", fmt.Errorf("trim the file system at %s: %w: %s", target, err, said)
	}
	return said, nil
}
