package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// diskOptions are those of a small store on a real file system.
func diskOptions(t testing.TB) DiskOptions {
	executor := vfs.NewGoExecutor(4)
	t.Cleanup(executor.Close)
	return DiskOptions{
		Options: Options{Executor: executor, Logger: slog.New(slog.DiscardHandler), Reserve: 1 << 20, GrowStep: 64 << 20},
		Workers: 8,
	}
}

func formatDisk(t testing.TB, path string, options DiskOptions) {
	t.Helper()
	if err := FormatDisk(path, options, sampleIdentity()); err != nil {
		t.Fatal(err)
	}
}

func openDisk(t testing.TB, path string, options DiskOptions) *Store {
	t.Helper()
	s, err := OpenDisk(path, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newReplica formats a disk, opens it and makes replica 1 on it, of size bytes.
func newReplica(t testing.TB, path string, options DiskOptions, size int64) (*Store, *Replica) {
	t.Helper()
	formatDisk(t, path, options)
	s := openDisk(t, path, options)
	if err := s.Create(ReplicaSpec{Replica: replicaID(1), Volume: block.VolumeID{ID: testID(2)}, Size: size}); err != nil {
		t.Fatal(err)
	}
	return s, replicaOf(t, s)
}

// replicaOf is replica 1 of a store.
func replicaOf(t testing.TB, s *Store) *Replica {
	t.Helper()
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wait submits op and waits for its end.
func wait(r *Replica, op *Op) error {
	done := make(chan struct{})
	op.Done = func(*Op) { close(done) }
	r.Submit(op)
	<-done
	return op.Err
}

func TestDisk(t *testing.T) {
	path, options := t.TempDir(), diskOptions(t)
	formatDisk(t, path, options)
	s := openDisk(t, path, options)
	if _, err := OpenDisk(path, options); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("second open: %v", err)
	}
	if err := FormatDisk(path, options, sampleIdentity()); !errors.Is(err, block.ErrExists) {
		t.Fatalf("format of a store: %v", err)
	}
	if err := s.Create(ReplicaSpec{Replica: replicaID(1), Volume: block.VolumeID{ID: testID(2)}, Size: testSize}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(r, writeOp(512, fill(100<<10, 7))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := wait(r, &Op{Kind: Flush}); !errors.Is(err, block.ErrClosed) {
		t.Fatalf("flush of a closed store: %v", err)
	}
	s = openDisk(t, path, options)
	defer s.Close()
	if r, err = s.Replica(replicaID(1)); err != nil {
		t.Fatal(err)
	}
	op := &Op{Kind: Read, Offset: 512, Length: 100 << 10, Buf: block.NewBuffer(100 << 10)}
	if err := wait(r, op); err != nil || !bytes.Equal(op.Buf.Data, fill(100<<10, 7)) {
		t.Fatalf("content lost: %v", err)
	}
	extents, err := r.Extents(block.Span{Length: 256 << 10})
	if err != nil || len(extents) != 2 || !extents[0].Data || extents[0].Length != 104<<10 || extents[1].Data {
		t.Fatalf("extents %v: %v", extents, err)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestDiskErrors(t *testing.T) {
	options := diskOptions(t)
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    error
		text    string
	}{
		{"empty directory", func(*testing.T, string) {}, block.ErrNotFound, "has not been formatted"},
		{"foreign cluster", func(t *testing.T, path string) { formatDisk(t, path, options) }, block.ErrForeign, "belongs to cluster"},
		{"other version", func(t *testing.T, path string) {
			formatDisk(t, path, options)
			patch(t, filepath.Join(path, dataName), 8, binary.LittleEndian.AppendUint32(nil, 77))
		}, block.ErrVersion, "run a build that knows format 77"},
		{"damaged superblock", func(t *testing.T, path string) {
			formatDisk(t, path, options)
			patch(t, filepath.Join(path, dataName), 20, []byte{0xff, 0xff})
		}, block.ErrCorrupt, "data file"},
		{"short data file", func(t *testing.T, path string) {
			formatDisk(t, path, options)
			if err := os.Truncate(filepath.Join(path, dataName), 4096); err != nil {
				t.Fatal(err)
			}
		}, block.ErrCorrupt, "data file"},
		{"no metadata", func(t *testing.T, path string) {
			formatDisk(t, path, options)
			if err := os.RemoveAll(filepath.Join(path, metaName)); err != nil {
				t.Fatal(err)
			}
		}, block.ErrCorrupt, "metadata is missing"},
		{"metadata of another disk", func(t *testing.T, path string) {
			formatDisk(t, path, options)
			other := t.TempDir()
			id := sampleIdentity()
			id.Disk.ID = testID(99)
			if err := FormatDisk(other, options, id); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(path, metaName)); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(other, metaName), filepath.Join(path, metaName)); err != nil {
				t.Fatal(err)
			}
		}, block.ErrCorrupt, "metadata is of disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			c.prepare(t, path)
			o := options
			if c.want == block.ErrForeign {
				o.Cluster.ID = testID(55)
			}
			s, err := OpenDisk(path, o)
			if err == nil {
				t.Fatal(errors.Join(errors.New("opened"), s.Close()))
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

func patch(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFormatInterrupted(t *testing.T) {
	options := diskOptions(t)
	path := t.TempDir()
	formatDisk(t, path, options)
	// The name comes last.
	if err := os.Rename(filepath.Join(path, dataName), filepath.Join(path, unfinishedName)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(path, options); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("open of an unfinished store: %v", err)
	}
	formatDisk(t, path, options)
	if err := openDisk(t, path, options).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, dataName)); err != nil {
		t.Fatal(err)
	}
	if err := FormatDisk(path, options, sampleIdentity()); !errors.Is(err, block.ErrExists) {
		t.Fatalf("format over metadata: %v", err)
	}
	if err := os.WriteFile(filepath.Join(path, "photo.jpg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := FormatDisk(path, options, sampleIdentity()); !errors.Is(err, block.ErrExists) || !strings.Contains(err.Error(), "photo.jpg") {
		t.Fatalf("format of a used directory: %v", err)
	}
}

// TestConcurrent uses a store from many goroutines, each on its own part of a
// volume, while a replica beside is made and deleted.
func TestConcurrent(t *testing.T) {
	path, options := t.TempDir(), diskOptions(t)
	options.CacheSize, options.MaxChanged = 4*pageBytes, 50
	s, r := newReplica(t, path, options, 64<<20)
	var users sync.WaitGroup
	for n := range 8 {
		users.Go(func() { useArea(t, r, int64(n)*8<<20+512*int64(n), uint64(n)) })
	}
	users.Go(func() {
		for n := byte(10); n < 20; n++ {
			if err := s.Create(ReplicaSpec{Replica: replicaID(n), Volume: block.VolumeID{ID: testID(3)}, Size: 8 << 20}); err != nil {
				t.Error(err)
				return
			}
			q, err := s.Replica(replicaID(n))
			if err == nil {
				err = wait(q, writeOp(0, fill(1<<20, n)))
			}
			if err == nil {
				err = s.Delete(replicaID(n))
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	users.Go(func() { takeAndDrop(t, r) })
	users.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDisk(t, path, options)
	defer s.Close()
	// Deletions that were cut short go on.
	s.mu.Lock()
	for s.jobs > 0 || len(s.deletions) > 0 || s.pruning != nil {
		s.quiet.Wait()
	}
	s.mu.Unlock()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

// takeAndDrop takes cuts while others write, reads each twice, which must give the
// same, and drops it.
func takeAndDrop(t *testing.T, r *Replica) {
	random := rand.New(rand.NewPCG(77, 1))
	for n := range 40 {
		id := manyName(n)
		if err := wait(r, &Op{Kind: Update, Meta: &block.Update{Cuts: []block.CutRequest{{Snapshot: id}}}}); err != nil {
			t.Error(err)
			return
		}
		at := random.Int64N(60) << 20
		var first []byte
		for range 2 {
			op := &Op{Kind: Read, Snapshot: id, Offset: at, Length: 1 << 20, Buf: block.NewBuffer(1 << 20)}
			if err := wait(r, op); err != nil {
				t.Error(err)
				return
			}
			if first != nil && !bytes.Equal(first, op.Buf.Data) {
				t.Errorf("cut %d has changed", n)
			}
			first = op.Buf.Data
		}
		if _, err := r.Usage(id); err != nil {
			t.Error(err)
		}
		if _, err := r.Changed(id, block.SnapshotID{}, block.Span{Length: r.Size()}); err != nil {
			t.Error(err)
		}
		if n%3 == 0 {
			continue
		}
		if err := wait(r, &Op{Kind: Update, Meta: &block.Update{DropCuts: []block.SnapshotID{id}}}); err != nil {
			t.Error(err)
			return
		}
	}
}

// useArea writes, zeroes, reads and flushes 7 MiB from base on and compares.
func useArea(t *testing.T, r *Replica, base int64, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	want := make([]byte, 7<<20)
	for n := range 150 {
		length := (1 + random.Int64N(400)) * block.SectorSize
		at := random.Int64N(int64(len(want))-length) &^ (block.SectorSize - 1)
		var err error
		switch random.IntN(4) {
		case 0, 1:
			data := fill(int(length), byte(n+1))
			copy(want[at:], data)
			err = wait(r, writeOp(base+at, data))
		case 2:
			clear(want[at : at+length])
			err = wait(r, &Op{Kind: Zero, Offset: base + at, Length: length})
		default:
			op := &Op{Kind: Read, Offset: base + at, Length: length, Buf: block.NewBuffer(int(length))}
			if err = wait(r, op); err == nil && !bytes.Equal(op.Buf.Data, want[at:at+length]) {
				t.Errorf("[%d, +%d) differs", base+at, length)
				return
			}
			if n%16 == 0 {
				err = wait(r, &Op{Kind: Flush})
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}
