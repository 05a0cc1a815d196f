package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// usedDisk is a disk on a real file system with two replicas, one of which is about to
// be deleted, all flushed. Nothing has it open.
func usedDisk(t *testing.T) (path string) {
	t.Helper()
	path = t.TempDir()
	options := diskOptions(t)
	formatDisk(t, path, options)
	s := openDisk(t, path, options)
	for n := byte(1); n <= 2; n++ {
		if err := s.Create(ReplicaSpec{Replica: replicaID(n), Volume: block.VolumeID{ID: testID(100 + n)}, Size: testSize}); err != nil {
			t.Fatal(err)
		}
		r, err := s.Replica(replicaID(n))
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(20) {
			if err := wait(r, writeOp(i*block.ExtentSize, fill(20<<10, byte(i)+n))); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(
			wait(r, &Op{Kind: Zero, Offset: 4 * block.ExtentSize, Length: block.ExtentSize}),
			wait(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 1}}),
			wait(r, &Op{Kind: Update, Meta: &block.Update{ClearLog: r.Log()}}),
		); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// content is a sum of every file below a directory.
func content(t *testing.T, path string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		sums[name] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func verify(t *testing.T, path string) *Verification {
	t.Helper()
	before := content(t, path)
	v, err := VerifyDisk(t.Context(), path, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, content(t, path)) {
		t.Fatal("looking at the disk changed it")
	}
	return v
}

// TestVerifyDisk: a disk in order has no faults, all of it is compared, and it is
// locked meanwhile.
func TestVerifyDisk(t *testing.T) {
	path := usedDisk(t)
	if v := verify(t, path); v.Count != 0 || v.Unsettled != 0 || v.Replicas != 2 || v.Blocks != 2*19*5 || v.Identity != sampleIdentity() {
		t.Fatalf("found %+v", v)
	}
	var last, total int64
	if _, err := VerifyDisk(t.Context(), path, VerifyOptions{Progress: func(d, n int64) { last, total = max(last, d), n }}); err != nil || last != total || total != 2*19*5*block.BlockSize {
		t.Fatalf("progress %d of %d: %v", last, total, err)
	}
	s := openDisk(t, path, diskOptions(t))
	if _, err := VerifyDisk(t.Context(), path, VerifyOptions{}); !errors.Is(err, block.ErrInUse) {
		t.Fatalf("a disk in use: %v", err)
	}
	// Killed with something in the journal: it counts.
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(r, writeOp(30*block.ExtentSize, fill(4096, 9))); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, killed); v.Count != 0 || v.Blocks != 2*19*5+1 && v.Blocks != 2*19*5 {
		t.Fatalf("after a kill: %+v", v)
	}
	if _, err := VerifyDisk(t.Context(), t.TempDir(), VerifyOptions{}); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("an empty directory: %v", err)
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x41
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyDataFile: a flipped bit in the superblock, in a flush slot and in each block
// is found at its place.
func TestVerifyDataFile(t *testing.T) {
	path := usedDisk(t)
	data := filepath.Join(path, dataName)
	dev, err := vfs.OpenOSDevice(data, vfs.OSDeviceOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	executor := vfs.NewGoExecutor(2)
	defer executor.Close()
	s, _, err := openShadow(path, dev, executor)
	if err != nil {
		t.Fatal(err)
	}
	offsets := []int64{8, 40, 80, flushOffset(0, 1) + 20}
	if err := s.eachEntry(func(e *mapEntry) error {
		offsets = append(offsets, e.state.at(int(e.extent%5))*block.BlockSize+int64(e.extent)*7)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), dev.Close()); err != nil {
		t.Fatal(err)
	}
	for _, at := range offsets {
		flip(t, data, at)
		v, err := VerifyDisk(t.Context(), path, VerifyOptions{})
		flip(t, data, at)
		if at >= 8 && at < 12 {
			if !errors.Is(err, block.ErrVersion) {
				t.Fatalf("byte %d: %v", at, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Faults) != 1 || v.Faults[0].File != data || v.Faults[0].Offset != at/block.BlockSize*block.BlockSize {
			t.Fatalf("byte %d: found %+v", at, v.Faults)
		}
	}
	if v := verify(t, path); v.Count != 0 {
		t.Fatalf("put back, found %+v", v.Faults)
	}
}

// TestVerifyMetadata flips bytes in every file of the metadata: whatever comes of it, it
// is no panic, and what is found names a file.
func TestVerifyMetadata(t *testing.T) {
	path := usedDisk(t)
	found := map[string]int{}
	for name := range content(t, filepath.Join(path, metaName)) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < min(info.Size(), 64<<10); at += max(1, min(info.Size(), 64<<10)/24) {
			flip(t, name, at)
			v, err := VerifyDisk(t.Context(), path, VerifyOptions{})
			flip(t, name, at)
			if err != nil {
				t.Fatalf("%s, byte %d: %v", name, at, err)
			}
			for _, fault := range v.Faults {
				if !strings.HasPrefix(fault.File, path) || fault.What == "" {
					t.Errorf("%s, byte %d: found %+v", name, at, fault)
				}
			}
			if v.Count > 0 {
				kind := strings.TrimRight(strings.SplitN(filepath.Base(name), "-", 2)[0], "0123456789.")
				found[fmt.Sprintf("%s%s", kind, filepath.Ext(name))]++
			}
		}
	}
	t.Logf("damage found by kind of file: %v", found)
	if len(found) == 0 {
		t.Fatal("no damage was found")
	}
}

// cutDisk is a used disk whose first replica was cut, written and killed after that.
func cutDisk(t *testing.T) (path string) {
	t.Helper()
	path = usedDisk(t)
	s := openDisk(t, path, diskOptions(t))
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		wait(r, &Op{Kind: Update, Meta: &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(7), Epoch: 1}}}}),
		wait(r, writeOp(0, fill(8<<10, 77))),
		wait(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 2}}),
		wait(r, writeOp(2*block.ExtentSize, fill(4<<10, 78))),
	); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return killed
}

// TestVerifyCuts: what is kept for cuts is verified and shown as what the heads have.
func TestVerifyCuts(t *testing.T) {
	path := cutDisk(t)
	if v := verify(t, path); v.Count != 0 || v.Blocks <= 2*19*5 {
		t.Fatalf("found %+v", v)
	}
	if rows := inspected(t, path, "cuts"); len(rows) != 1 || rows[0][2] != snapshotID(7).String() || rows[0][5] != "true" {
		t.Errorf("cuts %v", rows)
	}
	if rows := inspected(t, path, "journal"); len(rows) == 0 {
		t.Error("nothing in the journal")
	}
	i, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept *MapBlock
	err = i.Each("map", func(r Record) error {
		if m, ok := r.(MapRecord); ok && m.KeptFor != headLayer && m.Extent == 0 {
			kept = &m.Blocks[0]
		}
		return nil
	})
	if err := errors.Join(err, i.Close()); err != nil || kept == nil {
		t.Fatalf("nothing is kept for the cut: %v", err)
	}
	data := filepath.Join(path, dataName)
	flip(t, data, kept.Byte+99)
	v := verify(t, path)
	if len(v.Faults) != 1 || v.Faults[0].Offset != kept.Byte || !strings.Contains(v.Faults[0].What, "kept for snapshots") {
		t.Fatalf("found %+v", v.Faults)
	}
}
