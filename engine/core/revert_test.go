package core

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// A snapshot is read from another member where one has it damaged, and no repair of the
// head follows; what nobody has intact, or whole, is an error.
func TestReadOfASnapshot(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'a', 0, 4*kib)
	s.settle()
	s.cut(1)
	s.settle()
	s.write(2, 'b', 0, 4*kib)
	s.settle()
	s.drop()
	ask := func(tag uint64, offset int64) {
		s.request(Request{Tag: tag, Kind: ReadRequest, Offset: offset, Length: 4 * kib, Snapshot: snapshotID(1)})
	}
	ask(3, 0)
	s.expect("A: read 0+4K of S1")
	s.answer("A")
	s.expect("done 3 'a'")
	s.replica("A").cut(snapshotID(1)).bad[0] = true
	ask(4, 0)
	s.answer("A")
	s.expect("A: read 0+4K of S1", "B: read 0+4K of S1")
	s.answer("B")
	s.expect("done 4 'a'")
	s.replica("B").cut(snapshotID(1)).bad[0] = true
	ask(5, 0)
	s.answer("A B")
	s.expect("A: read 0+4K of S1", "B: read 0+4K of S1", "done 5: input/output error")
	s.request(Request{Tag: 6, Kind: ReadRequest, Length: 4 * kib, Snapshot: snapshotID(2)})
	s.expect("done 6: invalid argument")
	for i := range s.core.peers {
		s.core.peers[i].findCut(snapshotID(1)).Valid = false
	}
	ask(7, mib)
	s.expect("done 7: invalid argument")
}

// What has changed is asked of one member, behind the writes that are under way, and of
// another one if that fails.
func TestChangedRequest(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.cut(1)
	s.settle()
	s.drop()
	ask := func(tag uint64, length int64) {
		s.request(Request{Tag: tag, Kind: ChangedRequest, Length: length, Snapshot: snapshotID(1)})
	}
	s.write(1, 'b', 3*64*kib, 4*kib)
	ask(2, 64*mib)
	s.expect("A: write 'b' 192K+4K", "B: write 'b' 192K+4K")
	s.answer("A B")
	s.expect("done 1", "A: changed 0+64M of S1")
	s.answer("A")
	if got := s.lines; len(got) != 1 || got[0][:6] != "done 2" {
		t.Errorf("the answer is %q", got)
	}
	s.drop()
	s.request(Request{Tag: 3, Kind: ChangedRequest, Length: 64 * mib})
	s.expect("done 3: invalid argument")
	ask(4, 2<<30)
	s.expect("done 4: invalid argument")
}

// model is a volume to be reverted, without replicas.
type model struct {
	view       block.View
	snap, head []byte
	changed    map[int64]bool
	flushed    bool
	writes     int
}

// newModel is a volume that has grown since its snapshot, which ends within an extent.
func newModel(rng *rand.Rand) *model {
	const cutSize, size = 70*block.ExtentSize + 3*block.BlockSize, 90 * block.ExtentSize
	m := &model{snap: make([]byte, cutSize), head: make([]byte, size), changed: map[int64]bool{}}
	m.view = block.View{Size: size, Snapshots: []block.Snapshot{{ID: snapshotID(1), Size: cutSize}}}
	for b := int64(0); b < cutSize; b += block.BlockSize {
		if rng.IntN(2) == 0 {
			m.snap[b] = byte(1 + rng.IntN(255))
		}
	}
	copy(m.head, m.snap)
	for range 400 {
		m.put(rng.Int64N(size/block.BlockSize)*block.BlockSize, byte(rng.IntN(3)))
	}
	return m
}

func (m *model) put(at int64, with byte) {
	m.head[at] = with
	m.changed[at/block.ExtentSize] = true
	m.flushed = false
}

