package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/vfs"
)

// guard stands between the database and its files, so that a disk that fails does not
// end the process.
//
// Pebble has no answer to a write, sync or rename that fails on its log, its manifest
// or its directory: it calls a logger that must not return, or panics, on goroutines of
// its own and with its locks in any state. So it is not told. On the first such failure
// the guard fails the store, and from then on nothing that the database writes reaches
// the disk any more: what is there stays as a loss of power would have left it. For the
// database these files seem to work, so that it stays readable and can be closed.
// Nothing is built on the lie: whoever commits asks the guard before it believes
// (commitBatch).
//
// Tables are another matter. Pebble copes with one that cannot be written, by trying
// again; and reads what it wrote. So errors of tables are shown. It would try again at
// once and for ever, and make commits and the opening of the database wait for that: so
// what it has in memory becomes tables in memory after a failure, and the output of a
// compaction, which nobody waits for, waits until the store is closed.
type guard struct {
	watch *vfs.Watch
	// failing is called once, after the failure.
	failing func()
	failure atomic.Pointer[error]
	// tripped is closed at the failure, released when the store is closed.
	tripped, released chan struct{}
	closing           atomic.Bool
	// opened: the database has been opened.
	opened atomic.Bool
	// logSize is the space of a spare log, in bytes.
	logSize int64
	// memory has the tables that the database writes after the failure.
	memory *pebblevfs.MemFS
}

func newGuard(watch *vfs.Watch, logSize int64, failing func()) *guard {
	return &guard{watch: watch, logSize: logSize, failing: failing, tripped: make(chan struct{}), released: make(chan struct{}), memory: pebblevfs.NewMem()}
}

