package frontend

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Privileged reports whether this process may make block devices and mount file
// systems: both need CAP_SYS_ADMIN. Without it the error is block.ErrUnavailable.
func Privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	if sets[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("this process lacks CAP_SYS_ADMIN: %w", block.ErrUnavailable)
	}
	return nil
}
