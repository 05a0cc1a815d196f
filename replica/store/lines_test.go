package store

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

var lineSeeds = flag.Int("lines.seeds", 6, "number of seeds of the random test of lines, cuts and clones")

// lines drives a store with one request after the other, of every kind that has to
// do with cuts, and knows exactly what each head and each cut reads as.
type lines struct {
	*rig
	random *rand.Rand
	list   []*line
	writes uint64
	names  byte
	trace  []string
}

const lineSize = 20 * block.ExtentSize

func newLines(t testing.TB, seed uint64) *lines {
	m := &lines{rig: newRig(t), random: rand.New(rand.NewPCG(seed, 3))}
	m.options.CacheSize, m.options.MaxChanged, m.options.JournalSize = 2*pageBytes, 40, 8<<10
	m.kill()
	m.add(lineSize)
	return m
}

func (m *lines) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *lines) name() byte {
	m.names++
	return m.names
}

func (m *lines) add(size int64) {
	l := &line{n: m.name()}
	l.head.grow(size)
	m.create(l.n, size)
	m.list = append(m.list, l)
}

func (m *lines) replicaOf(l *line) *Replica { return m.replica(l.n) }

// act does one random thing.
func (m *lines) act() {
	m.t.Helper()
	l := m.list[m.random.IntN(len(m.list))]
	r := m.replicaOf(l)
	switch p := m.random.IntN(100); {
	case p < 40:
		m.actWrite(l, r)
	case p < 52:
		m.actZero(l, r)
	case p < 62:
		m.actCut(l, r)
	case p < 70:
		m.actDrop(l, r)
	case p < 78:
		m.note("flush %d", l.n)
		m.flushLine(l, r)
	case p < 84:
		m.actLayer(l, r)
	case p < 87:
		m.actValid(l, r)
	case p < 91:
		m.actClone(l)
	case p < 93:
		m.actDelete(l)
	case p < 95:
		m.actGrow(l, r)
	default:
		m.crash(l, r)
	}
}

// crash kills the process, or flushes and then takes the power away, perhaps in the
// middle of the dropping of a cut or the deletion of a replica.
func (m *lines) crash(l *line, r *Replica) {
	m.t.Helper()
	kill := m.random.IntN(2) == 0
	if !kill {
		for _, l := range m.list {
			m.flushLine(l, m.replicaOf(l))
		}
	}
	dropped := byte(0)
	switch p := m.random.IntN(3); {
	case p == 0 && len(l.cuts) > 0:
		dropped = l.cuts[m.random.IntN(len(l.cuts))].n
		u := &block.Update{DropCuts: []block.SnapshotID{snapshotID(dropped)}}
		r.Submit(&Op{Kind: Update, Meta: u, Done: func(*Op) {}})
	case p == 1 && len(m.list) > 2:
		if err := m.store.Delete(replicaID(l.n)); err != nil {
			m.t.Fatal(err)
		}
		m.list = slices.DeleteFunc(m.list, func(q *line) bool { return q == l })
	}
	steps := m.random.IntN(30)
	m.note("crash, kill %v, dropping %d, %d steps, of %d", kill, dropped, steps, l.n)
	for range steps {
		if n := m.steps.Pending(); n > 0 {
			m.steps.Step(m.random.IntN(n))
		}
	}
	if kill {
		m.kill()
	} else {
		m.powerLoss()
	}
	for _, q := range m.list {
		held := m.replicaOf(q).Cuts()
		q.cuts = slices.DeleteFunc(q.cuts, func(c *lineCut) bool {
			gone := !slices.ContainsFunc(held, func(h block.Cut) bool { return h.Snapshot == snapshotID(c.n) })
			return gone && c.n == dropped
		})
		for _, c := range q.cuts {
			c.target = c.target || !c.valid
		}
	}
	m.settle()
	m.scrub()
}

// scrub takes suspect checksums as they are, as an engine does after a crash.
func (m *lines) scrub() {
	m.t.Helper()
	for _, l := range m.list {
		for at := int64(0); at < l.head.size; at += block.MaxTransfer {
			length := min(block.MaxTransfer, l.head.size-at)
			op := &Op{Kind: Read, Offset: at, Length: length, Flags: block.FlagAcceptSuspect, Buf: block.NewBuffer(int(length))}
			m.must(m.replicaOf(l), op)
			op.Buf.Release()
		}
	}
}

func (m *lines) flushLine(l *line, r *Replica) {
	m.t.Helper()
	m.flush(r)
	for _, c := range l.cuts {
		c.valid = c.valid || !c.target
	}
}