// failed is nil while all that the database wrote has reached the disk.
func (g *guard) failed() error {
	if err := g.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// trip notes the first failure.
func (g *guard) trip(err error) {
	if g.failure.CompareAndSwap(nil, &err) {
		close(g.tripped)
		g.failing()
	}
}

// release lets the database end: nothing waits any more.
func (g *guard) release() {
	if g.closing.CompareAndSwap(false, true) {
		close(g.released)
	}
}

// hide takes an error that the database may not see.
func (g *guard) hide(what, name string, err error) {
	if err != nil {
		g.trip(fmt.Errorf("%s %s: %w", what, name, err))
	}
}

// show returns the error of a table. It is a failure, unless the disk is full: then
// there may be room later, for which only the opening of a database cannot wait.
func (g *guard) show(what, name string, err error) error {
	if err != nil && !(isFull(err) && g.opened.Load()) {
		g.trip(fmt.Errorf("%s %s: %w", what, name, err))
	}
	return err
}

// isFull: there is no room for it.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

const (
	// logSpare begins the names of empty files that become logs of the database.
	logSpare = "log-spare-"
	// spareLogs is how many there are. When none of its tables in memory can be written,
	// the database begins two before commits wait, more if the first tables are small, as
	// they are after an open.
	spareLogs = 3
)

// logSize is the space that the database allocates for a log, in bytes.
func logSize(memTable uint64) int64 { return int64(memTable + memTable/10) }

// isLog: the file is a log of the database.
func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// isTable: the file is one that pebble can do without.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// metaDir is a directory whose operations are watched, and guarded if it is the
// database's.
type metaDir struct {
	vfs.Dir
	guard   *guard
	guarded bool
}

var _ vfs.Dir = (*metaDir)(nil)

// begin watches an operation until the function it returns is called.
func (d *metaDir) begin() uint32 { return d.guard.watch.Begin() }
func (d *metaDir) end(b uint32)  { d.guard.watch.End(b) }

// dead: nothing reaches the disk any more.
func (d *metaDir) dead() bool { return d.guarded && d.guard.failed() != nil }

// change carries out an operation that changes the directory, unless it must not.
func (d *metaDir) change(what, name string, do func() error) error {
	if d.dead() {
		return nil
	}
	b := d.begin()
	err := do()
	d.end(b)
	if d.guarded {
		d.guard.hide(what, name, err)
		return nil
	}
	return err
}

// categoryFlush is that of tables made of what is in memory.
const categoryFlush = pebblevfs.DiskWriteCategory("pebble-memtable-flush")

// createAfterFailure makes a table when the disk has failed.
func (d *metaDir) createAfterFailure(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if c != categoryFlush {
		<-d.guard.released
		return nil, fmt.Errorf("create %s: %w", name, d.guard.failed())
	}
	if err := d.guard.memory.MkdirAll(d.PathDir(name), 0o700); err != nil {
		return nil, err
	}
	return d.guard.memory.Create(name, c)
}

// create makes a file by one of the ways there are.
func (d *metaDir) create(name string, c pebblevfs.DiskWriteCategory, do func() (pebblevfs.File, error)) (pebblevfs.File, error) {
	g := d.guard
	table := isTable(name)
	if table && d.dead() {
		return d.createAfterFailure(name, c)
	}
	var f pebblevfs.File
	if !d.dead() {
		b := d.begin()
		var err error
		f, err = do()
		d.end(b)
		switch {
		case err == nil:
		case !d.guarded:
			return nil, err
		case table:
			return nil, g.show("create", name, err)
		default:
			g.hide("create", name, err)
			f = nil
		}
	}
	return &metaFile{File: f, name: name, dir: d, table: table}, nil
}

func (d *metaDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return d.create(name, c, func() (pebblevfs.File, error) {
		if d.guarded && isLog(name) {
			return d.createLog(name, c)
		}
		return d.Dir.Create(name, c)
	})
}

// createLog makes a log of the database of a spare one, and then the spare ones that are
// missing. Having their space before it is needed lets a disk that others filled to the
// last block begin logs. A spare one is empty, whatever a crash undoes: the database syncs
// the directory before it writes to a new log.
func (d *metaDir) createLog(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	var spares [spareLogs]string
	for n := range spares {
		spares[n] = d.PathJoin(d.PathDir(name), fmt.Sprintf("%s%d", logSpare, n))
	}
	f, err := pebblevfs.File(nil), error(fs.ErrNotExist)
	for n := 0; n < spareLogs && errors.Is(err, fs.ErrNotExist); n++ {
		f, err = d.Dir.ReuseForWrite(spares[n], name, c)
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = d.Dir.Create(name, c)
	}
	if err == nil {
		for _, spare := range spares {
			d.allocateLog(spare)
		}
	}
	return f, err
}

// allocateLog makes a spare log if it is missing. Without room, or if it fails, there is
// none: the new log has its own space, and the next one shows what is wrong.
func (d *metaDir) allocateLog(spare string) {
	if _, err := d.Dir.Stat(spare); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	f, err := d.Dir.Create(spare, pebblevfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	if err := errors.Join(f.Preallocate(0, d.guard.logSize), f.Close()); err != nil {
		_ = d.Dir.Remove(spare)
	}
}

func (d *metaDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return d.create(to, c, func() (pebblevfs.File, error) { return d.Dir.ReuseForWrite(from, to, c) })
}

func (d *metaDir) OpenReadWrite(name string, c pebblevfs.DiskWriteCategory, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	return d.create(name, c, func() (pebblevfs.File, error) { return d.Dir.OpenReadWrite(name, c, opts...) })
}

func (d *metaDir) Open(name string, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	if d.dead() {
		if f, err := d.guard.memory.Open(name, opts...); err == nil {
			return f, nil
		}
	}
	b := d.begin()
	f, err := d.Dir.Open(name, opts...)
	d.end(b)
	if err != nil {
		return nil, err
	}
	return &metaFile{File: f, name: name, dir: d, table: isTable(name)}, nil
}

func (d *metaDir) OpenDir(name string) (pebblevfs.File, error) {
	b := d.begin()
	f, err := d.Dir.OpenDir(name)
	d.end(b)
	if err != nil {
		return nil, err
	}
	return &metaFile{File: f, name: name, dir: d}, nil
}

func (d *metaDir) Link(from, to string) error {
	return d.change("link", to, func() error { return d.Dir.Link(from, to) })
}

func (d *metaDir) Rename(from, to string) error {
	return d.change("rename", to, func() error { return d.Dir.Rename(from, to) })
}

// Remove may fail without harm: the file is in the way of nobody.
func (d *metaDir) Remove(name string) error {
	if d.dead() {
		return nil
	}
	defer d.end(d.begin())
	return d.Dir.Remove(name)
}

func (d *metaDir) RemoveAll(name string) error {
	if d.dead() {
		return nil
	}
	defer d.end(d.begin())
	return d.Dir.RemoveAll(name)
}

func (d *metaDir) List(name string) ([]string, error) {
	defer d.end(d.begin())
	return d.Dir.List(name)
}

func (d *metaDir) Stat(name string) (pebblevfs.FileInfo, error) {
	if d.dead() {
		if info, err := d.guard.memory.Stat(name); err == nil {
			return info, nil
		}
	}
	defer d.end(d.begin())
	return d.Dir.Stat(name)
}

func (d *metaDir) GetDiskUsage(path string) (pebblevfs.DiskUsage, error) {
	defer d.end(d.begin())
	return d.Dir.GetDiskUsage(path)
}

func (d *metaDir) Unwrap() pebblevfs.FS { return d.Dir }

// metaFile is a file of a metaDir. File is nil for one that seems to have been made.
type metaFile struct {
	pebblevfs.File
	name  string
	dir   *metaDir
	table bool
}

// skip reports whether nothing may be written any more, and what the database is told.
func (f *metaFile) skip() (bool, error) {
	if !f.dir.guarded {
		return false, nil
	}
	failure := f.dir.guard.failed()
	if failure == nil && f.File != nil {
		return false, nil
	}
	if f.table {
		return true, failure
	}
	return true, nil
}

// written is what the database is told of an operation that wrote.
func (f *metaFile) written(what string, err error) error {
	switch {
	case err == nil || !f.dir.guarded:
		return err
	case f.table:
		return f.dir.guard.show(what, f.name, err)
	default:
		f.dir.guard.hide(what, f.name, err)
		return nil
	}
}

func (f *metaFile) Write(p []byte) (int, error) {
	if skip, err := f.skip(); skip {
		return len(p), err
	}
	b := f.dir.begin()
	n, err := f.File.Write(p)
	f.dir.end(b)
	if err = f.written("write", err); err == nil {
		n = len(p)
	}
	return n, err
}

func (f *metaFile) WriteAt(p []byte, at int64) (int, error) {
	if skip, err := f.skip(); skip {
		return len(p), err
	}
	b := f.dir.begin()
	n, err := f.File.WriteAt(p, at)
	f.dir.end(b)
	if err = f.written("write", err); err == nil {
		n = len(p)
	}
	return n, err
}

func (f *metaFile) Sync() error {
	if skip, err := f.skip(); skip {
		return err
	}
	b := f.dir.begin()
	err := f.File.Sync()
	f.dir.end(b)
	return f.written("sync", err)
}

func (f *metaFile) SyncData() error {
	if skip, err := f.skip(); skip {
		return err
	}
	b := f.dir.begin()
	err := f.File.SyncData()
	f.dir.end(b)
	return f.written("sync", err)
}

func (f *metaFile) SyncTo(length int64) (whole bool, err error) {
	if skip, err := f.skip(); skip {
		return false, err
	}
	b := f.dir.begin()
	whole, err = f.File.SyncTo(length)
	f.dir.end(b)
	return whole, f.written("sync", err)
}

// Preallocate may fail without harm: the write after it tells.
func (f *metaFile) Preallocate(offset, length int64) error {
	if f.File == nil || f.dir.dead() {
		return nil
	}
	defer f.dir.end(f.dir.begin())
	err := f.File.Preallocate(offset, length)
	if f.dir.guarded && !f.table {
		return nil
	}
	return err
}

func (f *metaFile) Close() error {
	if f.File == nil {
		return nil
	}
	b := f.dir.begin()
	err := f.File.Close()
	f.dir.end(b)
	if f.dir.guarded && !f.table {
		f.dir.guard.hide("close", f.name, err)
		return nil
	}
	return err
}

func (f *metaFile) Read(p []byte) (int, error) {
	if f.File == nil {
		return 0, io.EOF
	}
	defer f.dir.end(f.dir.begin())
	return f.File.Read(p)
}

func (f *metaFile) ReadAt(p []byte, at int64) (int, error) {
	if f.File == nil {
		return 0, io.EOF
	}
	defer f.dir.end(f.dir.begin())
	return f.File.ReadAt(p, at)
}

func (f *metaFile) Prefetch(offset, length int64) error {
	if f.File == nil {
		return nil
	}
	return f.File.Prefetch(offset, length)
}

func (f *metaFile) Stat() (pebblevfs.FileInfo, error) {
	if f.File == nil {
		return noFile{name: f.name}, nil
	}
	b := f.dir.begin()
	info, err := f.File.Stat()
	f.dir.end(b)
	if err != nil && f.dir.guarded && !f.table {
		f.dir.guard.hide("stat", f.name, err)
		return noFile{name: f.name}, nil
	}
	return info, err
}

func (f *metaFile) Fd() uintptr {
	if f.File == nil {
		return pebblevfs.InvalidFd
	}
	return f.File.Fd()
}

// noFile describes a file that seems to have been made.
type noFile struct{ name string }

func (n noFile) Name() string                 { return n.name }
func (n noFile) Size() int64                  { return 0 }
func (n noFile) Mode() fs.FileMode            { return 0 }
func (n noFile) ModTime() time.Time           { return time.Time{} }
func (n noFile) IsDir() bool                  { return false }
func (n noFile) Sys() any                     { return nil }
func (n noFile) DeviceID() pebblevfs.DeviceID { return pebblevfs.DeviceID{} }
