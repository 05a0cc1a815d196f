package mount

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Usage is how full a file system is.
type Usage struct {
	TotalBytes, UsedBytes, AvailableBytes    int64
	TotalInodes, UsedInodes, AvailableInodes int64
}

// FileSystemUsage asks the file system at path.
func (m *Mounter) FileSystemUsage(path string) (Usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Usage{}, fmt.Errorf("ask file system at %s: %w", path, err)
	}
	blocks := func(n uint64) int64 { return int64(n) * s.Bsize }
	return Usage{
		TotalBytes:      blocks(s.Blocks),
		UsedBytes:       blocks(s.Blocks - s.Bfree),
		AvailableBytes:  blocks(s.Bavail),
		TotalInodes:     int64(s.Files),
		UsedInodes:      int64(s.Files - s.Ffree),
		AvailableInodes: int64(s.Ffree),
	}, nil
}

// DeviceSize is the size in bytes of the block device at path.
func (m *Mounter) DeviceSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open device: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("measure device %s: %w", path, err)
	}
	return size, nil
}
