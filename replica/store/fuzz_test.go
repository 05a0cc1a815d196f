package store

import (
	"bytes"
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
	e := &entryState{extent: 777, data: 0x8421}
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
	journal := appendJournalHeader(nil, sampleIdentity().Disk, sampleIncarnation())
	journal = appendJournalRecord(journal, 41, 3, 99, sampleEntry())
	journal = appendJournalRecord(journal, 42, 3, 99, &entryState{})
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
		"regions":        appendRegionPage(nil, block.Regions{1, 2, 0, 1 << 63}, 0),
		"fence":          encodeFence(block.Fence{Incarnation: 1, Generation: 2, Epoch: 3, Session: 4}),
		"view":           encodeView(sampleView()),
		"replica":        sampleRecord().encode(),
	}
}

// TestGolden pins the bytes of every structure.
func TestGolden(t *testing.T) {
	for name, encoded := range samples() {
		path := filepath.Join("testdata", "v1", name+".hex")
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
		id, err := decodeSuperblock(b)
		if err == nil {
			b = b[:superblockLength]
			if !bytes.Equal(encodeSuperblock(id), b) {
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
		return appendEntry(nil, &e), nil
	})
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
		return appendRegionPage(nil, s, 3), nil
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
		disk, inc, err := decodeJournalHeader(b[:journalHeaderLength])
		if err != nil {
			return nil, err
		}
		out := appendJournalHeader(nil, disk, inc)
		for rest := b[journalHeaderLength:]; len(rest) > 0; {
			var r journalRecord
			if rest, err = decodeJournalRecord(rest, &r); err != nil {
				return nil, err
			}
			out = appendJournalRecord(out, r.seq, r.handle, r.extent, &r.entry)
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
		_, _, err := decodeJournalHeader(b[:journalHeaderLength])
		for rest := b[journalHeaderLength:]; len(rest) > 0 && err == nil; {
			var r journalRecord
			rest, err = decodeJournalRecord(rest, &r)
		}
		if err == nil || err == io.ErrUnexpectedEOF {
			t.Fatalf("byte %d: %v", int(at)%len(b), err)
		}
	})
}
