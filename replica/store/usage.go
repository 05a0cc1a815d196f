package store

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Extent is a run of blocks that are alike.
type Extent struct {
	block.Span
	// Data: the blocks have been written; else they read as zeros.
	Data bool
}

// maxExtentsSpan bounds the answer of Extents.
const maxExtentsSpan = 1 << 30

// wholeHead is a layer above every one: that of the head, for statesAt.
const wholeHead = ^uint32(0)

// Extents tells which blocks of span, at most 1 GiB, hold data. It may block on the
// database.
func (r *Replica) Extents(span block.Span) ([]Extent, error) {
	return r.ExtentsOf(block.SnapshotID{}, span)
}

// ExtentsOf does the same for a cut; the zero ID is the head. A cut that is not
// there is block.ErrNotFound.
func (r *Replica) ExtentsOf(snapshot block.SnapshotID, span block.Span) ([]Extent, error) {
	list, err := r.compare(block.SnapshotID{}, snapshot, span, true)
	if err != nil {
		return nil, fmt.Errorf("extents of replica %s: %w", r.id, err)
	}
	return list, nil
}

// Changed lists the blocks of span, at most 1 GiB, that are not the same in two
// cuts, of which to is the younger; the zero ID is the head as to, and nothing at
// all as from. What is listed was written or zeroed in between; it may read the
// same. The time it takes follows what has changed, not the size. It may block on
// the database. A cut that is not there is block.ErrNotFound.
func (r *Replica) Changed(from, to block.SnapshotID, span block.Span) ([]Extent, error) {
	list, err := r.compare(from, to, span, false)
	if err != nil {
		return nil, fmt.Errorf("changes of replica %s: %w", r.id, err)
	}
	return list, nil
}

// runChanged answers a Changed.
func (s *Store) runChanged(t *task) {
	op := t.op
	list, err := t.replica.Changed(op.Snapshot, block.SnapshotID{}, block.Span{Offset: op.Offset, Length: op.Length})
	clear(op.Buf.Data)
	for _, x := range list {
		for e := (x.Offset - op.Offset) / block.ExtentSize; e <= (x.End()-1-op.Offset)/block.ExtentSize; e++ {
			op.Buf.Data[e/8] |= 1 << uint(e%8)
		}
	}
	if !s.jobBack() {
		return
	}
	s.finish(t, err)
	s.unlock()
}

// comparison is a question about two states of a line.
type comparison struct {
	replica *Replica
	// from and to are layers; 0 is nothing, wholeHead the head.
	from, to uint32
	span     block.Span
	// all wants also what is the same.
	all  bool
	list []Extent
}

func (r *Replica) compare(from, to block.SnapshotID, span block.Span, all bool) ([]Extent, error) {
	c := &comparison{replica: r, span: span, all: all}
	extents, err := c.begin(from, to)
	if err != nil {
		return nil, err
	}
	defer r.store.jobEnded()
	if c.from != 0 {
		if extents, err = r.store.changedExtents(r, c.from, c.to, c.first(), c.end(), extents); err != nil {
			return nil, err
		}
	} else {
		extents = extents[:0]
		for x := c.first(); x < c.end(); x++ {
			extents = append(extents, x)
		}
	}
	const batch = 256
	for part := range slices.Chunk(extents, batch) {
		if err := c.add(part); err != nil {
			return nil, err
		}
	}
	// A cut that was dropped meanwhile may have lost what was asked for.
	return c.list, r.holds(from, to)
}

func (c *comparison) first() uint32 { return uint32(c.span.Offset / block.ExtentSize) }
func (c *comparison) end() uint32 {
	return uint32((c.span.End() + block.ExtentSize - 1) / block.ExtentSize)
}

