package vfs

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// MemDir is a file system in memory that forgets what was not synced. It keeps
// every unsynced write of a file and every unsynced change of a name as such, so
// that Crash can make the disk that is found when any of them were lost.
//
// The model keeps less than ext4 and XFS do:
//
//   - Writes of one file are lost independently of each other and of those of other
//     files, each 512-byte sector of a write on its own. What is lost of a write
//     over old bytes is the old bytes; past the old end it is zeros, if anything
//     behind it survives, or if the length alone does. (Delayed allocation and
//     unwritten extents do this. Bytes of deleted files do not show up: both file
//     systems journal in order or convert extents after the data.)
//   - Sync and SyncData of a file make its bytes and its length durable, and nothing
//     else: not its name, and no other file. SyncTo promises nothing.
//   - Creating, linking, renaming and removing change names of a directory. Each
//     change is lost or kept as a whole, so a rename never leaves both names or
//     none, and with a change all later ones of the same directory are lost. Sync of
//     the directory makes all of them durable, and nothing else.
//   - Directories are lost independently of each other and of the bytes of files: a
//     name may survive without the bytes, and synced bytes without the name.
//
// The order of names within a directory is more than POSIX promises. ext4 and XFS
// keep it, as their journals do not reorder, and the database relies on it: it makes
// the marker of a new manifest durable together with the manifest's name. Beyond
// that both file systems keep the order of names across directories, and make every
// earlier one durable with any sync; this model does not. So they leave fewer states
// than it does, and what holds for all of its states holds there. What it does not
// have is bytes that change without having been written since the last sync, and a
// sync that reports success and was none: that is a broken disk (OnSync makes one).
type MemDir struct {
	mu   sync.Mutex
	root *memDirectory
	// locks are the names that are locked.
	locks  map[string]bool
	onSync func(name string) bool
}

var _ Dir = (*MemDir)(nil)

// memDirectory is a directory: names of files and of directories. durable are the
// names after the last sync, changes those since, in order.
type memDirectory struct {
	current map[string]memNode
	durable map[string]memNode
	changes []nameChange
}

// memNode is what a name stands for: one of the two.
type memNode struct {
	file      *memContent
	directory *memDirectory
}

func (n memNode) absent() bool { return n.file == nil && n.directory == nil }

// nameChange is one step in a directory: what each name stands for afterwards.
type nameChange struct {
	verb  string
	names []string
	nodes []memNode
}

func newDirectory() *memDirectory {
	return &memDirectory{current: map[string]memNode{}, durable: map[string]memNode{}}
}

func (d *memDirectory) change(c nameChange) {
	c.apply(d.current)
	d.changes = append(d.changes, c)
}

func (c *nameChange) apply(names map[string]memNode) {
	for i, name := range c.names {
		if c.nodes[i].absent() {
			delete(names, name)
		} else {
			names[name] = c.nodes[i]
		}
	}
}

// NewMemDir makes an empty file system.
func NewMemDir() *MemDir { return &MemDir{root: newDirectory(), locks: map[string]bool{}} }

// OnSync makes f see each sync of a file or directory before it is carried out, with
// nothing locked. If f returns false the sync is left out and reported as done.
func (d *MemDir) OnSync(f func(name string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onSync = f
}

// beforeSync reports whether a sync is to be carried out.
func (d *MemDir) beforeSync(name string) bool {
	d.mu.Lock()
	f := d.onSync
	d.mu.Unlock()
	return f == nil || f(name)
}

func pathError(verb, name string, err error) error {
	return &os.PathError{Op: verb, Path: name, Err: err}
}

func split(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}

// directory finds a directory; "" is the root.
func (d *MemDir) directory(verb, name string) (*memDirectory, error) {
	at := d.root
	for _, part := range split(name) {
		if at = at.current[part].directory; at == nil {
			return nil, pathError(verb, name, os.ErrNotExist)
		}
	}
	return at, nil
}

// find returns the directory that a name is in, and what it stands for.
func (d *MemDir) find(verb, name string) (parent *memDirectory, base string, node memNode, err error) {
	if parent, err = d.directory(verb, path.Dir("/"+name)); err != nil {
		return nil, "", memNode{}, pathError(verb, name, os.ErrNotExist)
	}
	base = path.Base("/" + name)
	return parent, base, parent.current[base], nil
}

func (d *MemDir) findFile(verb, name string) (*memContent, error) {
	_, _, node, err := d.find(verb, name)
	if err == nil && node.file == nil {
		err = pathError(verb, name, os.ErrNotExist)
	}
	return node.file, err
}

// Create implements vfs.FS.
func (d *MemDir) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	parent, base, node, err := d.find("create", name)
	if err == nil && node.directory != nil {
		err = pathError("create", name, os.ErrExist)
	}
	if err != nil {
		return nil, err
	}
	file := &memContent{}
	parent.change(nameChange{verb: "create", names: []string{base}, nodes: []memNode{{file: file}}})
	return &memFile{dir: d, name: name, content: file, writes: true}, nil
}

