package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// breakSealOf makes of a disk that was closed in order one that was killed.
func breakSealOf(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(filepath.Join(path, sealName)); err != nil {
		t.Fatal(err)
	}
}

// sealedDisk is a used disk that was opened once more, so that it has tables, too.
func sealedDisk(t *testing.T) (path string) {
	t.Helper()
	path = usedDisk(t)
	s := openDisk(t, path, diskOptions(t))
	r, err := s.Replica(replicaID(2))
	if err == nil {
		err = wait(r, writeOp(30*block.ExtentSize, fill(4096, 9)))
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused wants a disk not to be opened, for a fault in a file at a byte, to be as it
// was then, and the check to find the same.
func refused(t *testing.T, path, what, file string, at int64) {
	t.Helper()
	before := content(t, filepath.Join(path, metaName))
	s, err := OpenDisk(path, diskOptions(t))
	if err == nil {
		t.Fatalf("%s: opened: %v", what, s.Close())
	}
	if !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), file+" at byte") {
		t.Fatalf("%s: %v", what, err)
	}
	if !maps.Equal(before, content(t, filepath.Join(path, metaName))) {
		t.Fatalf("%s: the attempt has changed the disk", what)
	}
	v, err := VerifyDisk(t.Context(), path, VerifyOptions{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, f := range v.Faults {
		if f.File == file && f.Offset == at/block.BlockSize*block.BlockSize {
			return
		}
	}
	t.Fatalf("%s: byte %d of %s is not among %+v", what, at, file, v.Faults)
}

// TestSealFindsDamage flips bytes of all that the seal has, the ends of the logs and the
// seal itself above all, cuts files short and removes them.
func TestSealFindsDamage(t *testing.T) {
	path := sealedDisk(t)
	names, err := sealedNames(pebblevfs.Default, filepath.Join(path, metaName))
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	files := []string{filepath.Join(path, sealName)}
	for _, name := range names {
		files = append(files, filepath.Join(path, metaName, name))
	}
	for _, file := range files {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		last := len(whole) - 1
		for at := last; at >= 0; at -= 1 + last/20 {
			flip(t, file, int64(at))
			where := int64(at)
			if filepath.Base(file) == sealName {
				where = 0 // one checksum for all of it
			}
			refused(t, path, fmt.Sprintf("%s, byte %d of %d flipped", file, at, len(whole)), file, where)
			flip(t, file, int64(at))
		}
		if last >= 0 {
			err = os.Truncate(file, int64(last))
			refused(t, path, file+" cut short", file, int64(last))
		}
		if filepath.Base(file) != sealName {
			err = errors.Join(err, os.Remove(file))
			refused(t, path, file+" removed", file, 0)
		}
		if err := errors.Join(err, os.WriteFile(file, whole, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if v := verify(t, path); v.Count != 0 {
		t.Fatalf("put back: %+v", v.Faults)
	}
	if err := openDisk(t, path, diskOptions(t)).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSealFindsFlush: the newest flush record is damaged, or was never written.
func TestSealFindsFlush(t *testing.T) {
	path := usedDisk(t)
	data, at := filepath.Join(path, dataName), flushOffset(0, 1)
	flip(t, data, at+30)
	refused(t, path, "flush record damaged", data, at)
	flip(t, data, at+30)
	for what, record := range map[string]*flushRecord{"an older flush record": {replica: replicaID(1), counter: 9}, "no flush record": nil} {
		before, err := os.ReadFile(data)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, block.BlockSize)
		if record != nil {
			record.encode(b)
		}
		patch(t, data, at, b)
		refused(t, path, what, data, at)
		patch(t, data, at, before[at:at+block.BlockSize])
	}
	if v := verify(t, path); v.Count != 0 {
		t.Fatalf("put back: %+v", v.Faults)
	}
}

// closed is a rig whose store was closed in order after a flush, with its seal.
func closed(t *testing.T) (g *rig, sealed []byte) {
	t.Helper()
	g = newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(1<<20, 5))
	g.must(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 1}})
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	g.device = g.device.Fork()
	sealed, err := readFile(g.dir, "disk/seal")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := journalNames(g.dir, "disk"); len(names) > 0 || err != nil {
		t.Fatalf("journals %v behind a seal: %v", names, err)
	}
	return g, sealed
}

// watchedDir and watchedDevice ask changing before each change.
type watchedDir struct {
	vfs.Dir
	changing func(what string)
}

func (d *watchedDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	d.changing("create " + name)
	return d.Dir.Create(name, c)
}

func (d *watchedDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	d.changing("create " + to)
	return d.Dir.ReuseForWrite(from, to, c)
}

func (d *watchedDir) Rename(from, to string) error {
	d.changing("rename " + from)
	return d.Dir.Rename(from, to)
}

func (d *watchedDir) Remove(name string) error {
	if name != "disk/seal" {
		d.changing("remove " + name)
	}
	return d.Dir.Remove(name)
}

type watchedDevice struct {
	*vfs.MemDevice
	changing func(what string)
}

func (d *watchedDevice) Submit(io *vfs.IO) {
	if io.Kind == vfs.Write {
		d.changing("write")
	}
	d.MemDevice.Submit(io)
}

func (d *watchedDevice) Do(io *vfs.IO) error {
	if io.Kind == vfs.Write {
		d.changing("write")
	}
	return d.MemDevice.Do(io)
}

// keptSeal does not remove a seal; lostSync does not sync the directory that it is in.
type keptSeal struct{ vfs.Dir }

func (d keptSeal) Remove(name string) error {
	if name == "disk/seal" {
		return nil
	}
	return d.Dir.Remove(name)
}

type lostSync struct{ vfs.Dir }

func (d lostSync) OpenDir(name string) (pebblevfs.File, error) {
	f, err := d.Dir.OpenDir(name)
	if name == "disk" {
		f = &lyingFile{File: f, dir: &lyingDir{noSync: true}}
	}
	return f, err
}

// behindSeal opens a store, and reports what it changed while a loss of power would have
// left the seal there, in the order of the changes.
func behindSeal(t *testing.T, g *rig, under func(vfs.Dir) vfs.Dir) (changes []string) {
	t.Helper()
	var mu sync.Mutex // the database has goroutines of its own
	all := 0
	changing := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		all++
		if _, err := g.dir.CrashClone(pebblevfs.CrashCloneCfg{}).Stat("disk/seal"); err == nil {
			changes = append(changes, what)
		}
	}
	g.options.Dir = under(&watchedDir{Dir: g.dir, changing: changing})
	g.options.Device = &watchedDevice{MemDevice: g.device, changing: changing}
	s, err := Open(g.options)
	if err != nil {
		t.Fatal(err)
	}
	g.store = s
	g.write(g.replica(1), 0, fill(4096, 6))
	if err := s.Abandon(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if all < 5 {
		t.Fatalf("%d changes were seen", all)
	}
	return changes
}

// TestSealGoesFirst: nothing changes while a loss of power would leave the seal there,
// and the test is able to fail.
func TestSealGoesFirst(t *testing.T) {
	honest := func(d vfs.Dir) vfs.Dir { return d }
	g, _ := closed(t)
	if changes := behindSeal(t, g, honest); len(changes) > 0 {
		t.Errorf("changed behind the seal: %q", changes)
	}
	// A process before that was killed when it had removed the seal.
	g, _ = closed(t)
	if err := g.dir.Remove("disk/seal"); err != nil {
		t.Fatal(err)
	}
	if changes := behindSeal(t, g, honest); len(changes) > 0 {
		t.Errorf("killed at the removal, changed behind the seal: %q", changes)
	}
	for name, lie := range map[string]func(vfs.Dir) vfs.Dir{
		"not removed": func(d vfs.Dir) vfs.Dir { return keptSeal{d} },
		"not synced":  func(d vfs.Dir) vfs.Dir { return lostSync{d} },
	} {
		g, _ := closed(t)
		if changes := behindSeal(t, g, lie); len(changes) == 0 {
			t.Errorf("%s: nobody noticed", name)
		}
	}
}

// TestSealOfAnOlderBuild: a build that knows no seals leaves them where they are, and
// changes what it likes: the store opens with what that build did, killed or closed.
func TestSealOfAnOlderBuild(t *testing.T) {
	for _, killed := range []bool{false, true} {
		g, sealed := closed(t)
		g.open()
		g.write(g.replica(1), 2<<20, fill(1<<20, 6))
		g.must(g.replica(1), &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 2}})
		if killed {
			g.write(g.replica(1), 3<<20, fill(4096, 6))
			g.dir = keepAll(g.dir)
			g.device = g.device.Kill(g.steps, func(int, vfs.UnsyncedWrite, int) bool { return true })
			if err := g.store.Abandon(); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := g.store.Close(); err != nil {
				t.Fatal(err)
			}
			g.device = g.device.Fork()
		}
		overwrite(t, g.dir, "disk/seal", sealed)
		g.open()
		g.expect(g.replica(1), 2<<20, fill(1<<20, 6))
		if killed {
			g.expect(g.replica(1), 3<<20, fill(4096, 6))
		}
		if _, err := g.dir.Stat("disk/seal"); err == nil {
			t.Error("the seal that does not count is still there")
		}
	}
}

