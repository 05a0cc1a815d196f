package store

import (
	"errors"
	"slices"
	"strings"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// overwrite replaces the content of a file in memory.
func overwrite(t *testing.T, dir *pebblevfs.MemFS, path string, content []byte) {
	t.Helper()
	f, err := dir.Create(path, pebblevfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(append([]byte(nil), content...))
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// journaled is a rig with some records in its journal, whose store was killed.
// It returns the path of the file and its content.
func journaled(t *testing.T) (g *rig, path string, content []byte) {
	t.Helper()
	g = newRig(t)
	r := g.create(1, testSize)
	for i := range int64(4) {
		g.write(r, i*block.ExtentSize, fill(4096, byte(i+1)))
	}
	names := journals(t, g.dir, "disk")
	if len(names) != 1 {
		t.Fatalf("journals %v", names)
	}
	path = g.dir.PathJoin("disk", names[0])
	var err error
	if content, err = readFile(g.dir, path); err != nil {
		t.Fatal(err)
	}
	if err := g.store.Abandon(); err != nil {
		t.Fatal(err)
	}
	g.device = g.device.Kill(g.steps, func(int, vfs.UnsyncedWrite, int) bool { return true })
	return g, path, content
}

// journals lists the journal files that have been begun, oldest first.
func journals(t *testing.T, fs pebblevfs.FS, dir string) []string {
	t.Helper()
	names, err := journalNames(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == journalSpare })
}

// TestJournalPrefixes kills the process within the writing of its journal.
func TestJournalPrefixes(t *testing.T) {
	_, _, content := journaled(t)
	record := (len(content) - journalHeaderLength) / 4
	for length := 0; length <= len(content); length += 7 {
		g, path, _ := journaled(t)
		overwrite(t, g.dir, path, content[:length])
		g.open()
		whole := 0
		if length > journalHeaderLength {
			whole = (length - journalHeaderLength) / record
		}
		for i := range 4 {
			want := byte(0)
			if i < whole {
				want = byte(i + 1)
			}
			g.expect(g.replica(1), int64(i)*block.ExtentSize, fill(4096, want))
		}
		if err := g.store.Check(); err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
	}
}

// TestDamage changes each byte of the structures that are decoded at open, and
// wants an error that tells where.
func TestDamage(t *testing.T) {
	t.Run("journal", func(t *testing.T) {
		_, _, content := journaled(t)
		for i := range content {
			g, path, _ := journaled(t)
			damaged := append([]byte(nil), content...)
			damaged[i] ^= 0x10
			overwrite(t, g.dir, path, damaged)
			g.options.Device, g.options.Dir = g.device, g.dir
			_, err := Open(g.options)
			if !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "at byte") {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	})
	t.Run("superblock", func(t *testing.T) {
		g := newRig(t)
		if err := g.store.Abandon(); err != nil {
			t.Fatal(err)
		}
		for i := range int64(superblockLength) {
			g.device.Flip(i, 3)
			_, err := Open(g.options)
			want := block.ErrCorrupt
			if i >= 8 && i < 12 {
				want = block.ErrVersion
			}
			if !errors.Is(err, want) || !strings.Contains(err.Error(), "data file") {
				t.Fatalf("byte %d: %v", i, err)
			}
			g.device.Flip(i, 3)
		}
	})
	t.Run("database", func(t *testing.T) {
		g := newRig(t)
		r := g.create(1, testSize)
		g.write(r, 0, fill(1<<20, 5))
		g.flush(r)
		if err := g.store.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := g.store.Abandon(); err != nil {
			t.Fatal(err)
		}
		names, err := g.dir.List("disk/meta")
		if err != nil {
			t.Fatal(err)
		}
		damaged := 0
		for _, name := range names {
			if !strings.HasSuffix(name, ".sst") {
				continue
			}
			path := "disk/meta/" + name
			content, err := readFile(g.dir, path)
			if err != nil {
				t.Fatal(err)
			}
			content[len(content)/3] ^= 1
			overwrite(t, g.dir, path, content)
			damaged++
		}
		if damaged == 0 {
			t.Fatal("nothing to damage")
		}
		s, err := Open(g.options)
		if err == nil {
			g.store = s
			r, replicaErr := s.Replica(replicaID(1))
			if replicaErr != nil {
				t.Fatal(replicaErr)
			}
			err = g.do(r, &Op{Kind: Read, Offset: 0, Length: 1 << 20, Buf: block.NewBuffer(1 << 20)})
		}
		if !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), "disk/meta") {
			t.Fatalf("damaged table: %v", err)
		}
	})
}

// TestFlushSlotTorn damages the newer block of a slot: the older one counts.
func TestFlushSlotTorn(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	for n := uint64(1); n <= 5; n++ {
		g.must(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 2, N: n}})
	}
	g.device.Flip(flushOffset(r.record.slot, r.flush.counter)+30, 1)
	g.powerLoss()
	r = g.replica(1)
	if n := r.FlushNumber(); n.N != 4 {
		t.Fatalf("flush number %v", n)
	}
	g.must(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 2, N: 6}})
	g.powerLoss()
	if n := g.replica(1).FlushNumber(); n.N != 6 {
		t.Fatalf("flush number %v", n)
	}
}

