package mtls

import (
	"io/fs"
	"syscall"
	"time"
)

// stamp tells one content of a file from another.
type stamp struct {
	size           int64
	modified       time.Time
	device, number uint64
}

// stampOf also tells a file from another one that was put in its place.
func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), modified: info.ModTime()}
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.number = system.Dev, system.Ino
	}
	return s
}