// begin finds the layers, and the extents of which memory knows changes that the
// index lacks. The call counts as a job until jobEnded.
func (c *comparison) begin(from, to block.SnapshotID) ([]uint32, error) {
	r := c.replica
	s := r.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.abandoned {
		return nil, block.ErrClosed
	}
	size := r.durable.size
	c.to = wholeHead
	if !to.IsZero() {
		q, err := r.cutOf(to)
		if err != nil {
			return nil, err
		}
		c.to, size = q.layer, q.Size
	}
	if !from.IsZero() {
		q, err := r.cutOf(from)
		if err != nil {
			return nil, err
		}
		if c.from = q.layer; c.from >= c.to {
			return nil, fmt.Errorf("snapshot %s is not older than %s: %w", from, to, block.ErrInvalid)
		}
	}
	if !c.span.Within(size, block.SectorSize) || c.span.Length > maxExtentsSpan {
		return nil, fmt.Errorf("%d bytes at %d, size %d: %w", c.span.Length, c.span.Offset, size, block.ErrInvalid)
	}
	s.jobs++
	return r.changedInMemory(c.first(), c.end()), nil
}

// holds reports that a cut is gone.
func (r *Replica) holds(ids ...block.SnapshotID) error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	for _, id := range ids {
		if !id.IsZero() {
			if _, err := r.cutOf(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// changedInMemory lists the extents in [first, end) with changes that the database
// may lack, in order. The mutex is held.
func (r *Replica) changedInMemory(first, end uint32) (extents []uint32) {
	refs := [2][]entryRef{r.store.changed}
	if r.store.round != nil {
		refs[1] = r.store.round.refs
	}
	for _, list := range refs {
		for _, ref := range list {
			if x := ref.extent(); ref.page.replica == r && x >= first && x < end {
				extents = append(extents, x)
			}
		}
	}
	slices.Sort(extents)
	return slices.Compact(extents)
}

// changedExtents adds to known the extents in [first, end) that the index has in
// the layers above from and up to to.
func (s *Store) changedExtents(r *Replica, from, to, first, end uint32, known []uint32) ([]uint32, error) {
	set := map[uint32]bool{}
	for _, x := range known {
		set[x] = true
	}
	h := r.record.handle
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: handleKey(nil, keyChange, h), UpperBound: handleKey(nil, keyChange, h+1)})
	if err != nil {
		return nil, databaseError(err)
	}
	for ok := it.SeekGE(changeKey(nil, h, from+1, first)); ok; {
		layer, x, err := splitChangeKey(it.Key())
		if err != nil {
			_ = it.Close() // the damaged key is the error that counts
			return nil, err
		}
		switch {
		case layer > to:
			ok = false
		case x < first:
			ok = it.SeekGE(changeKey(nil, h, layer, first))
		case x >= end:
			ok = it.SeekGE(changeKey(nil, h, layer+1, first))
		default:
			set[x] = true
			ok = it.Next()
		}
	}
	if err := it.Close(); err != nil {
		return nil, databaseError(err)
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// add compares some extents, which are in order.
func (c *comparison) add(extents []uint32) error {
	s, r := c.replica.store, c.replica
	now, err := s.statesAt(r, c.to, extents)
	if err != nil {
		return err
	}
	before := make([]*entryState, len(extents))
	if c.from != 0 {
		if before, err = s.statesAt(r, c.from, extents); err != nil {
			return err
		}
	}
	for i, x := range extents {
		c.addExtent(x, before[i], now[i])
	}
	return nil
}

func (c *comparison) addExtent(x uint32, before, now *entryState) {
	var nothing entryState
	if before == nil {
		before = &nothing
	}
	if now == nil {
		now = &nothing
	}
	for b := range block.BlocksPerExtent {
		from := int64(x)*block.ExtentSize + int64(b)*block.BlockSize
		to := min(from+block.BlockSize, c.span.End())
		from = max(from, c.span.Offset)
		same := before.at(b) == now.at(b) && (now.at(b) == 0 || before.sums[b] == now.sums[b])
		if from >= to || same && !c.all {
			continue
		}
		data := now.data&(1<<b) != 0
		if n := len(c.list); n > 0 && c.list[n-1].Data == data && c.list[n-1].End() == from {
			c.list[n-1].Length += to - from
		} else {
			c.list = append(c.list, Extent{Span: block.Span{Offset: from, Length: to - from}, Data: data})
		}
	}
}

// Usage is what a cut or a head costs, in bytes.
type Usage struct {
	// Unique is the data that nothing else reads, in blocks.
	Unique int64
	// Freed is the space that comes back when the cut is dropped. An extent in which
	// others have a block stays, so that it may be less. What a clone shows is
	// neither unique nor freed.
	Freed int64
}

// Usage reports what only the cut has, or only the head if the ID is zero: exact,
// also for what no flush has seen. The time it takes follows what has changed since
// the cut. It may block on the database. A cut that is not there is
// block.ErrNotFound.
func (r *Replica) Usage(snapshot block.SnapshotID) (Usage, error) {
	u, err := r.usage(snapshot)
	if err != nil {
		return Usage{}, fmt.Errorf("usage of replica %s: %w", r.id, err)
	}
	return u, nil
}

func (r *Replica) usage(snapshot block.SnapshotID) (u Usage, err error) {
	s := r.store
	layers, extents, err := r.beginUsage(snapshot)
	if err != nil {
		return u, err
	}
	defer s.jobEnded()
	if r.isPinned(layers.own) {
		return u, nil
	}
	switch {
	case layers.own != wholeHead:
		extents, err = s.changedExtents(r, layers.own, layers.above, 0, wholeHead, extents)
	case layers.below != 0:
		extents, err = s.changedExtents(r, layers.below, wholeHead, 0, wholeHead, extents)
	default:
		extents, err = s.headExtents(r, extents)
	}
	if err != nil {
		return u, err
	}
	const batch = 1024
	for part := range slices.Chunk(extents, batch) {
		if err := s.addUsage(r, layers, part, &u); err != nil {
			return u, err
		}
	}
	return u, r.holds(snapshot)
}

// layersAround are a cut, or the head, and the cuts beside it that are needed.
type layersAround struct{ below, own, above uint32 }

func (r *Replica) beginUsage(snapshot block.SnapshotID) (l layersAround, extents []uint32, err error) {
	s := r.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.abandoned {
		return l, nil, block.ErrClosed
	}
	l.own, l.above = wholeHead, wholeHead
	if !snapshot.IsZero() {
		c, err := r.cutOf(snapshot)
		if err != nil {
			return l, nil, err
		}
		l.own = c.layer
	}
	for i := range r.durable.cuts {
		switch c := &r.durable.cuts[i]; {
		case c.dropping && r.pins[c.layer] == 0:
		case c.layer < l.own:
			l.below = c.layer
		case c.layer > l.own && l.above == wholeHead:
			l.above = c.layer
		}
	}
	s.jobs++
	return l, r.changedInMemory(0, wholeHead), nil
}

func (r *Replica) isPinned(layer uint32) bool {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.pins[layer] > 0
}

// headExtents adds to known the extents that the head has.
func (s *Store) headExtents(r *Replica, known []uint32) ([]uint32, error) {
	h := r.record.handle
	err := scan(s.db, mapKey(nil, h, 0), handleKey(nil, keyMap, h+1), func(key, _ []byte) error {
		_, x, err := splitMapKey(key)
		known = append(known, x)
		return err
	})
	slices.Sort(known)
	return slices.Compact(known), err
}

// addUsage adds what some extents cost.
func (s *Store) addUsage(r *Replica, l layersAround, extents []uint32, u *Usage) error {
	own, err := s.statesAt(r, l.own, extents)
	if err != nil {
		return err
	}
	others := [2][]*entryState{}
	for i, layer := range []uint32{l.below, l.above} {
		if layer == 0 || i == 1 && l.own == wholeHead {
			others[i] = make([]*entryState, len(extents))
			continue
		}
		if others[i], err = s.statesAt(r, layer, extents); err != nil {
			return err
		}
	}
	for i := range extents {
		if own[i] != nil {
			u.add(own[i], others[0][i], others[1][i])
		}
	}
	return nil
}

// add counts what e has and none of the others.
func (u *Usage) add(e *entryState, others ...*entryState) {
	for p := range e.placements {
		if p.foreign() || p.mask() == 0 {
			continue
		}
		alone, named := p.mask(), false
		for _, o := range others {
			if o != nil {
				alone &^= e.shared(o)
				named = named || o.names(p.extent())
			}
		}
		n := int64(bits.OnesCount16(alone)) * block.BlockSize
		u.Unique += n
		switch {
		case p.slot():
			u.Freed += n
		case !named:
			u.Freed += block.ExtentSize
		}
	}
}
