package store

import (
	"bytes"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// lineBlock is a block of the model: what it reads as, and which write gave it
// that. 0 has never been written, or was zeroed.
type lineBlock struct {
	write uint64
	data  byte
	// shown: it is that of the cut that a clone shows.
	shown bool
}

// lineState is what a head or a cut reads as. changed has, by extent, the last
// change; equal numbers in two states mean that the extent is the same in both.
type lineState struct {
	size    int64
	blocks  []lineBlock
	changed []uint64
}

func (s lineState) clone() lineState {
	s.blocks, s.changed = slices.Clone(s.blocks), slices.Clone(s.changed)
	return s
}

func (s *lineState) grow(size int64) {
	s.size = size
	for int64(len(s.blocks)) < (size+block.BlockSize-1)/block.BlockSize {
		s.blocks = append(s.blocks, lineBlock{})
	}
	for int64(len(s.changed)) < (size+block.ExtentSize-1)/block.ExtentSize {
		s.changed = append(s.changed, 0)
	}
}

type lineCut struct {
	n      byte
	state  lineState
	target bool
	valid  bool
}

// line is the model of a replica.
type line struct {
	n     byte
	clone bool
	head  lineState
	cuts  []*lineCut
}

// verify compares every head and cut, checks the store, and that the lines take
// what they name.
func (m *lines) verify() {
	m.t.Helper()
	m.settle()
	if err := m.store.Check(); err != nil {
		for _, r := range m.store.replicas {
			m.t.Logf("replica %s, deleting %v: %+v, cuts %+v, pins %v, newest %d", r.id.Short(), r.record.deleting, r.durable.line, r.durable.cuts, r.pins, r.newest)
		}
		m.t.Fatal(err)
	}
	for _, l := range m.list {
		r := m.replicaOf(l)
		if r.Size() != l.head.size {
			m.t.Fatalf("replica %d has %d bytes, want %d", l.n, r.Size(), l.head.size)
		}
		m.compare(r, block.SnapshotID{}, &l.head)
		held := r.Cuts()
		if len(held) != len(l.cuts) {
			m.t.Fatalf("replica %d has %d cuts, want %d", l.n, len(held), len(l.cuts))
		}
		m.changes(l, r)
		m.space(l, r)
		m.walk(l, r)
		for i, c := range l.cuts {
			m.usage(l, r, i)
			if held[i].Snapshot != snapshotID(c.n) || held[i].Valid != c.valid || held[i].Size != c.state.size {
				m.t.Fatalf("replica %d, cut %d: %+v, want %+v", l.n, i, held[i], c)
			}
			m.compare(r, held[i].Snapshot, &c.state)
		}
	}
}

// usage checks what only one cut is said to have.
func (m *lines) usage(l *line, r *Replica, i int) Usage {
	m.t.Helper()
	got, err := r.Usage(snapshotID(l.cuts[i].n))
	if err != nil {
		m.t.Fatal(err)
	}
	held := m.store.byID[r.ID()].durable.cuts
	if len(held) != len(l.cuts) {
		return got // clones hold cuts that the model does not know any more
	}
	want := int64(0)
	others := []*lineState{&l.head}
	if i+1 < len(l.cuts) {
		others[0] = &l.cuts[i+1].state
	}
	if i > 0 {
		others = append(others, &l.cuts[i-1].state)
	}
	for b, q := range l.cuts[i].state.blocks {
		alone := q.write != 0 && !q.shown
		for _, o := range others {
			alone = alone && (b >= len(o.blocks) || o.blocks[b].write != q.write)
		}
		if alone {
			want += block.BlockSize
		}
	}
	if r.isPinned(held[i].layer) {
		want = 0
	}
	if got.Unique != want {
		m.t.Fatalf("cut %d of %d: %d bytes are its own, want %d", l.cuts[i].n, l.n, got.Unique, want)
	}
	return got
}

// space checks what the cuts of a replica hold together and its head does not.
func (m *lines) space(l *line, r *Replica) {
	m.t.Helper()
	want := int64(0)
	for i, c := range l.cuts {
		younger := &l.head
		if i+1 < len(l.cuts) {
			younger = &l.cuts[i+1].state
		}
		for b, q := range c.state.blocks {
			if q.write != 0 && !q.shown && (b >= len(younger.blocks) || younger.blocks[b].write != q.write) {
				want += block.BlockSize
			}
		}
	}
	if got, err := r.SnapshotSpace(); err != nil || got != want {
		m.t.Fatalf("the cuts of %d hold %d bytes, %v, want %d", l.n, got, err, want)
	}
}

// changes compares the difference of two states with what was written in between.
func (m *lines) changes(l *line, r *Replica) {
	m.t.Helper()
	if len(l.cuts) == 0 {
		return
	}
	i := m.random.IntN(len(l.cuts))
	from, to, id := &l.cuts[i].state, &l.head, block.SnapshotID{}
	if j := i + 1 + m.random.IntN(len(l.cuts)-i); j < len(l.cuts) {
		to, id = &l.cuts[j].state, snapshotID(l.cuts[j].n)
	}
	list, err := r.Changed(snapshotID(l.cuts[i].n), id, block.Span{Length: to.size})
	if err != nil {
		m.t.Fatal(err)
	}
	data := map[int64]bool{}
	for _, e := range list {
		for at := e.Offset; at < e.End(); at += block.BlockSize {
			data[at/block.BlockSize] = e.Data
		}
	}
	for b, q := range to.blocks {
		before := lineBlock{}
		if b < len(from.blocks) {
			before = from.blocks[b]
		}
		said, changed := data[int64(b)]
		if changed != (q.write != before.write) || changed && said != (q.write != 0) {
			m.t.Fatalf("replica %d: block %d is said to have changed: %v, with data: %v; write %d before, then %d", l.n, b, changed, said, before.write, q.write)
		}
	}
	if id.IsZero() {
		m.changedExtents(r, snapshotID(l.cuts[i].n), to.size, data)
	}
}

// changedExtents asks for the extents of the blocks that have changed.
func (m *lines) changedExtents(r *Replica, from block.SnapshotID, size int64, blocks map[int64]bool) {
	m.t.Helper()
	want := make([]byte, block.ChangedBytes(size))
	for b := range blocks {
		e := b / block.BlocksPerExtent
		want[e/8] |= 1 << uint(e%8)
	}
	op := &Op{Kind: Changed, Snapshot: from, Length: size, Buf: block.NewBuffer(len(want))}
	m.must(r, op)
	if !bytes.Equal(op.Buf.Data, want) {
		m.t.Fatalf("replica %s: since %s extents %x have changed, want %x", r.ID().Short(), from.Short(), op.Buf.Data, want)
	}
	op.Buf.Release()
}

func (m *lines) compare(r *Replica, id block.SnapshotID, want *lineState) {
	m.t.Helper()
	const step = 1 << 20
	for at := int64(0); at < want.size; at += step {
		length := min(step, want.size-at)
		op := &Op{Kind: Read, Snapshot: id, Offset: at, Length: length, Buf: block.NewBuffer(int(length))}
		// What is no valid cut's may be suspect after a crash.
		op.Flags = block.FlagAcceptSuspect
		m.must(r, op)
		hash := &Op{Kind: Hash, Snapshot: id, Offset: at, Length: length}
		m.must(r, hash)
		for b := at / block.BlockSize; b*block.BlockSize < at+length; b++ {
			from := b*block.BlockSize - at
			to := min(from+block.BlockSize, length)
			if !bytes.Equal(op.Buf.Data[from:to], fill(int(to-from), want.blocks[b].data)) {
				m.t.Fatalf("replica %s, snapshot %s: block %d (extent %d) is %#x, want %#x", r.ID().Short(), id.Short(), b, b/16, op.Buf.Data[from], want.blocks[b].data)
			}
		}
		for i, h := range hash.Hashes {
			part := make([]byte, block.ExtentSize)
			copy(part, op.Buf.Data[min(i*block.ExtentSize, len(op.Buf.Data)):])
			if h.Sum != sum(part) || h.Bad != 0 {
				m.t.Fatalf("replica %s, snapshot %s: hash of extent %d", r.ID().Short(), id.Short(), i)
			}
		}
		op.Buf.Release()
	}
}