func (m *lines) span(size int64) (at, length int64) {
	sectors := size / block.SectorSize
	first := m.random.Int64N(sectors)
	n := 1 + m.random.Int64N([]int64{8, 20, 140, 600}[m.random.IntN(4)])
	if m.random.IntN(2) == 0 {
		first &^= 7
		n = (n + 7) &^ 7
	}
	n = min(n, sectors-first)
	return first * block.SectorSize, n * block.SectorSize
}

// actWrite writes whole blocks of one byte; a part of a block is written with the
// byte that the rest of it has, or with its own if there is none.
func (m *lines) actWrite(l *line, r *Replica) {
	m.t.Helper()
	at, length := m.span(l.head.size)
	m.writes++
	data := make([]byte, length)
	for i := at; i < at+length; i += block.SectorSize {
		b := &l.head.blocks[i/block.BlockSize]
		first := i/block.BlockSize*block.BlockSize < at
		last := (i/block.BlockSize+1)*block.BlockSize > at+length
		v := byte(m.writes)
		if first || last {
			v = b.data
			if b.write == 0 {
				v = 0
			}
		}
		copy(data[i-at:], fill(block.SectorSize, v))
	}
	for b := at / block.BlockSize; b*block.BlockSize < at+length; b++ {
		whole := b*block.BlockSize >= at && (b+1)*block.BlockSize <= at+length
		q := &l.head.blocks[b]
		switch {
		case whole:
			q.data = byte(m.writes)
		case q.write == 0:
			q.data = 0
		}
		q.write, q.shown = m.writes, false
		l.head.changed[b/block.BlocksPerExtent] = m.writes
	}
	m.note("write %d: %d+%d", l.n, at/512, length/512)
	m.must(r, writeOp(at, data))
}

func (m *lines) actZero(l *line, r *Replica) {
	m.t.Helper()
	at, length := m.span(l.head.size)
	at, length = at&^(block.BlockSize-1), (length+block.BlockSize-1)&^(block.BlockSize-1)
	length = min(length, l.head.size-at)
	m.writes++
	for b := at / block.BlockSize; b*block.BlockSize < at+length; b++ {
		if l.head.blocks[b].write == 0 {
			continue
		}
		q := &l.head.blocks[b]
		q.data = 0
		*q = lineBlock{}
		if (b+1)*block.BlockSize > at+length {
			q.write = m.writes
		}
		l.head.changed[b/block.BlocksPerExtent] = m.writes
	}
	m.note("zero %d: %d+%d", l.n, at/512, length/512)
	m.zero(r, at, length)
}

func (m *lines) actCut(l *line, r *Replica) {
	m.t.Helper()
	if len(l.cuts) > 8 {
		return
	}
	c := &lineCut{n: m.name(), state: l.head.clone(), target: m.random.IntN(3) == 0}
	m.note("cut %d of %d, target %v", c.n, l.n, c.target)
	l.cuts = append(l.cuts, c)
	m.update(r, &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(c.n), Epoch: 1, Target: c.target}}})
}

func (m *lines) actDrop(l *line, r *Replica) {
	m.t.Helper()
	if len(l.cuts) == 0 {
		return
	}
	i := m.random.IntN(len(l.cuts))
	m.note("drop %d of %d", l.cuts[i].n, l.n)
	usage := m.usage(l, r, i)
	m.flushLine(l, r)
	before := r.Used()
	m.dropCut(r, l.cuts[i].n)
	m.flush(r)
	if freed := before - r.Used(); freed != usage.Freed {
		m.t.Fatalf("dropping a cut freed %d bytes, %d were announced", freed, usage.Freed)
	}
	l.cuts = slices.Delete(l.cuts, i, i+1)
}

func (m *lines) actValid(l *line, r *Replica) {
	m.t.Helper()
	for _, c := range l.cuts {
		if c.target {
			m.note("valid %d of %d", c.n, l.n)
			m.update(r, &block.Update{ValidCuts: []block.SnapshotID{snapshotID(c.n)}})
			c.target, c.valid = false, true
			return
		}
	}
}

