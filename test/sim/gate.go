package sim

import (
	"fmt"
	"io"
	"os"
	"strings"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// gate is the file system as one life of a daemon sees it. Once the process is
// dead, what its left-over goroutines still change gets nowhere, while the files
// themselves, and which of their bytes were synced, stay for the next life.
type gate struct {
	pebblevfs.FS
	process *process
	drive   *drive
}

// Create implements vfs.FS.
func (g *gate) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if g.process.gone.Load() {
		return &gateFile{File: pebblevfs.NewMemFile(nil), process: g.process}, nil
	}
	f, err := g.FS.Create(name, c)
	if err == nil && strings.HasPrefix(g.PathBase(name), journalPrefix) {
		return &journalFile{File: f, gate: g}, nil
	}
	return g.wrap(f, err)
}

// OpenReadWrite implements vfs.FS.
func (g *gate) OpenReadWrite(name string, c pebblevfs.DiskWriteCategory, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	return g.wrap(g.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (g *gate) ReuseForWrite(oldname, newname string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if g.process.gone.Load() {
		return g.Create(newname, c)
	}
	return g.wrap(g.FS.ReuseForWrite(oldname, newname, c))
}

// OpenDir implements vfs.FS.
func (g *gate) OpenDir(name string) (pebblevfs.File, error) { return g.wrap(g.FS.OpenDir(name)) }

// Link implements vfs.FS.
func (g *gate) Link(oldname, newname string) error {
	return g.change(func() error { return g.FS.Link(oldname, newname) })
}

// Remove implements vfs.FS.
func (g *gate) Remove(name string) error {
	return g.change(func() error { return g.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (g *gate) RemoveAll(name string) error {
	return g.change(func() error { return g.FS.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (g *gate) Rename(oldname, newname string) error {
	return g.change(func() error { return g.FS.Rename(oldname, newname) })
}

// MkdirAll implements vfs.FS.
func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	return g.change(func() error { return g.FS.MkdirAll(dir, perm) })
}

// Lock implements vfs.FS. The kernel gives a dead process's locks back, so the
// next life must not meet them: each has its own.
func (g *gate) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// Unwrap implements vfs.FS.
func (g *gate) Unwrap() pebblevfs.FS { return g.FS }

func (g *gate) change(f func() error) error {
	if g.process.gone.Load() {
		return nil
	}
	return f()
}

func (g *gate) wrap(f pebblevfs.File, err error) (pebblevfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &gateFile{File: f, process: g.process}, nil
}

// journalPrefix begins the names of the files that the store writes itself (see
// its format). A write to them may fail; those of the database are the database's.
const journalPrefix = "journal-"

// journalFile is one of them.
type journalFile struct {
	pebblevfs.File
	gate *gate
}

// Write implements vfs.File.
func (f *journalFile) Write(p []byte) (int, error) {
	switch {
	case f.gate.process.gone.Load():
		return len(p), nil
	case f.gate.drive.fails(vfs.Write):
		return 0, fmt.Errorf("simulated trouble with the journal: %w", block.ErrDiskFailed)
	}
	return f.File.Write(p)
}

type gateFile struct {
	pebblevfs.File
	process *process
}

// Write implements vfs.File.
func (f *gateFile) Write(p []byte) (int, error) {
	if f.process.gone.Load() {
		return len(p), nil
	}
	return f.File.Write(p)
}

// WriteAt implements vfs.File.
func (f *gateFile) WriteAt(p []byte, offset int64) (int, error) {
	if f.process.gone.Load() {
		return len(p), nil
	}
	return f.File.WriteAt(p, offset)
}

// Sync implements vfs.File.
func (f *gateFile) Sync() error {
	if f.process.gone.Load() {
		return nil
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *gateFile) SyncData() error {
	if f.process.gone.Load() {
		return nil
	}
	return f.File.SyncData()
}

// SyncTo implements vfs.File.
func (f *gateFile) SyncTo(length int64) (bool, error) {
	if f.process.gone.Load() {
		return false, nil
	}
	return f.File.SyncTo(length)
}
