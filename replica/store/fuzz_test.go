package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sampleIdentity() Identity {
	return Identity{Cluster: block.ClusterID{ID: testID(1)}, Node: block.NodeID{ID: testID(2)}, Disk: block.DiskID{ID: testID(3)}}
}

func sampleIncarnation() block.Incarnation {
	return block.Incarnation{Boot: testID(4), DiskSequence: 5, Superblock: 6}
}

func sampleEntry() *entryState {
	e := &entryState{layer: 6}
	e.set([]placement{
		wholePlacement(0x8400, 777),
		makePlacement(0x0020, placementSlot, 888*block.BlocksPerExtent-3),
		makePlacement(0x0001, placementSlot|placementForeign, 999*block.BlocksPerExtent+4),
	})
	for i := range e.sums {
		if e.data&(1<<i) != 0 {
			e.sums[i] = 0x01010101 * uint32(i+1)
		}
	}
	return e
}

func sampleView() *block.View {
	return &block.View{
		Volume: block.VolumeID{ID: testID(10)}, Generation: 2, Cluster: 3, Attachment: block.AttachmentID{ID: testID(11)},
		Owner: block.NodeID{ID: testID(2)}, Start: block.StartID{ID: testID(12)}, Epoch: 5, Revision: 9, Size: 1 << 30, NotWaitedOut: true,
		Replicas: []block.Member{
			{ID: replicaID(20), Node: block.NodeID{ID: testID(2)}, Disk: block.DiskID{ID: testID(3)}, InSync: true, Incarnation: sampleIncarnation()},
			{ID: replicaID(21), Removed: 8},
		},
		Snapshots: []block.Snapshot{{ID: block.SnapshotID{ID: testID(30)}, Size: 1 << 29, Created: 77}},
	}
}

func sampleFlush() *flushRecord {
	return &flushRecord{
		replica: replicaID(20), counter: 7, number: block.FlushNumber{Epoch: 5, N: 6},
		confirmed: []block.Confirmed{{Replica: replicaID(21), Flush: block.FlushNumber{Epoch: 5, N: 4}}},
	}
}

func sampleRecord() *replicaRecord {
	return &replicaRecord{handle: 3, volume: block.VolumeID{ID: testID(10)}, size: 1 << 30, slot: 2, deleting: true}
}

// samples are the structures whose bytes are pinned.
func samples() map[string][]byte {
	flush := make([]byte, block.BlockSize)
	sampleFlush().encode(flush)
	journal := encodeJournalHeader(sampleIdentity().Disk, sampleIncarnation())
	journal = appendSampleRecord(journal, 41, keptState{state: sampleEntry()}, keptState{layer: 5, state: &entryState{layer: 2}})
	journal = appendSampleRecord(journal, 42, keptState{}, keptState{layer: 4})
	var space allocator
	space.grow(1 << 20)
	space.persist(129)
	space.persist(4095)
	return map[string][]byte{
		"superblock":     encodeSuperblock(sampleIdentity()),
		"flush-record":   flush,
		"journal":        journal,
		"map-entry":      appendEntry(nil, sampleEntry()),
		"map-key":        mapKey(nil, 3, 99),
		"dirty-page-key": dirtyPageKey(nil, 3, replicaID(21), 7),
		"allocation":     space.appendAllocationPage(nil, 0),
		"regions":        appendRegionPage(nil, &block.RegionPage{Words: [block.RegionPageWords]uint64{1, 2, 0, 1 << 63}}),
		"fence":          encodeFence(block.Fence{Incarnation: 1, Generation: 2, Epoch: 3, Session: 4}),
		"view":           encodeView(sampleView()),
		"replica":        sampleRecord().encode(),
		"cut":            sampleCut().encode(),
		"cut-key":        cutKey(3, 5),
		"line":           lineRecord{head: 6, origin: 2, originLayer: 4}.encode(),
		"undo-key":       undoKey(nil, 3, 99, 5),
		"change-key":     changeKey(nil, 3, 6, 99),
		"split-key":      splitKey(nil, 888),
		"seal":           sampleSeal().encode(),
	}
}

