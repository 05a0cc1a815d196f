package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Settings of a device's queue.
const (
	// ioTimeout is how long a request lies in a dead socket before the kernel
	// sends it again on the new one.
	ioTimeout = 500 * time.Millisecond
	// maxRequestKiB is the longest request the kernel forms.
	maxRequestKiB = block.MaxTransfer >> 10
)

// Sysfs reads and sets what the kernel shows of its devices below a mounted
// sysfs, normally "/sys".
type Sysfs string

// DefaultSysfs is where sysfs is mounted.
const DefaultSysfs Sysfs = "/sys"

// DevicePath is the device node of an index.
func DevicePath(index int) string { return "/dev/nbd" + strconv.Itoa(index) }

func (s Sysfs) file(index int, name string) string {
	return filepath.Join(string(s), "block", "nbd"+strconv.Itoa(index), name)
}

// Identifier is the backend identifier of a device; block.ErrNotFound when it
// has none.
func (s Sysfs) Identifier(index int) (string, error) {
	raw, err := os.ReadFile(s.file(index, "backend"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("identifier of NBD device %d: %w", index, block.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("identifier of NBD device %d: %w", index, err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// Identifiers lists the devices that have a backend identifier.
func (s Sysfs) Identifiers() (map[int]string, error) {
	paths, err := filepath.Glob(filepath.Join(string(s), "block", "nbd*", "backend"))
	if err != nil {
		return nil, fmt.Errorf("list NBD devices: %w", err)
	}
	found := make(map[int]string, len(paths))
	for _, path := range paths {
		index, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(path)), "nbd"))
		if err != nil {
			continue
		}
		identifier, err := s.Identifier(index)
		switch {
		case errors.Is(err, block.ErrNotFound):
			// It went away meanwhile.
		case err != nil:
			return nil, err
		case identifier != "":
			found[index] = identifier
		}
	}
	return found, nil
}

// Size is the size of a device in bytes.
func (s Sysfs) Size(index int) (int64, error) {
	raw, err := os.ReadFile(s.file(index, "size"))
	if err != nil {
		return 0, fmt.Errorf("size of NBD device %d: %w", index, err)
	}
	// Always in units of 512 bytes.
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size of NBD device %d: %w", index, err)
	}
	return sectors * block.SectorSize, nil
}

// Tune sets a device's queue up for a server that may be restarted. It waits
// for the requests in the queue: the device must be served.
func (s Sysfs) Tune(index int) error {
	for _, setting := range []struct {
		name  string
		value int64
	}{
		{"queue/io_timeout", ioTimeout.Milliseconds()},
		{"queue/max_sectors_kb", maxRequestKiB},
	} {
		value := strconv.FormatInt(setting.value, 10)
		if err := os.WriteFile(s.file(index, setting.name), []byte(value), 0); err != nil {
			return fmt.Errorf("set %s of NBD device %d: %w", setting.name, index, err)
		}
	}
	return nil
}