func (m *model) carryOut(t *testing.T, q *Request) *block.Buffer {
	span := block.Span{Offset: q.Offset, Length: q.Length}
	switch q.Kind {
	case ChangedRequest:
		buf := block.NewBuffer(block.ChangedBytes(q.Length))
		clear(buf.Data)
		for e := range m.changed {
			buf.Data[e/8] |= 1 << uint(e%8)
		}
		return buf
	case ReadRequest:
		if !m.changed[q.Offset/block.ExtentSize] {
			t.Fatalf("what has not changed is read: %+v", q)
		}
		buf := block.NewBuffer(int(q.Length))
		if from := m.head; q.Snapshot.IsZero() {
			copy(buf.Data, from[span.Offset:span.End()])
		} else {
			copy(buf.Data, m.snap[span.Offset:span.End()])
		}
		return buf
	case WriteRequest:
		m.writes++
		copy(m.head[span.Offset:span.End()], q.Buf.Data)
		q.Buf.Release()
		m.flushed = false
	case ZeroRequest:
		m.writes++
		clear(m.head[span.Offset:span.End()])
		m.flushed = false
	case FlushRequest:
		m.flushed = true
	}
	return nil
}

// run carries out the requests of a revert in any order, up to most of them.
func (m *model) run(t *testing.T, rng *rand.Rand, most int) error {
	t.Helper()
	r, err := NewRevert(&m.view, snapshotID(1))
	if err != nil {
		t.Fatal(err)
	}
	var open []Request
	for n := 0; ; n++ {
		if n == most {
			r.Stop(errors.New("killed"))
		}
		for q, more := r.Next(); more; q, more = r.Next() {
			open = append(open, q)
		}
		if len(open) > RevertRequests {
			t.Fatalf("%d requests are under way", len(open))
		}
		if over, err := r.Ended(); over {
			if done, total := r.Progress(); err == nil && done != total {
				t.Errorf("it has ended with %d of %d bytes", done, total)
			}
			return err
		}
		k := rng.IntN(len(open))
		q := open[k]
		open = append(open[:k], open[k+1:]...)
		r.Done(q.Tag, nil, m.carryOut(t, &q))
	}
}

// A revert brings back the snapshot, and zeros beyond its end, however often it was cut
// short before; it writes what differs only, and says that it is done behind the flush.
func TestRevert(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			m := newModel(rng)
			for range rng.IntN(3) {
				if err := m.run(t, rng, rng.IntN(60)); err == nil {
					t.Fatal("it was cut short and says that it is done")
				}
			}
			if err := m.run(t, rng, -1); err != nil {
				t.Fatal(err)
			}
			n := len(m.snap)
			if !bytes.Equal(m.head[:n], m.snap) || !bytes.Equal(m.head[n:], make([]byte, len(m.head)-n)) {
				t.Error("the head is not the snapshot")
			}
			if !m.flushed {
				t.Error("it is done before it was flushed")
			}
			m.writes = 0
			if err := m.run(t, rng, -1); err != nil || m.writes != 0 {
				t.Errorf("once more: %v, %d writes", err, m.writes)
			}
		})
	}
}

// The first error ends it, when nothing is under way any more.
func TestRevertFails(t *testing.T) {
	if _, err := NewRevert(&block.View{}, snapshotID(1)); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("without the snapshot: %v", err)
	}
	m := newModel(rand.New(rand.NewPCG(1, 1)))
	r, err := NewRevert(&m.view, snapshotID(1))
	if err != nil {
		t.Fatal(err)
	}
	for {
		q, more := r.Next()
		if !more {
			t.Fatal("nothing is asked for")
		}
		if q.Kind == ReadRequest {
			second, _ := r.Next()
			r.Done(q.Tag, block.ErrIO, nil)
			if over, _ := r.Ended(); over {
				t.Error("it ends with a request under way")
			}
			r.Done(second.Tag, nil, m.carryOut(t, &second))
			break
		}
		r.Done(q.Tag, nil, m.carryOut(t, &q))
	}
	if over, err := r.Ended(); !over || !errors.Is(err, block.ErrIO) {
		t.Errorf("ended %v: %v", over, err)
	}
	if _, more := r.Next(); more {
		t.Error("it goes on")
	}
}
