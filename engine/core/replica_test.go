package core

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// replica is a copy of a volume in a few maps: the least that answers every
// request as a real one would. What the tests of the store look at (crashes at
// each write, formats, checksums) is here a matter of a flag for each block.
type replica struct {
	id   block.ReplicaID
	node block.NodeID
	size int64

	fence block.Fence
	// blocks are the contents; what is not there reads as zeros.
	blocks map[int64][]byte
	// undo has the contents that a power loss brings back, of the blocks written
	// since the last flush.
	undo map[int64][]byte
	// fresh are the blocks whose checksums are not durable, bad those that fail
	// their checksum, suspect those that fail it inside the unflushed set.
	fresh, bad, suspect map[int64]bool

	log         block.Regions
	dirty       []block.DirtySet
	cuts        []*fakeCut
	view        block.View
	flush       block.FlushNumber
	confirmed   map[block.ReplicaID]block.FlushNumber
	incarnation block.Incarnation
	free        int64
	// faults are asked before a request is carried out; the first error wins.
	faults []func(*block.Request) error

	buffers *ledger
}

func replicaID(i int) block.ReplicaID { return block.ReplicaID{ID: block.ID{0: byte(i + 1)}} }

func nodeID(i int) block.NodeID { return block.NodeID{ID: block.ID{1: byte(i + 1)}} }

func newReplica(i int, size int64, buffers *ledger) *replica {
	return &replica{
		id: replicaID(i), node: nodeID(i), size: size, buffers: buffers, free: 1 << 40,
		blocks: map[int64][]byte{}, undo: map[int64][]byte{},
		fresh: map[int64]bool{}, bad: map[int64]bool{}, suspect: map[int64]bool{},
		confirmed:   map[block.ReplicaID]block.FlushNumber{},
		incarnation: block.Incarnation{Boot: block.ID{2: 1}},
	}
}

// handle carries a request out and gives its buffer back.
func (r *replica) handle(req *block.Request) block.Reply {
	rep := block.Reply{Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Free: r.free}
	rep.Err = r.carryOut(req, &rep)
	req.Buf.Release()
	return rep
}

func (r *replica) carryOut(req *block.Request, rep *block.Reply) error {
	for _, fault := range r.faults {
		if err := fault(req); err != nil {
			return err
		}
	}
	if req.Op == block.OpOpen {
		return r.open(req.Open, rep)
	}
	if req.Epoch != r.fence.Epoch {
		return block.ErrStaleEpoch
	}
	if req.Session != r.fence.Session {
		return block.ErrStaleSession
	}
	if !req.Snapshot.IsZero() {
		return r.layer(req, rep)
	}
	switch req.Op {
	case block.OpRead:
		return r.read(req, rep)
	case block.OpWrite:
		if !r.merges(req.Span()) {
			return block.ErrChecksum
		}
		r.write(req.Span(), req.Buf.Data)
		if req.Flags&block.FlagDurable != 0 {
			r.flushed(block.FlushNumber{}, nil)
		}
	case block.OpZero:
		if !r.merges(req.Span()) {
			return block.ErrChecksum
		}
		r.write(req.Span(), make([]byte, req.Length))
	case block.OpFlush:
		r.flushed(req.Flush, req.Confirmed)
	case block.OpUpdate:
		return r.update(req.Update)
	case block.OpHash:
		r.hash(req.Span(), rep)
		return r.leaveOut(req.Since, r.blocks, req.Span(), rep)
	}
	return nil
}

func (r *replica) open(o *block.Open, rep *block.Reply) error {
	if o.Fence.Less(r.fence) || o.Fence == r.fence {
		if o.Fence.Epoch < r.fence.Epoch {
			return block.ErrStaleEpoch
		}
		return block.ErrStaleSession
	}
	r.fence = o.Fence
	rep.Opened = &block.Opened{
		Incarnation: r.incarnation, View: r.view.Clone(), Log: r.log.Clone(), Flush: r.flush,
		Size: r.size, Free: r.free,
	}
	for _, d := range r.dirty {
		d.Regions = d.Regions.Clone()
		rep.Opened.Dirty = append(rep.Opened.Dirty, d)
	}
	for _, c := range r.cuts {
		rep.Opened.Cuts = append(rep.Opened.Cuts, c.Cut)
	}
	for i := range maxReplicas {
		if n, ok := r.confirmed[replicaID(i)]; ok {
			rep.Opened.Confirmed = append(rep.Opened.Confirmed, block.Confirmed{Replica: replicaID(i), Flush: n})
		}
	}
	return nil
}