// TestNoSealOnFailure: what failed is not sealed, and what is full is closed without.
func TestNoSealOnFailure(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.device.Inject(func(io *vfs.IO) error {
		if io.Kind == vfs.Sync {
			return block.ErrDiskFailed
		}
		return nil
	})
	if err := g.do(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 1}}); err == nil {
		t.Fatal("flushed")
	}
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dir.Stat("disk/seal"); err == nil {
		t.Fatal("a failed store was sealed")
	}

	g = newRig(t)
	if err := g.store.Abandon(); err != nil {
		t.Fatal(err)
	}
	g.options.Dir = fullAtSeal{g.dir}
	s, err := Open(g.options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dir.Stat("disk/seal"); err == nil {
		t.Fatal("there was room for a seal")
	}
	g.device = g.device.Fork()
	g.open()
}

// fullAtSeal has no room for a seal.
type fullAtSeal struct{ vfs.Dir }

func (d fullAtSeal) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if name == "disk/"+unfinishedSeal {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	return d.Dir.Create(name, c)
}

// TestKilledAtTheSeal kills the process, or cuts its power, before each change that a
// store makes from the beginning of Close to the end of Open.
func TestKilledAtTheSeal(t *testing.T) {
	points := 0
	for at := 1; ; at++ {
		g := newRig(t)
		if err := g.store.Abandon(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex // the database has goroutines of its own
		count := -1       // not yet
		var dirs []*pebblevfs.MemFS
		var device *vfs.MemDevice
		changing := func(string) {
			mu.Lock()
			defer mu.Unlock()
			if count < 0 {
				return
			}
			if count++; count == at {
				dirs = []*pebblevfs.MemFS{keepAll(g.dir), g.dir.CrashClone(pebblevfs.CrashCloneCfg{})}
				device = g.device.Fork()
			}
		}
		open := func() {
			g.options.Dir, g.options.Device = &watchedDir{Dir: g.dir, changing: changing}, g.device
			s, err := Open(g.options)
			if err != nil {
				t.Fatal(err)
			}
			g.store = s
		}
		g.options.JournalSize = 256
		open()
		r := g.create(1, testSize)
		for i := range int64(12) {
			g.write(r, i*block.ExtentSize, fill(4096, 7))
		}
		g.flush(r)
		if names := journals(t, g.dir, "disk"); len(names) < 3 {
			t.Fatal(names)
		}
		mu.Lock()
		count = 0
		mu.Unlock()
		if err := g.store.Close(); err != nil {
			t.Fatal(err)
		}
		g.device = g.device.Fork()
		open()
		if err := g.store.Abandon(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		none := dirs == nil
		mu.Unlock()
		if none {
			break
		}
		points++
		for i, dir := range dirs {
			g.dir, g.device = dir, device.Fork()
			g.options.Incarnation.DiskSequence += uint64(i)
			g.open()
			for i := range int64(12) {
				g.expect(g.replica(1), i*block.ExtentSize, fill(4096, 7))
			}
			if err := errors.Join(g.store.Check(), g.store.Abandon()); err != nil {
				t.Fatalf("change %d: %v", at, err)
			}
		}
	}
	if t.Logf("%d changes", points); points < 12 {
		t.Errorf("only %d changes", points)
	}
}

// hiddenSeal shows no seal, as if nobody verified it.
type hiddenSeal struct{ vfs.Dir }

func (d hiddenSeal) Open(name string, options ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	if name == "disk/seal" {
		return nil, os.ErrNotExist
	}
	return d.Dir.Open(name, options...)
}

// TestSealIsNeeded: the disk has lost the end of the log, which nothing but the seal shows.
func TestSealIsNeeded(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		g, _ := closed(t)
		names, err := g.dir.List("disk/meta")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".log") })
		log := "disk/meta/" + names[len(names)-1]
		content, err := readFile(g.dir, log)
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, g.dir, log, content[:len(content)-logTrailer-1])
		g.options.Dir, g.options.Device = g.dir, g.device
		if hidden {
			g.options.Dir = hiddenSeal{g.dir}
		}
		s, err := Open(g.options)
		switch {
		case hidden && err == nil:
			if err := s.Abandon(); err != nil {
				t.Error(err)
			}
		case hidden:
			t.Errorf("found without the seal: %v", err)
		case !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), log+" at byte 0"):
			t.Errorf("opened with a log cut short: %v", err)
		}
	}
}
