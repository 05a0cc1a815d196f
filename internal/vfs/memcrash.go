package vfs

import (
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// UnsyncedChange describes, for a crash, what may be lost of a MemDir: a write of a
// file, or a change of names in a directory.
type UnsyncedChange struct {
	// Name is the file's when it was written, or the directory's.
	Name string
	// Verb is write, create, link, rename, remove or mkdir, Names what it is done to
	// in the directory.
	Verb  string
	Names []string
	// Offset and Length are those of a write in bytes. Sectors is the number of
	// 512-byte sectors of the file that a write touches, 1 of other changes.
	Offset, Length int64
	Sectors        int
}

// String is for people.
func (c UnsyncedChange) String() string {
	if c.Verb == "write" {
		return fmt.Sprintf("write %s [%d, +%d)", c.Name, c.Offset, c.Length)
	}
	return fmt.Sprintf("%s %v in %s", c.Verb, c.Names, c.Name)
}

// MemDirImage is a MemDir at one moment: what is durable and what may be lost. It
// never changes.
type MemDirImage struct {
	directories []imageDirectory
	files       []imageFile
	changes     []UnsyncedChange
}

// imageNode stands for a file or a directory of an image, by its number.
type imageNode struct {
	number    int
	directory bool
	absent    bool
}

// Directory 0 is the root; first is the number of the first of the changes.
type imageDirectory struct {
	durable map[string]imageNode
	changes []imageChange
	first   int
}

type imageChange struct {
	names []string
	nodes []imageNode
}

type imageFile struct {
	durable []byte
	writes  []fileWrite
	first   int
}

// imaging collects an image.
type imaging struct {
	image       *MemDirImage
	directories map[*memDirectory]int
	files       map[*memContent]int
}

// Image is the file system at this moment.
func (d *MemDir) Image() *MemDirImage {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &imaging{image: &MemDirImage{}, directories: map[*memDirectory]int{}, files: map[*memContent]int{}}
	m.directory(d.root, "")
	return m.image
}

func (m *imaging) node(n memNode, name string) imageNode {
	switch {
	case n.file != nil:
		return imageNode{number: m.file(n.file)}
	case n.directory != nil:
		return imageNode{number: m.directory(n.directory, name), directory: true}
	default:
		return imageNode{absent: true}
	}
}

func (m *imaging) directory(d *memDirectory, name string) int {
	if number, known := m.directories[d]; known {
		return number
	}
	number := len(m.image.directories)
	m.directories[d] = number
	m.image.directories = append(m.image.directories, imageDirectory{})
	i := imageDirectory{durable: map[string]imageNode{}, first: len(m.image.changes)}
	for _, c := range d.changes {
		m.image.changes = append(m.image.changes, UnsyncedChange{Name: name, Verb: c.verb, Names: c.names, Sectors: 1})
	}
	for _, base := range slices.Sorted(maps.Keys(d.durable)) {
		i.durable[base] = m.node(d.durable[base], name+"/"+base)
	}
	for _, c := range d.changes {
		change := imageChange{names: c.names}
		for at, n := range c.nodes {
			change.nodes = append(change.nodes, m.node(n, name+"/"+c.names[at]))
		}
		i.changes = append(i.changes, change)
	}
	m.image.directories[number] = i
	return number
}

func (m *imaging) file(c *memContent) int {
	if number, known := m.files[c]; known {
		return number
	}
	number := len(m.image.files)
	m.files[c] = number
	m.image.files = append(m.image.files, imageFile{durable: c.durable, writes: slices.Clone(c.writes), first: len(m.image.changes)})
	for _, w := range c.writes {
		m.image.changes = append(m.image.changes, UnsyncedChange{
			Name: w.name, Verb: "write", Offset: w.offset, Length: int64(len(w.data)), Sectors: w.sectors(),
		})
	}
	return number
}

func (w *fileWrite) sectors() int {
	return int((w.offset+int64(len(w.data))-1)/block.SectorSize-w.offset/block.SectorSize) + 1
}

// Unsynced lists what a crash may lose. The changes of one directory and the writes
// of one file are in their order.
func (m *MemDirImage) Unsynced() []UnsyncedChange { return m.changes }

// Crash makes the file system that is found after a power loss: everything synced,
// and of what was not the changes of names of each directory up to the first for
// which keep does not say so, and of each write the sectors for which it does. i indexes Unsynced, sector counts from the first that the
// write touches. If full says so for a write that is not kept as a whole, the file
// is nevertheless as long as if it were.
func (m *MemDirImage) Crash(keep func(i, sector int) bool, full func(i int) bool) *MemDir {
	d := NewMemDir()
	files := make([]*memContent, len(m.files))
	for n := range m.files {
		after := m.files[n].crash(keep, full)
		files[n] = &memContent{current: slices.Clone(after), durable: after}
	}
	directories := make([]*memDirectory, len(m.directories))
	for n := range m.directories {
		directories[n] = newDirectory()
	}
	d.root = directories[0]
	for n := range m.directories {
		i, to := &m.directories[n], directories[n]
		for name, node := range i.durable {
			to.durable[name] = node.made(files, directories)
		}
		for at := range i.changes {
			if !keep(i.first+at, 0) {
				break
			}
			change := nameChange{names: i.changes[at].names}
			for _, node := range i.changes[at].nodes {
				change.nodes = append(change.nodes, node.made(files, directories))
			}
			change.apply(to.durable)
		}
		to.current = maps.Clone(to.durable)
	}
	return d
}

func (n imageNode) made(files []*memContent, directories []*memDirectory) memNode {
	switch {
	case n.absent:
		return memNode{}
	case n.directory:
		return memNode{directory: directories[n.number]}
	default:
		return memNode{file: files[n.number]}
	}
}

// crash is what is left of a file. The result is not shared.
func (f *imageFile) crash(keep func(i, sector int) bool, full func(i int) bool) []byte {
	b := slices.Clone(f.durable)
	for n := range f.writes {
		w := &f.writes[n]
		for sector, at := 0, 0; at < len(w.data); sector++ {
			end := min(len(w.data), at+block.SectorSize-int((w.offset+int64(at))%block.SectorSize))
			if keep(f.first+n, sector) {
				b = overwrite(b, w.offset+int64(at), w.data[at:end])
			}
			at = end
		}
		if end := int(w.offset) + len(w.data); end > len(b) && full(f.first+n) {
			b = append(b, make([]byte, end-len(b))...)
		}
	}
	return b
}

// Fork is an independent copy, with what was not synced as such. It is for the death
// of a process: the file system stays, and what the process does in its last moments
// must not reach the copy.
func (d *MemDir) Fork() *MemDir {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &forking{directories: map[*memDirectory]*memDirectory{}, files: map[*memContent]*memContent{}}
	return &MemDir{root: f.directory(d.root), locks: map[string]bool{}, onSync: d.onSync}
}

// forking maps what was to what is.
type forking struct {
	directories map[*memDirectory]*memDirectory
	files       map[*memContent]*memContent
}

func (f *forking) node(n memNode) memNode {
	if n.file != nil && f.files[n.file] == nil {
		f.files[n.file] = &memContent{current: slices.Clone(n.file.current), durable: n.file.durable, writes: slices.Clone(n.file.writes)}
	}
	if n.directory != nil {
		n.directory = f.directory(n.directory)
	}
	if n.file != nil {
		n.file = f.files[n.file]
	}
	return n
}

func (f *forking) directory(d *memDirectory) *memDirectory {
	if known := f.directories[d]; known != nil {
		return known
	}
	to := newDirectory()
	f.directories[d] = to
	for name, node := range d.current {
		to.current[name] = f.node(node)
	}
	for name, node := range d.durable {
		to.durable[name] = f.node(node)
	}
	for _, c := range d.changes {
		change := nameChange{verb: c.verb, names: c.names}
		for _, node := range c.nodes {
			change.nodes = append(change.nodes, f.node(node))
		}
		to.changes = append(to.changes, change)
	}
	return to
}
