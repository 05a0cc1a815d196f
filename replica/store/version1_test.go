package store

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// golden1 reads a golden file of version 1, which lacks the zeros at its end.
func golden1(t *testing.T, name string, length int) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "v1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, length-len(b))...)
}

// TestVersion1Golden reads every structure of version 1 that has changed since.
func TestVersion1Golden(t *testing.T) {
	id, version, err := decodeSuperblock(golden1(t, "superblock", superblockLength))
	if err != nil || id != sampleIdentity() || version != 1 {
		t.Errorf("superblock: %+v, version %d: %v", id, version, err)
	}
	want := &entryState{layer: firstLayer, first: wholePlacement(0x8421, 777), data: 0x8421}
	for i := range want.sums {
		if want.data&(1<<i) != 0 {
			want.sums[i] = 0x01010101 * uint32(i+1)
		}
	}
	var e entryState
	if err := decodeEntry(golden1(t, "map-entry", 27), &e); err != nil || e != *want {
		t.Errorf("map entry %+v: %v", e, err)
	}
	journal := golden1(t, "journal", 150)
	_, inc, version, err := decodeJournalHeader(journal[:journalHeaderLength])
	if err != nil || inc != sampleIncarnation() || version != 1 {
		t.Fatalf("journal header %+v, version %d: %v", inc, version, err)
	}
	var r journalRecord
	rest, err := decodeJournalRecord(journal[journalHeaderLength:], version, &r)
	if err != nil || r.seq != 41 || r.handle != 3 || r.extent != 99 || len(r.states) != 1 || r.states[0].layer != headLayer || *r.states[0].state != *want {
		t.Errorf("first record %+v: %v", r, err)
	}
	rest, err = decodeJournalRecord(rest, version, &r)
	if err != nil || r.seq != 42 || len(r.states) != 1 || r.states[0].state != nil || len(rest) != 0 {
		t.Errorf("second record %+v: %v", r, err)
	}
	view, err := decodeView(golden1(t, "view", len(encodeView(sampleView()))-4-32))
	if err != nil || len(view.Replicas) != 2 || view.Snapshots != nil {
		t.Errorf("view %+v: %v", view, err)
	}
}

// toVersion1 rewrites a killed store, whose only replica has no cuts, as version 1
// would have left it, with a journal that has one extent more.
func toVersion1(t *testing.T, g *rig, journaled uint32) {
	t.Helper()
	db, err := pebble.Open("disk/meta", g.store.databaseOptions())
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	err = scan(db, []byte{keyMap}, []byte{keyMap + 1}, func(key, value []byte) error {
		var e entryState
		if err := decodeEntry(value, &e); err != nil {
			return err
		}
		_, extent, err := splitMapKey(key)
		if err != nil || extent == journaled {
			return err
		}
		return b.Set(key, appendFirstEntry(nil, &e), nil)
	})
	used := handleKey(nil, keyUsed, 1)
	value, closer, getErr := db.Get(used)
	if err != nil || getErr != nil {
		t.Fatal(err, getErr)
	}
	extents := binary.LittleEndian.Uint64(value) / block.BlocksPerExtent
	for _, err := range []error{
		closer.Close(),
		b.Set(used, binary.LittleEndian.AppendUint64(nil, extents), nil),
		b.Set([]byte{keyIdentity}, encodeSuperblockOf(g.identity, 1), nil),
		b.Commit(pebble.Sync), db.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	buf := block.NewBuffer(block.BlockSize)
	clear(buf.Data)
	copy(buf.Data, encodeSuperblockOf(g.identity, 1))
	if err := vfs.Do(g.device, &vfs.IO{Kind: vfs.Write, Length: block.BlockSize, Data: buf.Data}); err != nil {
		t.Fatal(err)
	}
}

// version1Journal is a journal of version 1 with the state of one extent.
func version1Journal(g *rig, seq uint64, extent uint32, e *entryState) []byte {
	header := encodeJournalHeader(g.identity.Disk, g.options.Incarnation)
	binary.LittleEndian.PutUint32(header[8:], 1)
	b := binary.LittleEndian.AppendUint32(header[:journalHeaderLength-4], block.Checksum(header[:journalHeaderLength-4]))
	payload := binary.LittleEndian.AppendUint64(nil, seq)
	payload = binary.LittleEndian.AppendUint32(payload, 1)
	payload = appendFirstEntry(binary.LittleEndian.AppendUint32(payload, extent), e)
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	head = binary.LittleEndian.AppendUint32(head, block.Checksum(payload))
	head = binary.LittleEndian.AppendUint32(head, block.Checksum(head))
	return append(append(b, head...), payload...)
}

// TestOpensVersion1 opens a store of version 1 that was killed: what its maps and
// its journal have is there, it can keep cuts, and it is of this version then.
func TestOpensVersion1(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(200<<10, 1))
	g.flush(r)
	g.write(r, 1<<20, fill(8<<10, 2))
	extra := r.pages[16/pageExtents].entries[16%pageExtents].entryState
	seq := g.store.journal.seq
	if err := g.store.Abandon(); err != nil {
		t.Fatal(err)
	}
	names := journals(t, g.dir, "disk")
	if len(names) != 1 {
		t.Fatalf("journals %v", names)
	}
	g.device = g.device.Kill(g.steps, func(int, vfs.UnsyncedWrite, int) bool { return true })
	toVersion1(t, g, 16)
	overwrite(t, g.dir, "disk/"+names[0], version1Journal(g, seq, 16, &extra))
	g.open()
	for range 2 {
		r = g.replica(1)
		g.check()
		g.expect(r, 0, fill(200<<10, 1))
		g.expect(r, 1<<20, fill(8<<10, 2))
		if want := int64(5 * block.ExtentSize); r.Used() != want {
			t.Fatalf("%d bytes used, want %d", r.Used(), want)
		}
		if _, version, err := readSuperblock(g.device); err != nil || version != Version {
			t.Fatalf("superblock of version %d: %v", version, err)
		}
		g.powerLoss()
	}
	r = g.replica(1)
	g.cut(r, 1)
	g.flush(r)
	g.write(r, 4096, fill(4096, 3))
	g.expectCut(r, 1, 0, fill(200<<10, 1))
	g.flush(r)
	g.check()
}
