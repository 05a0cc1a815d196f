package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// smallDisk mounts a file system of size bytes for one test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	path := t.TempDir()
	if err := unix.Mount("holdfast-test", path, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a file system of %s (the tests run as root): %v", size, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestFullDisk fills a real file system. The reserve keeps everything going that is
// not a write of new blocks, as often as it is asked for: flushes, updates, fences,
// overwrites, trims, new replicas and deletions. Room that is given back is used
// again, and nothing is lost.
func TestFullDisk(t *testing.T) {
	path, options := smallDisk(t, "192m"), diskOptions(t)
	options.Buffered, options.Reserve, options.GrowStep = true, 64<<20, 4<<20
	options.MemTableSize, options.JournalSize = 1<<20, 64<<10
	formatDisk(t, path, options)
	s := openDisk(t, path, options)
	const size = 1 << 30
	for n := byte(1); n <= 2; n++ {
		if err := s.Create(ReplicaSpec{Replica: replicaID(n), Volume: block.VolumeID{ID: testID(2)}, Size: size}); err != nil {
			t.Fatal(err)
		}
	}
	r := replicaOf(t, s)
	full := fillReplica(t, r)
	keepGoing(t, s, r, full)
	if err := s.Failed(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(replicaID(2)); err != nil {
		t.Fatal(err)
	}
	if err := wait(r, &Op{Kind: Zero, Offset: full / 2, Length: full / 2}); err != nil {
		t.Fatal(err)
	}
	if err := wait(r, &Op{Kind: Flush}); err != nil {
		t.Fatal(err)
	}
	if again := fillReplica(t, r); again < full-(8<<20) {
		t.Errorf("%d MiB fit, after a trim of half of them %d", full>>20, again>>20)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDisk(t, path, options)
	defer s.Close()
	r = replicaOf(t, s)
	wantFilled(t, r, full/2)
}

// fillReplica writes from the beginning on until the disk is full, and returns how
// far it came.
func fillReplica(t *testing.T, r *Replica) int64 {
	t.Helper()
	for at := int64(0); ; at += 1 << 20 {
		err := wait(r, writeOp(at, fill(1<<20, byte(1+at>>20%250))))
		switch {
		case errors.Is(err, block.ErrNoSpace) && !errors.Is(err, block.ErrDiskFailed) && at > 0:
			return at
		case err != nil:
			t.Fatalf("write at %d MiB: %v", at>>20, err)
		}
	}
}

func wantFilled(t *testing.T, r *Replica, end int64) {
	t.Helper()
	for at := int64(0); at < end; at += 1 << 20 {
		op := &Op{Kind: Read, Offset: at, Length: 1 << 20, Buf: block.NewBuffer(1 << 20)}
		err := wait(r, op)
		if err != nil || !bytes.Equal(op.Buf.Data, fill(1<<20, byte(1+at>>20%250))) {
			t.Fatalf("%d MiB differs: %v", at>>20, err)
		}
		op.Buf.Release()
	}
}

// keepGoing does what a full disk must still do, many times.
func keepGoing(t *testing.T, s *Store, r *Replica, end int64) {
	t.Helper()
	dirty := block.DirtySet{Replica: replicaID(9), Removal: 1, Regions: block.AllRegions(r.Size())}
	for n := range uint64(300) {
		at := int64(n) << 20 % end
		dirty.Removal++
		for _, op := range []*Op{
			writeOp(at, fill(1<<20, byte(1+at>>20%250))),
			{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: n + 1}},
			{Kind: Update, Meta: &block.Update{SetDirty: []block.DirtySet{dirty}, ClearLog: block.AllRegions(r.Size())}},
			{Kind: Fence, NewFence: block.Fence{Incarnation: 1, Generation: 1, Epoch: block.Epoch(n + 1), Session: 1}},
			{Kind: Zero, Offset: r.Size() - int64(n+1)<<16, Length: 1 << 16},
		} {
			if err := wait(r, op); err != nil {
				t.Fatalf("%s %d on a full disk: %v", op.Kind, n, err)
			}
		}
	}
	if err := s.Create(ReplicaSpec{Replica: replicaID(3), Volume: block.VolumeID{ID: testID(2)}, Size: 1 << 20}); err != nil {
		t.Errorf("create a replica on a full disk: %v", err)
	}
	if err := s.Delete(replicaID(3)); err != nil {
		t.Errorf("delete a replica on a full disk: %v", err)
	}
}

// TestDiskFilledByOthers takes the reserve away, too. What the disk cannot do any
// more ends all writing, as every other error does; reads go on. When there is room
// again, the next open finds what was acknowledged.
func TestDiskFilledByOthers(t *testing.T) {
	path, options := smallDisk(t, "160m"), diskOptions(t)
	options.Buffered, options.Reserve, options.GrowStep = true, 32<<20, 4<<20
	options.MemTableSize, options.JournalSize = 1<<20, 64<<10
	s, r := newReplica(t, path, options, 64<<20)
	for at := int64(0); at < 8<<20; at += 1 << 20 {
		if err := wait(r, writeOp(at, fill(1<<20, byte(1+at>>20%250)))); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(path, "foreign")
	fillFile(t, foreign)
	var failure error
	dirty := block.DirtySet{Replica: replicaID(9), Removal: 1, Regions: block.AllRegions(r.Size())}
	for n := uint64(0); n < 20_000 && failure == nil; n++ {
		dirty.Removal++
		failure = wait(r, &Op{Kind: Update, Meta: &block.Update{SetDirty: []block.DirtySet{dirty}}})
	}
	if failure != nil && (!errors.Is(failure, block.ErrDiskFailed) || errors.Is(failure, block.ErrNoSpace)) {
		t.Errorf("the database has no room: %v", failure)
	}
	wantFilled(t, r, 8<<20)
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Logf("close: %v", err)
	}
	s = openDisk(t, path, options)
	defer s.Close()
	r = replicaOf(t, s)
	wantFilled(t, r, 8<<20)
	if err := wait(r, writeOp(0, fill(1<<20, 7))); err != nil {
		t.Error(err)
	}
}

// TestJournalTurnsOnFullDisk: others fill the file system to the last block, and a journal
// is full. The spare one takes its place, and nothing is lost.
func TestJournalTurnsOnFullDisk(t *testing.T) {
	path, options := smallDisk(t, "160m"), diskOptions(t)
	options.Buffered, options.Reserve, options.GrowStep = true, 32<<20, 4<<20
	options.JournalSize = 64 << 10
	s, r := newReplica(t, path, options, 64<<20)
	if err := wait(r, writeOp(0, fill(1<<20, 1))); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(path, "foreign")
	fillFile(t, foreign)
	first := slices.Max(journals(t, vfs.Default, path))
	for n := 0; slices.Max(journals(t, vfs.Default, path)) == first; n++ {
		if n == 20_000 {
			t.Fatalf("%s is still the journal", first)
		}
		at := int64(n) % 256 * block.BlockSize
		if err := errors.Join(wait(r, &Op{Kind: Zero, Offset: at, Length: block.BlockSize}), wait(r, writeOp(at, fill(block.BlockSize, 2)))); err != nil {
			t.Fatalf("trim and write %d: %v", n, err)
		}
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wait(r, writeOp(0, fill(1<<20, 1))), wait(r, &Op{Kind: Flush}), s.Check(), s.Close()); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	s = openDisk(t, path, options)
	defer s.Close()
	r = replicaOf(t, s)
	wantFilled(t, r, 1<<20)
}

// TestLogTurnsOnFullDisk: others fill the file system to the last block, and the database
// needs a new log, as often as it has spare ones. Metadata changes go on, and nothing is
// lost.
func TestLogTurnsOnFullDisk(t *testing.T) {
	path, options := smallDisk(t, "160m"), diskOptions(t)
	options.Buffered, options.Reserve, options.GrowStep = true, 32<<20, 4<<20
	s, r := newReplica(t, path, options, 64<<20)
	if err := wait(r, writeOp(0, fill(1<<20, 1))); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(path, "foreign")
	fillFile(t, foreign)
	newest := newestLog(t, path)
	dirty := block.DirtySet{Replica: replicaID(9), Removal: 1, Regions: block.AllRegions(r.Size())}
	for turns := 0; turns < spareLogs; {
		dirty.Removal++
		if err := wait(r, &Op{Kind: Update, Meta: &block.Update{SetDirty: []block.DirtySet{dirty}}}); err != nil {
			t.Fatalf("update %d, after %d new logs: %v", dirty.Removal, turns, err)
		}
		if now := newestLog(t, path); now != newest {
			newest, turns = now, turns+1
		} else if dirty.Removal == 300_000 {
			t.Fatalf("%d new logs after %d updates", turns, dirty.Removal)
		}
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wait(r, writeOp(0, fill(1<<20, 1))), wait(r, &Op{Kind: Flush}), s.Check(), s.Close()); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	s = openDisk(t, path, options)
	defer s.Close()
	wantFilled(t, replicaOf(t, s), 1<<20)
}

// newestLog is the name of the log that the database writes.
func newestLog(t *testing.T, path string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(path, metaName, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs of the database: %v, %v", logs, err)
	}
	return slices.Max(logs)
}

// fillFile makes a file that takes all room that is left.
func fillFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