func appendSampleRecord(b []byte, seq uint64, states ...keptState) []byte {
	start := len(b)
	b = beginJournalRecord(b, seq, 3, 99)
	for _, k := range states {
		b = appendRecordState(b, start, k.layer, k.state)
	}
	return endJournalRecord(b, start)
}

func sampleCut() *cut {
	return &cut{Cut: block.Cut{Snapshot: block.SnapshotID{ID: testID(30)}, Epoch: 5, Size: 1 << 30, Valid: true, Kept: true}, dropping: true}
}

func sampleSeal() *seal {
	return &seal{
		flushes: []sealedFlush{{slot: 2, counter: 7}},
		files:   []sealedFile{{name: "000004.log", length: 4097, sums: []uint32{0x01020304, 0x05060708}}, {name: "marker.manifest.000002.MANIFEST-000003"}},
	}
}

// TestGolden pins the bytes of every structure.
func TestGolden(t *testing.T) {
	for name, encoded := range samples() {
		path := filepath.Join("testdata", "v2", name+".hex")
		text := hexLines(encoded)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != text {
			t.Errorf("%s is now\n%s", name, text)
		}
	}
}

// hexLines prints 32 bytes a line, without the zeros at the end.
func hexLines(b []byte) string {
	var out strings.Builder
	b = bytes.TrimRight(b, "\x00")
	for len(b) > 0 {
		n := min(32, len(b))
		out.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return out.String()
}

// fuzzDecoder checks that a decoder never panics and that what it accepts has
// exactly one encoding.
func fuzzDecoder(f *testing.F, sample string, again func(b []byte) ([]byte, error)) {
	good := samples()[sample]
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := again(b)
		if err == nil && !bytes.Equal(out, b) {
			t.Fatalf("%x is accepted and encoded as %x", b, out)
		}
	})
}

func FuzzSuperblock(f *testing.F) {
	fuzzDecoder(f, "superblock", func(b []byte) ([]byte, error) {
		id, version, err := decodeSuperblock(b)
		if err == nil {
			b = b[:superblockLength]
			if !bytes.Equal(encodeSuperblockOf(id, version), b) {
				return nil, nil
			}
		}
		return b, err
	})
}

func FuzzFlushRecord(f *testing.F) {
	fuzzDecoder(f, "flush-record", func(b []byte) ([]byte, error) {
		r, err := decodeFlush(b)
		if err != nil {
			return nil, err
		}
		out := make([]byte, block.BlockSize)
		r.encode(out)
		return out, nil
	})
}

func FuzzMapEntry(f *testing.F) {
	fuzzDecoder(f, "map-entry", func(b []byte) ([]byte, error) {
		var e entryState
		if err := decodeEntry(b, &e); err != nil {
			return nil, err
		}
		if b[0]&entryMark == 0 {
			return appendFirstEntry(nil, &e), nil
		}
		return appendEntry(nil, &e), nil
	})
}

// appendFirstEntry encodes e as version 1 did.
func appendFirstEntry(b []byte, e *entryState) []byte {
	if e.data == 0 {
		return append(b, 0, 0, 0)
	}
	b = binary.LittleEndian.AppendUint64(append(b, 1), uint64(e.first))
	b = append(b, 0, 0)
	for i, sum := range e.sums {
		if e.data&(1<<i) != 0 {
			b = binary.LittleEndian.AppendUint32(b, sum)
		}
	}
	return b
}

func FuzzCut(f *testing.F) {
	fuzzDecoder(f, "cut", func(b []byte) ([]byte, error) {
		c, err := decodeCut(b)
		return c.encode(), err
	})
}

func FuzzLine(f *testing.F) {
	fuzzDecoder(f, "line", func(b []byte) ([]byte, error) {
		l, err := decodeLine(b)
		return l.encode(), err
	})
}

func FuzzSeal(f *testing.F) {
	fuzzDecoder(f, "seal", func(b []byte) ([]byte, error) {
		q, err := decodeSeal(b)
		if err != nil {
			return nil, err
		}
		return q.encode(), nil
	})
	// Behind a right checksum, too.
	f.Add(binary.LittleEndian.AppendUint32([]byte("HFSEALED\x02\x00\x00\x00\xff\xff\xff\xff"), block.Checksum([]byte("HFSEALED\x02\x00\x00\x00\xff\xff\xff\xff"))))
}