// Link implements vfs.FS.
func (d *MemDir) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	file, err := d.findFile("link", from)
	if err != nil {
		return err
	}
	parent, base, node, err := d.find("link", to)
	if err == nil && !node.absent() {
		err = pathError("link", to, os.ErrExist)
	}
	if err != nil {
		return err
	}
	parent.change(nameChange{verb: "link", names: []string{base}, nodes: []memNode{{file: file}}})
	return nil
}

// Open implements vfs.FS.
func (d *MemDir) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _, node, err := d.find("open", name)
	if err == nil && node.absent() {
		err = pathError("open", name, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	f := &memFile{dir: d, name: name, content: node.file, directory: node.directory}
	for _, o := range options {
		o.Apply(f)
	}
	return f, nil
}

// OpenReadWrite implements vfs.FS.
func (d *MemDir) OpenReadWrite(name string, c vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	d.mu.Lock()
	file, err := d.findFile("open", name)
	d.mu.Unlock()
	if err != nil {
		return d.Create(name, c)
	}
	return &memFile{dir: d, name: name, content: file, writes: true}, nil
}

// OpenDir implements vfs.FS.
func (d *MemDir) OpenDir(name string) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	directory, err := d.directory("open", name)
	if err != nil {
		return nil, err
	}
	return &memFile{dir: d, name: name, directory: directory}, nil
}

// Remove implements vfs.FS.
func (d *MemDir) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove(name, false)
}

// RemoveAll implements vfs.FS.
func (d *MemDir) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.remove(name, true); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (d *MemDir) remove(name string, all bool) error {
	parent, base, node, err := d.find("remove", name)
	switch {
	case err != nil:
		return err
	case node.absent():
		return pathError("remove", name, os.ErrNotExist)
	case node.directory != nil && len(node.directory.current) > 0 && !all:
		return pathError("remove", name, fmt.Errorf("it is not empty: %w", os.ErrExist))
	}
	parent.change(nameChange{verb: "remove", names: []string{base}, nodes: []memNode{{}}})
	return nil
}

// Rename implements vfs.FS, within one directory.
func (d *MemDir) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rename(from, to)
}

func (d *MemDir) rename(from, to string) error {
	old, oldBase, node, err := d.find("rename", from)
	if err == nil && node.absent() {
		err = pathError("rename", from, os.ErrNotExist)
	}
	if err != nil {
		return err
	}
	parent, base, _, err := d.find("rename", to)
	if err != nil {
		return err
	}
	if parent != old {
		return pathError("rename", from, fmt.Errorf("to another directory: %w", os.ErrInvalid))
	}
	parent.change(nameChange{verb: "rename", names: []string{oldBase, base}, nodes: []memNode{{}, node}})
	return nil
}

// ReuseForWrite implements vfs.FS: the old bytes stay until they are overwritten.
func (d *MemDir) ReuseForWrite(from, to string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	file, err := d.findFile("rename", from)
	if err == nil {
		err = d.rename(from, to)
	}
	if err != nil {
		return nil, err
	}
	return &memFile{dir: d, name: to, content: file, writes: true}, nil
}

// MkdirAll implements vfs.FS.
func (d *MemDir) MkdirAll(name string, _ os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.root
	for _, part := range split(name) {
		node := at.current[part]
		if node.file != nil {
			return pathError("mkdir", name, os.ErrExist)
		}
		if node.absent() {
			node.directory = newDirectory()
			at.change(nameChange{verb: "mkdir", names: []string{part}, nodes: []memNode{node}})
		}
		at = node.directory
	}
	return nil
}

// memLock gives a name back.
type memLock struct {
	dir  *MemDir
	name string
}

// Close implements io.Closer.
func (l *memLock) Close() error {
	l.dir.mu.Lock()
	defer l.dir.mu.Unlock()
	delete(l.dir.locks, l.name)
	return nil
}

// Lock implements vfs.FS.
func (d *MemDir) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	held := d.locks[name]
	d.locks[name] = true
	d.mu.Unlock()
	if held {
		return nil, pathError("lock", name, os.ErrPermission)
	}
	if _, err := d.OpenReadWrite(name, vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	return &memLock{dir: d, name: name}, nil
}

// List implements vfs.FS.
func (d *MemDir) List(name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	directory, err := d.directory("list", name)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(directory.current)), nil
}

// Stat implements vfs.FS.
func (d *MemDir) Stat(name string) (vfs.FileInfo, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	return f.Stat()
}

// PathBase implements vfs.FS.
func (*MemDir) PathBase(name string) string { return path.Base(name) }

// PathJoin implements vfs.FS.
func (*MemDir) PathJoin(parts ...string) string { return path.Join(parts...) }

// PathDir implements vfs.FS.
func (*MemDir) PathDir(name string) string { return path.Dir(name) }

// GetDiskUsage implements vfs.FS.
func (*MemDir) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{}, vfs.ErrUnsupported
}

// Unwrap implements vfs.FS.
func (*MemDir) Unwrap() vfs.FS { return nil }