// blocksOf yields the blocks of a span.
func blocksOf(span block.Span) func(yield func(int64) bool) {
	return func(yield func(int64) bool) {
		for b := span.Offset / block.BlockSize; b*block.BlockSize < span.End(); b++ {
			if !yield(b) {
				return
			}
		}
	}
}

func (r *replica) read(req *block.Request, rep *block.Reply) error {
	span := req.Span()
	for b := range blocksOf(span) {
		if r.suspect[b] && req.Flags&block.FlagAcceptSuspect != 0 {
			delete(r.suspect, b)
			r.fresh[b] = true
		}
		if r.bad[b] || r.suspect[b] {
			return fmt.Errorf("block %d: %w", b, block.ErrChecksum)
		}
	}
	rep.Buf = r.buffers.take(int(span.Length))
	r.copyOut(span, rep.Buf.Data)
	return nil
}

func (r *replica) copyOut(span block.Span, to []byte) { copyBlocks(r.blocks, span, to) }

func copyBlocks(blocks map[int64][]byte, span block.Span, to []byte) {
	clear(to)
	for b := range blocksOf(span) {
		at := b*block.BlockSize - span.Offset
		from := max(0, -at)
		if data := blocks[b]; data != nil {
			copy(to[at+from:], data[from:])
		}
	}
}

// merges reports whether the blocks of which the span is a part can be read, to
// be written whole.
func (r *replica) merges(span block.Span) bool {
	for b := range blocksOf(span) {
		whole := span.Offset <= b*block.BlockSize && span.End() >= (b+1)*block.BlockSize
		if (r.bad[b] || r.suspect[b]) && !whole {
			return false
		}
	}
	return true
}

func (r *replica) write(span block.Span, data []byte) {
	for g := range regionsOf(span) {
		r.log.Add(g)
	}
	for b := range blocksOf(span) {
		old := r.blocks[b]
		if _, ok := r.undo[b]; !ok {
			r.undo[b] = old
		}
		now := make([]byte, block.BlockSize)
		copy(now, old)
		at := b*block.BlockSize - span.Offset
		from := max(0, -at)
		n := copy(now[from:], data[at+from:])
		r.blocks[b] = now
		r.fresh[b] = true
		if n == block.BlockSize {
			delete(r.bad, b)
			delete(r.suspect, b)
		}
	}
}

func (r *replica) flushed(n block.FlushNumber, confirmed []block.Confirmed) {
	clear(r.undo)
	for _, c := range r.cuts {
		c.Valid = c.Valid || !c.target
	}
	r.flush = laterFlush(r.flush, n)
	for _, f := range confirmed {
		r.confirmed[f.Replica] = laterFlush(r.confirmed[f.Replica], f.Flush)
	}
}

func (r *replica) dirtySet(id block.ReplicaID) int {
	return slices.IndexFunc(r.dirty, func(d block.DirtySet) bool { return d.Replica == id })
}

func (r *replica) update(u *block.Update) error {
	for _, d := range u.AddDirty {
		if i := r.dirtySet(d.Replica); i >= 0 && r.dirty[i].Removal != d.Removal {
			return block.ErrConflict
		}
	}
	if v := u.View; v != nil && (v.Epoch > r.view.Epoch || v.Epoch == r.view.Epoch && v.Revision > r.view.Revision) {
		r.view = v.Clone()
	}
	for _, d := range u.SetDirty {
		r.dirty = slices.DeleteFunc(r.dirty, func(old block.DirtySet) bool { return old.Replica == d.Replica })
		d.Regions = d.Regions.Clone()
		r.dirty = append(r.dirty, d)
	}
	for _, d := range u.AddDirty {
		if i := r.dirtySet(d.Replica); i >= 0 {
			r.dirty[i].Regions.Union(d.Regions)
		} else {
			d.Regions = d.Regions.Clone()
			r.dirty = append(r.dirty, d)
		}
	}
	for _, d := range u.ClearDirty {
		if i := r.dirtySet(d.Replica); i >= 0 && r.dirty[i].Removal == d.Removal {
			r.dirty[i].Regions.Subtract(d.Regions)
		}
	}
	r.dirty = slices.DeleteFunc(r.dirty, func(d block.DirtySet) bool { return slices.Contains(u.DropDirty, d.Replica) })
	r.updateCuts(u)
	r.log.Subtract(u.ClearLog)
	for g := range u.ClearLog.All() {
		r.settleChecksums(g)
	}
	return nil
}