func FuzzView(f *testing.F) {
	fuzzDecoder(f, "view", func(b []byte) ([]byte, error) {
		v, err := decodeView(b)
		if err != nil {
			return nil, err
		}
		return encodeView(v), nil
	})
}

func FuzzFence(f *testing.F) {
	fuzzDecoder(f, "fence", func(b []byte) ([]byte, error) {
		v, err := decodeFence(b)
		return encodeFence(v), err
	})
}

func FuzzReplicaRecord(f *testing.F) {
	fuzzDecoder(f, "replica", func(b []byte) ([]byte, error) {
		r, err := decodeReplicaRecord(b)
		return r.encode(), err
	})
}

func FuzzRegions(f *testing.F) {
	fuzzDecoder(f, "regions", func(b []byte) ([]byte, error) {
		var s block.Regions
		err := decodeRegionPage(b, &s, 3)
		if err != nil {
			return nil, err
		}
		return appendRegionPage(nil, &s[0]), nil
	})
}

func FuzzAllocation(f *testing.F) {
	fuzzDecoder(f, "allocation", func(b []byte) ([]byte, error) {
		var a allocator
		a.grow(4000)
		if err := a.loadAllocationPage(0, b); err != nil {
			return nil, err
		}
		return a.appendAllocationPage(nil, 0), nil
	})
}

func FuzzJournal(f *testing.F) {
	fuzzDecoder(f, "journal", func(b []byte) ([]byte, error) {
		if len(b) < journalHeaderLength {
			return nil, io.ErrUnexpectedEOF
		}
		disk, inc, version, err := decodeJournalHeader(b[:journalHeaderLength])
		if err != nil || version == 1 {
			return b, err
		}
		out := encodeJournalHeader(disk, inc)
		for rest := b[journalHeaderLength:]; len(rest) > 0; {
			var r journalRecord
			if rest, err = decodeJournalRecord(rest, version, &r); err != nil {
				return nil, err
			}
			start := len(out)
			out = beginJournalRecord(out, r.seq, r.handle, r.extent)
			for _, k := range r.states {
				out = appendRecordState(out, start, k.layer, k.state)
			}
			out = endJournalRecord(out, start)
		}
		return out, nil
	})
}

// FuzzJournalDamage changes one byte of a good journal; it must be noticed.
func FuzzJournalDamage(f *testing.F) {
	good := samples()["journal"]
	f.Add(uint16(0), byte(1))
	f.Fuzz(func(t *testing.T, at uint16, change byte) {
		b := bytes.Clone(good)
		b[int(at)%len(b)] ^= change
		if change == 0 {
			return
		}
		_, _, version, err := decodeJournalHeader(b[:journalHeaderLength])
		for rest := b[journalHeaderLength:]; len(rest) > 0 && err == nil; {
			var r journalRecord
			rest, err = decodeJournalRecord(rest, version, &r)
		}
		if err == nil || err == io.ErrUnexpectedEOF {
			t.Fatalf("byte %d: %v", int(at)%len(b), err)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add([]byte{0, 0})
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var a allocator
		a.grow(4000)
		a.use(888)
		a.persist(888)
		if err := a.loadSplit(888, b); err != nil {
			return
		}
		if want := binary.LittleEndian.Uint16(b); len(b) != 2 || a.blocks(888) != (splitExtent{used: want, durable: want}) {
			t.Fatalf("%x is accepted as %+v", b, a.blocks(888))
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(undoKey(nil, 3, 99, 5))
	f.Add(changeKey(nil, 3, 6, 99))
	f.Add(mapKey(nil, 3, 99))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, extent, layer, err := splitUndoKey(b); err == nil && !bytes.Equal(undoKey(nil, h, extent, layer), b) {
			t.Fatalf("undo key %x", b)
		}
		if layer, extent, err := splitChangeKey(b); err == nil && !bytes.Equal(changeKey(nil, handleIn(b), layer, extent), b) {
			t.Fatalf("change key %x", b)
		}
		if h, extent, err := splitMapKey(b); err == nil && !bytes.Equal(mapKey(nil, h, extent), b) {
			t.Fatalf("map key %x", b)
		}
	})
}
