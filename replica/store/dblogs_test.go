package store

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestDamagedLogs flips each byte of the log and of the manifest of the database: what
// was followed by proof that it had been complete is named with its file, and nothing is
// lost without a word.
func TestDamagedLogs(t *testing.T) {
	path := usedDisk(t)
	breakSealOf(t, path)
	names, err := os.ReadDir(filepath.Join(path, metaName))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, entry := range names {
		list = append(list, entry.Name())
	}
	whole := verify(t, path)
	for _, name := range list {
		if !strings.HasSuffix(name, ".log") && name != currentManifest(list) {
			continue
		}
		file := filepath.Join(path, metaName, name)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		found, silent := 0, 0
		for at := int64(0); at < info.Size(); at += 5 {
			flip(t, file, at)
			v, err := VerifyDisk(t.Context(), path, VerifyOptions{})
			flip(t, file, at)
			if err != nil {
				t.Fatalf("%s, byte %d: %v", name, at, err)
			}
			switch {
			case v.Count > 0:
				found++
				if !strings.Contains(v.Faults[0].What, filepath.Join(path, metaName)) {
					t.Errorf("%s, byte %d: %+v", name, at, v.Faults[0])
				}
			case v.Replicas != whole.Replicas || v.Blocks != whole.Blocks:
				t.Errorf("%s, byte %d: %d replicas and %d blocks are left, without a word", name, at, v.Replicas, v.Blocks)
			default:
				silent++
			}
		}
		t.Logf("%s: %d found, %d without effect", name, found, silent)
		if found < 4*silent {
			t.Errorf("%s: damage of %d bytes was found, of %d not", name, found, silent)
		}
	}
	if v := verify(t, path); v.Count != 0 {
		t.Fatalf("put back: %+v", v.Faults)
	}
}

// logChunk appends a chunk of a log.
func logChunk(b []byte, number uint32, synced uint64, payload string) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, firstLogKind)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint64(b, synced)
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b[at:], maskedChecksum(b[at+6:]))
	return b
}

// TestTornLogs: what a loss of power leaves is no damage.
func TestTornLogs(t *testing.T) {
	const number = 7
	whole := logChunk(logChunk(nil, number, 0, "first"), number, 24, "second")
	third := logChunk(nil, number, 24, "third") // begun before the second was synced
	proof := logChunk(nil, number, uint64(len(whole)), "fourth")
	trailer := []byte{0, 0, 0, 0, 0, 0, trailerKind, number + 1, 0, 0, 0}
	old := logChunk(nil, number-1, 1000, "recycled")
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	broken := make([]byte, len(third))
	cut := append([]byte(nil), whole...)
	cut[30] ^= 1
	padded := append(append([]byte(nil), whole...), logChunk(nil, number, 0, strings.Repeat("x", chunkBlock-len(whole)-logHeader-5))...)
	padded = append(padded, 0, 0, 0, 0, 0)
	for name, c := range map[string]struct {
		content []byte
		want    int
	}{
		"nothing":                          {nil, -1},
		"in order":                         {whole, -1},
		"closed":                           {join(whole, trailer), -1},
		"preallocated":                     {join(whole, make([]byte, 5000)), -1},
		"cut off":                          {join(whole, third[:10]), -1},
		"recycled":                         {join(whole, old[3:]), -1},
		"recycled, whole chunk":            {join(whole, old), -1},
		"the last one torn, out of order":  {join(cut, third), -1},
		"the second damaged, proof behind": {join(cut, third, proof), 24},
		"the second damaged, then closed":  {join(cut, trailer), 24},
		"gone, proof in the next block":    {join(whole, broken, make([]byte, chunkBlock), logChunk(nil, number, 60, "late")), len(whole)},
		"over the end of a block":          {join(padded, proof), -1},
		"damaged behind a block":           {join(padded, broken, logChunk(nil, number, chunkBlock+9, "late")), chunkBlock},
	} {
		l := chunked{content: c.content, number: number, log: true}
		if got := l.damaged(); got != c.want {
			t.Errorf("%s: damage at %d, want %d", name, got, c.want)
		}
	}
}

// FuzzChunked: any content is looked at without a panic.
func FuzzChunked(f *testing.F) {
	f.Add(logChunk(nil, 7, 0, "first"), true)
	f.Add([]byte("MANIFEST"), false)
	f.Fuzz(func(t *testing.T, content []byte, log bool) {
		c := chunked{content: content, number: 7, log: log}
		if at := c.damaged(); at >= len(content) {
			t.Fatalf("damage at %d of %d", at, len(content))
		}
	})
}

// TestDamagedLogIsNotOpened: the store is not opened on what is left, and the disk stays
// as it is.
func TestDamagedLogIsNotOpened(t *testing.T) {
	path := usedDisk(t)
	logs, err := filepath.Glob(filepath.Join(path, metaName, "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	flip(t, logs[0], 9)
	if _, err := OpenDisk(path, diskOptions(t)); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), logs[0]+" at byte 0") {
		t.Fatalf("opened: %v", err)
	}
	flip(t, logs[0], 9)
	if v := verify(t, path); v.Count != 0 || v.Replicas != 2 {
		t.Fatalf("put back: %+v", v)
	}
}

// TestDamagedTables: tables need no seal: each byte that means something has a checksum,
// and what is cut off or gone is missed.
func TestDamagedTables(t *testing.T) {
	path := sealedDisk(t)
	tables, err := filepath.Glob(filepath.Join(path, metaName, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	whole := verify(t, path)
	for _, file := range tables {
		bytes, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		silent := 0
		for at := len(bytes) - 1; at >= 0; at -= 17 {
			flip(t, file, int64(at))
			v, err := VerifyDisk(t.Context(), path, VerifyOptions{})
			flip(t, file, int64(at))
			if err != nil {
				t.Fatalf("%s, byte %d: %v", file, at, err)
			}
			if v.Count == 0 {
				silent++
				if v.Replicas != whole.Replicas || v.Blocks != whole.Blocks {
					t.Errorf("%s, byte %d: %d replicas and %d blocks are left, without a word", file, at, v.Replicas, v.Blocks)
				}
			}
		}
		t.Logf("%s: %d bytes, damage of %d without effect", file, len(bytes), silent)
		err = os.Truncate(file, int64(len(bytes)-1))
		for _, what := range []string{"cut short", "removed"} {
			if v := verify(t, path); v.Count == 0 || !strings.Contains(v.Faults[0].What, strings.TrimSuffix(filepath.Base(file), ".sst")) {
				t.Errorf("%s %s: %+v", file, what, v)
			}
			err = errors.Join(err, os.RemoveAll(file))
		}
		if err := errors.Join(err, os.WriteFile(file, bytes, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}
