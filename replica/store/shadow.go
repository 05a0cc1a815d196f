package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// shadowDir is a directory that is changed in memory only: what it is opened on stays
// as it is. So a disk can be opened and looked at as ever, recovery included, without
// a trace on it.
type shadowDir struct {
	base vfs.Dir
	mem  *pebblevfs.MemFS

	mu sync.Mutex
	// made are the files in mem, removed those of base that seem to be gone.
	made, removed map[string]bool
}

var _ vfs.Dir = (*shadowDir)(nil)

func newShadowDir(base vfs.Dir) *shadowDir {
	return &shadowDir{base: base, mem: pebblevfs.NewMem(), made: map[string]bool{}, removed: map[string]bool{}}
}

// of is the file system in which a file is, nil if it is gone.
func (d *shadowDir) of(name string) pebblevfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.made[name]:
		return d.mem
	case d.removed[name]:
		return nil
	default:
		return d.base
	}
}

func gone(what, name string) error { return &fs.PathError{Op: what, Path: name, Err: fs.ErrNotExist} }

// mark notes that a file is in memory, or is gone.
func (d *shadowDir) mark(name string, there bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed[name] = !there; there {
		d.made[name] = true
	} else {
		delete(d.made, name)
	}
}

func (d *shadowDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := d.mem.MkdirAll(d.PathDir(name), 0o700); err != nil {
		return nil, err
	}
	f, err := d.mem.Create(name, c)
	if err == nil {
		d.mark(name, true)
	}
	return f, err
}

// take copies a file into memory.
func (d *shadowDir) take(name string) error {
	if d.of(name) == d.mem {
		return nil
	}
	from, err := d.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := d.Create(name, pebblevfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

func (d *shadowDir) Open(name string, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	of := d.of(name)
	if of == nil {
		return nil, gone("open", name)
	}
	return of.Open(name, opts...)
}

func (d *shadowDir) OpenReadWrite(name string, c pebblevfs.DiskWriteCategory, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	if err := d.take(name); err != nil {
		return nil, err
	}
	return d.mem.OpenReadWrite(name, c, opts...)
}

func (d *shadowDir) OpenDir(name string) (pebblevfs.File, error) {
	if err := d.mem.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	return d.mem.OpenDir(name)
}

func (d *shadowDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := d.Remove(from); err != nil {
		return nil, err
	}
	return d.Create(to, c)
}

func (d *shadowDir) Link(from, to string) error {
	if err := d.take(from); err != nil {
		return err
	}
	err := d.mem.Link(from, to)
	if err == nil {
		d.mark(to, true)
	}
	return err
}

func (d *shadowDir) Rename(from, to string) error {
	if err := d.take(from); err != nil {
		return err
	}
	err := d.mem.Rename(from, to)
	if err == nil {
		d.mark(from, false)
		d.mark(to, true)
	}
	return err
}

func (d *shadowDir) Remove(name string) error {
	if _, err := d.Stat(name); err != nil {
		return err
	}
	if d.of(name) == d.mem {
		if err := d.mem.Remove(name); err != nil {
			return err
		}
	}
	d.mark(name, false)
	return nil
}

func (d *shadowDir) RemoveAll(name string) error {
	names, err := d.List(name)
	if err != nil {
		return d.Remove(name)
	}
	for _, inside := range names {
		if err := d.Remove(d.PathJoin(name, inside)); err != nil {
			return err
		}
	}
	return nil
}

func (d *shadowDir) MkdirAll(dir string, perm fs.FileMode) error { return d.mem.MkdirAll(dir, perm) }

// Lock takes none: whoever makes a shadow holds the lock of the data file.
func (d *shadowDir) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (d *shadowDir) List(dir string) ([]string, error) {
	names := map[string]bool{}
	base, err := d.base.List(dir)
	for _, name := range base {
		names[name] = d.of(d.PathJoin(dir, name)) != nil
	}
	made, memErr := d.mem.List(dir)
	for _, name := range made {
		names[name] = true
	}
	if err != nil && memErr != nil {
		return nil, err
	}
	maps.DeleteFunc(names, func(_ string, there bool) bool { return !there })
	return slices.Sorted(maps.Keys(names)), nil
}

func (d *shadowDir) Stat(name string) (pebblevfs.FileInfo, error) {
	of := d.of(name)
	if of == nil {
		return nil, gone("stat", name)
	}
	return of.Stat(name)
}

func (d *shadowDir) PathBase(path string) string    { return d.base.PathBase(path) }
func (d *shadowDir) PathJoin(elem ...string) string { return d.base.PathJoin(elem...) }
func (d *shadowDir) PathDir(path string) string     { return d.base.PathDir(path) }
func (d *shadowDir) Unwrap() pebblevfs.FS           { return nil }

func (d *shadowDir) GetDiskUsage(path string) (pebblevfs.DiskUsage, error) {
	return d.base.GetDiskUsage(path)
}

// shadowDevice is a data file that is changed in memory only.
type shadowDevice struct {
	vfs.Device
	executor vfs.Executor

	mu     sync.Mutex
	blocks map[int64][]byte
	size   int64
}

func newShadowDevice(base vfs.Device, executor vfs.Executor) *shadowDevice {
	return &shadowDevice{Device: base, executor: executor, blocks: map[int64][]byte{}, size: base.Size()}
}

// Submit implements vfs.Device.
func (d *shadowDevice) Submit(io *vfs.IO) {
	d.executor.Go(func() {
		io.Err = d.Do(io)
		io.Done(io)
	})
}

// Do implements vfs.Doer.
func (d *shadowDevice) Do(io *vfs.IO) error {
	switch io.Kind {
	case vfs.Read:
		if err := vfs.Do(d.Device, &vfs.IO{Kind: vfs.Read, Offset: io.Offset, Length: io.Length, Data: io.Data}); err != nil {
			return err
		}
		d.each(io, func(at int64, data []byte) { copy(data, d.blocks[at]) })
		return nil
	case vfs.Write:
		d.each(io, func(at int64, data []byte) { d.blocks[at] = slices.Clone(data) })
		return nil
	case vfs.Sync, vfs.Discard:
		return nil // nobody reads what he gave back
	default:
		return fmt.Errorf("operation %d: %w", io.Kind, block.ErrInvalid)
	}
}

func (d *shadowDevice) each(io *vfs.IO, do func(at int64, data []byte)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := int64(0); at < int64(len(io.Data)); at += block.BlockSize {
		do(io.Offset+at, io.Data[at:at+block.BlockSize])
	}
}

// Size implements vfs.Device.
func (d *shadowDevice) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// Grow implements vfs.Device.
func (d *shadowDevice) Grow(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = max(d.size, size)
	return nil
}

// Close leaves the data file to who opened it.
func (d *shadowDevice) Close() error { return nil }
