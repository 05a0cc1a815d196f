package server

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// peer answers for another replica of the volume, in memory.
type peer struct {
	content  []byte
	err      error
	mu       sync.Mutex
	repaired []Repaired
}

func (p *peer) ReadSnapshot(_ context.Context, _ block.VolumeID, _ block.ReplicaID, _ block.SnapshotID, span block.Span) ([]byte, error) {
	return p.content[span.Offset:span.End()], p.err
}

func (p *peer) Repaired(r Repaired) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.repaired = append(p.repaired, r)
}

// rot flips a bit of every block of the data file that holds nothing but one byte.
func (b *storeBench) rot(with byte) {
	b.t.Helper()
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	for at := int64(128 * block.ExtentSize); at < b.device.Size(); at += block.BlockSize {
		if err := vfs.Do(b.device, &vfs.IO{Kind: vfs.Read, Offset: at, Length: block.BlockSize, Data: buf.Data}); err != nil {
			b.t.Fatal(err)
		}
		if bytes.Equal(buf.Data, bytes.Repeat([]byte{with}, len(buf.Data))) {
			b.device.Flip(at+9, 2)
		}
	}
}

// TestReadOfADamagedSnapshot: a client of a snapshot gets its bytes though the disk has
// lost them, which has them back; damage that nobody has intact, and what is another
// replica's, is an error still.
func TestReadOfADamagedSnapshot(t *testing.T) {
	b := newStoreBench(t)
	volume, replica := block.VolumeID{ID: b.id()}, block.ReplicaID{ID: b.id()}
	snapshot := block.SnapshotID{ID: b.id()}
	if err := b.host.CreateReplica(b.disk, replica, volume, testSize); err != nil {
		t.Fatal(err)
	}
	b.write(replica, 0, 64<<10, 1)
	b.write(replica, 8<<10, 8<<10, 7)
	b.cut(replica, snapshot)
	b.write(replica, 0, 64<<10, 2)
	b.commit(replica, volume, 1, snapshot)
	want := bytes.Repeat([]byte{1}, 64<<10)
	copy(want[8<<10:], bytes.Repeat([]byte{7}, 8<<10))
	b.rot(7)
	addr := listen(t, b.host)
	read := func(name string) ([]byte, error) {
		c, err := connectNBD(t, addr, name)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make([]byte, 20<<10)
		_, err = c.ReadAt(got, 512)
		return got, err
	}
	for name, p := range map[string]Elsewhere{
		"nobody":      nil,
		"no answer":   &peer{content: want, err: block.ErrUnavailable},
		"other bytes": &peer{content: bytes.Repeat([]byte{9}, 64<<10)},
	} {
		b.host.SetElsewhere(p)
		if _, err := read(snapshotPrefix + snapshot.String()); !errors.Is(err, block.ErrIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := &peer{content: want}
	b.host.SetElsewhere(p)
	if _, err := read(AloneExport(snapshot)); !errors.Is(err, block.ErrIO) {
		t.Errorf("a host that is asked by another asks further: %v", err)
	}
	for range 2 {
		got, err := read(snapshotPrefix + snapshot.String())
		if err != nil || !bytes.Equal(got, want[512:512+20<<10]) {
			t.Fatalf("a snapshot whose disk has lost a part: %v", err)
		}
	}
	told := Repaired{Disk: b.disk, Volume: volume, Replica: replica, Snapshot: snapshot, Span: block.Span{Offset: 8 << 10, Length: 8 << 10}}
	if len(p.repaired) != 1 || p.repaired[0] != told {
		t.Errorf("told: %+v", p.repaired)
	}
	b.host.SetElsewhere(nil)
	if got, err := read(AloneExport(snapshot)); err != nil || !bytes.Equal(got, want[512:512+20<<10]) {
		t.Errorf("the disk does not have it back: %v", err)
	}
	if b.first(replica) != 2 {
		t.Error("the head changed")
	}
}
