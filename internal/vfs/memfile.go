package vfs

import (
	"io"
	"os"
	"path"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// memContent is the bytes of a file. durable, which is never changed in place, are
// those after the last sync, writes what came since, in order.
type memContent struct {
	current []byte
	durable []byte
	writes  []fileWrite
}

// fileWrite is one write; data is never changed.
type fileWrite struct {
	name   string
	offset int64
	data   []byte
}

func (c *memContent) write(name string, offset int64, b []byte) {
	w := fileWrite{name: name, offset: offset, data: slices.Clone(b)}
	c.writes = append(c.writes, w)
	c.current = overwrite(c.current, w.offset, w.data)
}

// overwrite puts data at offset; between the old end and offset come zeros.
func overwrite(b []byte, offset int64, data []byte) []byte {
	if end := int(offset) + len(data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[offset:], data)
	return b
}

func (c *memContent) sync() {
	if len(c.writes) > 0 {
		c.durable = slices.Clone(c.current)
		c.writes = nil
	}
}

// memFile is an open file or directory of a MemDir.
type memFile struct {
	dir       *MemDir
	name      string
	content   *memContent
	directory *memDirectory
	at        int64
	writes    bool
}

// Read implements io.Reader.
func (f *memFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *memFile) ReadAt(b []byte, offset int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if f.content == nil {
		return 0, pathError("read", f.name, os.ErrInvalid)
	}
	if offset >= int64(len(f.content.current)) {
		return 0, io.EOF
	}
	n := copy(b, f.content.current[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Write implements io.Writer.
func (f *memFile) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.at)
	f.at += int64(n)
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *memFile) WriteAt(b []byte, offset int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if !f.writes {
		return 0, pathError("write", f.name, os.ErrPermission)
	}
	if len(b) > 0 {
		f.content.write(f.name, offset, b)
	}
	return len(b), nil
}

// Sync implements vfs.File.
func (f *memFile) Sync() error {
	if !f.dir.beforeSync(f.name) {
		return nil
	}
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if f.content != nil {
		f.content.sync()
		return nil
	}
	for _, c := range f.directory.changes {
		c.apply(f.directory.durable)
	}
	f.directory.changes = nil
	return nil
}

// SyncData implements vfs.File.
func (f *memFile) SyncData() error { return f.Sync() }

// SyncTo implements vfs.File. Nothing is promised, and nothing done.
func (f *memFile) SyncTo(int64) (bool, error) { return false, nil }

// Preallocate implements vfs.File. It changes neither bytes nor length.
func (f *memFile) Preallocate(int64, int64) error { return nil }

// Prefetch implements vfs.File.
func (f *memFile) Prefetch(int64, int64) error { return nil }

// Fd implements vfs.File.
func (f *memFile) Fd() uintptr { return vfs.InvalidFd }

// Close implements io.Closer.
func (f *memFile) Close() error { return nil }

// Stat implements vfs.File.
func (f *memFile) Stat() (vfs.FileInfo, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	info := memInfo{name: path.Base(f.name), directory: f.directory != nil}
	if f.content != nil {
		info.size = int64(len(f.content.current))
	}
	return info, nil
}

// memInfo is what Stat returns; there are no times.
type memInfo struct {
	name      string
	size      int64
	directory bool
}

// Name implements os.FileInfo.
func (i memInfo) Name() string { return i.name }

// Size implements os.FileInfo.
func (i memInfo) Size() int64 { return i.size }

// Mode implements os.FileInfo.
func (i memInfo) Mode() os.FileMode {
	if i.directory {
		return os.ModeDir | 0o755
	}
	return 0o644
}

// ModTime implements os.FileInfo.
func (i memInfo) ModTime() time.Time { return time.Time{} }

// IsDir implements os.FileInfo.
func (i memInfo) IsDir() bool { return i.directory }

// Sys implements os.FileInfo.
func (i memInfo) Sys() any { return nil }

// DeviceID implements vfs.FileInfo.
func (i memInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