// settleChecksums is what leaving the log means for a region: its checksums are
// durable as they are, and what fails them is damaged from now on.
func (r *replica) settleChecksums(g block.Region) {
	for b := range blocksOf(g.Span()) {
		if r.suspect[b] {
			r.bad[b] = true
		}
		delete(r.suspect, b)
		delete(r.fresh, b)
	}
}

// emptySum is the hash of an extent of zeros: most are, and hashing takes time.
var emptySum = sha256.Sum256(make([]byte, block.ExtentSize))

func empty(blocks map[int64][]byte, span block.Span) bool {
	for b := range blocksOf(span) {
		if blocks[b] != nil {
			return false
		}
	}
	return true
}

func (r *replica) hash(span block.Span, rep *block.Reply) {
	hashBlocks(r.blocks, r.bad, r.suspect, span, rep)
}

func hashBlocks(blocks map[int64][]byte, bad, suspect map[int64]bool, span block.Span, rep *block.Reply) {
	data := make([]byte, block.ExtentSize)
	for at := span.Offset; at < span.End(); at += block.ExtentSize {
		extent := block.Span{Offset: at, Length: min(block.ExtentSize, span.End()-at)}
		var h block.ExtentHash
		for b := range blocksOf(extent) {
			mask := uint16(1) << uint(b%block.BlocksPerExtent)
			if bad[b] {
				h.Bad |= mask
			}
			if suspect[b] {
				h.Suspect |= mask
			}
		}
		if empty(blocks, extent) && extent.Length == block.ExtentSize {
			h.Sum = emptySum
		} else {
			copyBlocks(blocks, extent, data[:extent.Length])
			h.Sum = sha256.Sum256(data[:extent.Length])
		}
		rep.Hashes = append(rep.Hashes, h)
	}
}

// kill ends the replica's process: its bytes are with the operating system, the
// checksums of some overwrites are not (rule 8).
func (r *replica) kill(random *rand.Rand) {
	for b := range sorted(r.fresh) {
		if random.IntN(2) == 0 && r.log.Has(block.RegionOf(b*block.BlockSize)) {
			r.suspect[b] = true
			delete(r.fresh, b)
		}
	}
}

// losePower forgets some of what was written since the last flush, a sector at a
// time.
func (r *replica) losePower(random *rand.Rand) {
	r.kill(random)
	for b := range sorted(r.undo) {
		old, now := r.undo[b], slices.Clone(r.blocks[b])
		for at := 0; at < block.BlockSize; at += block.SectorSize {
			if random.IntN(2) == 0 {
				clear(now[at : at+block.SectorSize])
				if old != nil {
					copy(now[at:at+block.SectorSize], old[at:])
				}
			}
		}
		r.tear(b, now)
		r.suspect[b] = true
	}
	clear(r.undo)
	r.incarnation.DiskSequence++
}

// sorted yields the keys of a map in rising order, so that a seed gives one run.
func sorted[V any](m map[int64]V) func(yield func(int64) bool) {
	keys := make([]int64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return slices.Values(keys)
}

// ledger hands out buffers that no pool takes back, and knows how many
// references of each there are.
type ledger struct {
	all, spare []*block.Buffer
}

func (l *ledger) take(n int) *block.Buffer {
	if len(l.spare) == 0 {
		l.spare = slices.DeleteFunc(slices.Clone(l.all), func(b *block.Buffer) bool { return references(b) != 0 })
	}
	var b *block.Buffer
	if k := len(l.spare) - 1; k >= 0 {
		b, l.spare = l.spare[k].Retain(), l.spare[:k]
	} else {
		b = block.NewBuffer(block.MaxTransfer + 1)
		l.all = append(l.all, b)
	}
	b.Data = b.Data[:n:cap(b.Data)]
	return b
}

// held counts the buffers that somebody has a reference of.
func (l *ledger) held() int {
	n := 0
	for _, b := range l.all {
		if references(b) != 0 {
			n++
		}
	}
	return n
}

// references looks into a buffer that belongs to nobody else.
func references(b *block.Buffer) int64 {
	return reflect.ValueOf(b).Elem().FieldByName("refs").FieldByName("v").Int()
}