// TestDiskFails wants every error of the disk but a full one to end all writing.
func TestDiskFails(t *testing.T) {
	for name, bad := range map[string]func(io *vfs.IO) bool{
		"write": func(io *vfs.IO) bool { return io.Kind == vfs.Write && io.Offset >= firstExtent*block.ExtentSize },
		"sync":  func(io *vfs.IO) bool { return io.Kind == vfs.Sync },
		"flush record": func(io *vfs.IO) bool {
			return io.Kind == vfs.Write && io.Offset < firstExtent*block.ExtentSize
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			r := g.create(1, testSize)
			g.write(r, 0, fill(4096, 1))
			g.device.Inject(func(io *vfs.IO) error {
				if bad(io) {
					return block.ErrDiskFailed
				}
				return nil
			})
			first := errors.Join(
				g.do(r, writeOp(8192, fill(4096, 2))),
				g.do(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 1}}))
			if !errors.Is(first, block.ErrDiskFailed) {
				t.Fatalf("error not passed on: %v", first)
			}
			g.device.Inject(nil)
			for _, op := range []*Op{
				writeOp(0, fill(4096, 3)), {Kind: Zero, Length: 4096}, {Kind: Flush}, {Kind: Fence}, {Kind: Update, Meta: &block.Update{}},
			} {
				if err := g.do(r, op); !errors.Is(err, block.ErrDiskFailed) {
					t.Fatalf("%s after the failure: %v", op.Kind, err)
				}
			}
			if err := g.store.Create(ReplicaSpec{Replica: replicaID(9), Volume: r.Volume(), Size: 512}); !errors.Is(err, block.ErrDiskFailed) {
				t.Fatalf("create after the failure: %v", err)
			}
			g.expect(r, 0, fill(4096, 1))
			g.device.Inject(func(io *vfs.IO) error { return block.ErrDiskFailed })
			if err := g.do(r, &Op{Kind: Read, Length: 4096, Buf: block.NewBuffer(4096)}); !errors.Is(err, block.ErrDiskFailed) {
				t.Fatalf("failing read: %v", err)
			}
		})
	}
}

// TestNoSpaceOfDevice lets writes fail for want of space although the file was
// allocated, as file systems that copy on write do.
func TestNoSpaceOfDevice(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(4096, 1))
	g.flush(r)
	full := true
	g.device.Inject(func(io *vfs.IO) error {
		if full && io.Kind == vfs.Write {
			return block.ErrNoSpace
		}
		return nil
	})
	for _, op := range []*Op{writeOp(0, fill(4096, 2)), writeOp(1<<20, fill(4096, 2)), {Kind: Zero, Offset: 512, Length: 512}} {
		if err := g.do(r, op); !errors.Is(err, block.ErrNoSpace) {
			t.Fatalf("%s: %v", op.Kind, err)
		}
	}
	full = false
	if err := g.store.Check(); err != nil {
		t.Fatal(err)
	}
	g.expect(r, 0, fill(4096, 1))
	g.expect(r, 1<<20, make([]byte, 4096))
	g.write(r, 1<<20, fill(4096, 3))
	g.flush(r)
	if err := g.store.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestJournalGap: after a kill, the oldest record follows the number that the database
// has, and each other one the record before it; else something was lost.
func TestJournalGap(t *testing.T) {
	killed := func() (g *rig, names []string) {
		g = newRig(t)
		g.options.JournalSize = 256
		g.kill()
		r := g.create(1, testSize)
		for i := range int64(9) {
			g.write(r, i*block.ExtentSize, fill(4096, 7))
		}
		if names = journals(t, g.dir, "disk"); len(names) < 3 {
			t.Fatal(names)
		}
		if err := g.store.Abandon(); err != nil {
			t.Fatal(err)
		}
		return g, names
	}
	for _, lost := range []int{0, 1} {
		g, names := killed()
		if err := g.dir.Remove("disk/" + names[lost]); err != nil {
			t.Fatal(err)
		}
		g.options.Dir, g.options.Device = g.dir, g.device
		if _, err := Open(g.options); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), names[1+lost]+" at byte 64") {
			t.Errorf("journal %d of %d lost: %v", lost, len(names), err)
		}
	}
	g, _ := killed()
	g.open()
	g.expect(g.replica(1), 8*block.ExtentSize, fill(4096, 7))
}