// actLayer writes or zeroes whole extents of a cut, if that is allowed.
func (m *lines) actLayer(l *line, r *Replica) {
	m.t.Helper()
	if len(l.cuts) == 0 {
		return
	}
	i := m.random.IntN(len(l.cuts))
	c := l.cuts[i]
	x := m.random.Int64N(int64(len(c.state.changed)))
	at := x * block.ExtentSize
	length := min(block.ExtentSize*(1+m.random.Int64N(2)), c.state.size-at)
	zero := m.random.IntN(3) == 0
	m.writes++
	op := &Op{Kind: Zero, Offset: at, Length: length}
	if !zero {
		op = writeOp(at, fill(int(length), byte(m.writes)))
	}
	op.Snapshot, op.Flags = snapshotID(c.n), block.FlagResync
	m.note("layer %d of %d: extents %d, %d bytes, zero %v", c.n, l.n, x, length, zero)
	err := m.do(r, op)
	if slices.ContainsFunc(l.cuts[i:], func(c *lineCut) bool { return c.valid }) {
		if !errors.Is(err, block.ErrInvalid) {
			m.t.Fatalf("write to a layer under a valid cut: %v", err)
		}
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	for ; at < c.state.size && at < op.Offset+op.Length; at += block.ExtentSize {
		m.layer(l, i, int(at/block.ExtentSize), zero)
	}
}

// layer gives extent x of cut i new bytes, and all that inherited from it.
func (m *lines) layer(l *line, i, x int, zero bool) {
	states := []*lineState{}
	for _, c := range l.cuts[i:] {
		states = append(states, &c.state)
	}
	states = append(states, &l.head)
	old := states[0].clone()
	fresh := lineBlock{write: m.writes, data: byte(m.writes)}
	if zero {
		fresh = lineBlock{}
	}
	first := x * block.BlocksPerExtent
	end := min(first+block.BlocksPerExtent, len(old.blocks))
	follows := make([]bool, block.BlocksPerExtent)
	shown := l.clone && old.changed[x] == 0
	empty := true
	for b := first; b < end; b++ {
		follows[b-first] = old.blocks[b].write != 0 && !shown
		empty = empty && old.blocks[b].write == 0
	}
	for _, s := range states {
		if s.changed[x] == old.changed[x] {
			for b := first; b < end; b++ {
				s.blocks[b] = fresh
			}
			if !zero || !empty {
				s.changed[x] = m.writes
			}
			continue
		}
		for b := first; b < end; b++ {
			follows[b-first] = follows[b-first] && s.blocks[b].write == old.blocks[b].write
			if follows[b-first] {
				s.blocks[b] = fresh
			}
		}
	}
}

func (m *lines) actClone(l *line) {
	m.t.Helper()
	if len(m.list) > 5 {
		return
	}
	for _, c := range l.cuts {
		if !c.valid {
			continue
		}
		q := &line{n: m.name(), clone: true, head: c.state.clone()}
		clear(q.head.changed)
		for b := range q.head.blocks {
			q.head.blocks[b].shown = true
		}
		q.head.grow(c.state.size + m.random.Int64N(3)*6*block.BlockSize)
		m.note("clone %d of cut %d of %d", q.n, c.n, l.n)
		spec := CloneSpec{Source: replicaID(l.n), Snapshot: snapshotID(c.n)}
		spec.ReplicaSpec = ReplicaSpec{Replica: replicaID(q.n), Volume: block.VolumeID{ID: testID(q.n)}, Size: q.head.size}
		for range 2 {
			if err := m.store.Clone(spec); err != nil {
				m.t.Fatal(err)
			}
		}
		m.list = append(m.list, q)
		return
	}
}

func (m *lines) actDelete(l *line) {
	m.t.Helper()
	if len(m.list) < 3 {
		return
	}
	m.note("delete %d", l.n)
	if err := m.store.Delete(replicaID(l.n)); err != nil {
		m.t.Fatal(err)
	}
	m.list = slices.DeleteFunc(m.list, func(q *line) bool { return q == l })
	m.settle()
}

func (m *lines) actGrow(l *line, r *Replica) {
	m.t.Helper()
	size := l.head.size + m.random.Int64N(10)*block.BlockSize
	if size > 2*lineSize {
		return
	}
	m.note("grow %d to %d", l.n, size/512)
	m.update(r, &block.Update{Grow: size})
	l.head.grow(size)
}

// TestLines does random things to lines, cuts and clones and compares everything
// from time to time. In the end all goes, and nothing is left.
func TestLines(t *testing.T) {
	for seed := range uint64(*lineSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newLines(t, seed)
			defer func() {
				if t.Failed() {
					for _, s := range m.trace[max(0, len(m.trace)-40):] {
						t.Log(s)
					}
				}
			}()
			for n := range 300 {
				m.act()
				if n%20 == 0 {
					m.verify()
				}
			}
			m.verify()
			for _, l := range m.list {
				if err := m.store.Delete(replicaID(l.n)); err != nil {
					t.Fatal(err)
				}
				m.settle()
			}
			if used := m.store.Space().Used; used != 0 || len(m.store.replicas) != 0 {
				t.Fatalf("%d bytes and %d replicas are left", used, len(m.store.replicas))
			}
			m.check()
		})
	}
}
