package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// maxCuts bounds the cuts of a replica, those being dropped included.
const maxCuts = 16384

// cut is a state of a line that is kept: all extents as they were when the head
// had the number layer.
type cut struct {
	block.Cut
	layer uint32
	// target: it becomes valid by Update.ValidCuts alone.
	target bool
	// dropping: nobody sees it any more. It stays until what it alone holds is
	// freed, and while a clone shows it through.
	dropping bool
}

// Flags of a stored cut.
const (
	cutValid = 1 << iota
	cutTarget
	cutDropping
	cutKept
)

func (c *cut) encode() []byte {
	b := append([]byte(nil), c.Snapshot.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Epoch))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Size))
	return append(b, cutFlag(c.Valid, cutValid)|cutFlag(c.target, cutTarget)|cutFlag(c.dropping, cutDropping)|cutFlag(c.Kept, cutKept))
}

func cutFlag(set bool, flag uint8) uint8 {
	if set {
		return flag
	}
	return 0
}

func decodeCut(b []byte) (c cut, err error) {
	d := decoder{rest: b}
	c.Snapshot.ID = d.id()
	c.Epoch = block.Epoch(d.u64())
	c.Size = int64(d.u64())
	flags := d.u8()
	if err := d.end("cut"); err != nil {
		return cut{}, err
	}
	if flags >= cutKept<<1 || c.Snapshot.IsZero() || c.Size <= 0 || c.Size > block.MaxVolumeSize {
		return cut{}, fmt.Errorf("decode cut: flags %#x, size %d: %w", flags, c.Size, block.ErrCorrupt)
	}
	c.Valid, c.target = flags&cutValid != 0, flags&cutTarget != 0
	c.dropping, c.Kept = flags&cutDropping != 0, flags&cutKept != 0
	return c, nil
}

func cutKey(h handle, layer uint32) []byte {
	return binary.BigEndian.AppendUint32(handleKey(nil, keyCut, h), layer)
}

// lineRecord is what a line has beyond that of a replica without cuts and origin,
// which has none.
type lineRecord struct {
	// head is the number of the head: one above that of any cut there ever was.
	head uint32
	// origin and originLayer name the cut of another line that shows through.
	origin      handle
	originLayer uint32
}

func (l lineRecord) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, l.head)
	b = binary.LittleEndian.AppendUint32(b, uint32(l.origin))
	return binary.LittleEndian.AppendUint32(b, l.originLayer)
}

func decodeLine(b []byte) (l lineRecord, err error) {
	d := decoder{rest: b}
	l = lineRecord{head: d.u32(), origin: handle(d.u32()), originLayer: d.u32()}
	if err := d.end("line record"); err != nil {
		return lineRecord{}, err
	}
	if l.head < firstLayer || (l.origin == 0) != (l.originLayer == 0) {
		return lineRecord{}, fmt.Errorf("decode line record %+v: %w", l, block.ErrCorrupt)
	}
	return l, nil
}

// Cuts are the durable ones, oldest first, but for those being dropped.
func (r *Replica) Cuts() []block.Cut {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	var cuts []block.Cut
	for i := range r.durable.cuts {
		if c := &r.durable.cuts[i]; !c.dropping {
			cuts = append(cuts, c.Cut)
		}
	}
	return cuts
}

// findCut finds the cut of a snapshot that is not being dropped.
func findCut(cuts []cut, id block.SnapshotID) *cut {
	for i := range cuts {
		if c := &cuts[i]; c.Snapshot == id && !c.dropping {
			return c
		}
	}
	return nil
}

// publish makes meta the metadata that requests see.
func (r *Replica) publish(meta metadata) {
	r.durable = meta
	r.record.size = meta.size
	r.size.Store(meta.size)
	r.countCuts()
}

// needs reports whether anything needs what c has.
func (r *Replica) needs(c *cut) bool { return !c.dropping || r.pins[c.layer] > 0 }

// countCuts finds what requests ask of the cuts all the time, and whether one is to be
// pruned.
func (r *Replica) countCuts() {
	r.newest, r.newestValid = 0, 0
	for i := range r.durable.cuts {
		c := &r.durable.cuts[i]
		if r.needs(c) {
			r.newest = c.layer
		} else {
			r.store.wantPruning(r)
		}
		if c.Valid && !c.dropping {
			r.newestValid = c.layer
		}
	}
}

// neighbours are the cuts around a layer, whatever becomes of them: the next
// older one, 0 if there is none, and the next younger one or the head.
func (m *metadata) neighbours(layer uint32) (below, above uint32) {
	above = m.line.head
	for i := range m.cuts {
		switch l := m.cuts[i].layer; {
		case l < layer:
			below = l
		case l > layer:
			return below, l
		}
	}
	return below, above
}

// oldest is the layer of the oldest cut, or the head's number.
func (m *metadata) oldest() uint32 {
	if len(m.cuts) > 0 {
		return m.cuts[0].layer
	}
	return m.line.head
}

// cutsIn reports whether a cut lies in the layers from first to last.
func (m *metadata) cutsIn(first, last uint32) bool {
	i, _ := slices.BinarySearchFunc(m.cuts, first, func(c cut, layer uint32) int { return int(c.layer) - int(layer) })
	return i < len(m.cuts) && m.cuts[i].layer <= last
}

// changesCuts reports whether u has anything of buildCuts.
func changesCuts(u *block.Update) bool {
	return takesCuts(u) || len(u.ValidCuts)+len(u.DropCuts) > 0
}

func takesCuts(u *block.Update) bool { return u.KeepHead || len(u.Cuts) > 0 }

// buildCuts adds what u does to the cuts. No write is under way if it takes any.
func (s *Store) buildCuts(c *commit, r *Replica, next *metadata, u *block.Update) {
	if !changesCuts(u) {
		return
	}
	before := next.cuts
	next.cuts = slices.Clone(before)
	line := next.line
	if u.KeepHead {
		next.take(block.CutRequest{Snapshot: block.KeptHead, Target: true})
	}
	for _, request := range u.Cuts {
		next.take(request)
	}
	for _, id := range u.ValidCuts {
		if q := findCut(next.cuts, id); q != nil {
			q.Valid, q.target = true, false
		}
	}
	for _, id := range u.DropCuts {
		if q := findCut(next.cuts, id); q != nil {
			q.dropping = true
		}
	}
	for i := range next.cuts {
		if i >= len(before) || before[i] != next.cuts[i] {
			s.put(c.batch.Set(cutKey(r.record.handle, next.cuts[i].layer), next.cuts[i].encode(), nil))
		}
	}
	if line != next.line {
		s.put(c.batch.Set(handleKey(nil, keyLine, r.record.handle), next.line.encode(), nil))
	}
}

// checkCuts says why u cannot be applied.
func (m *metadata) checkCuts(u *block.Update) error {
	if n := len(m.cuts) + len(u.Cuts) + 1; takesCuts(u) && n > maxCuts {
		return fmt.Errorf("%d cuts, at most %d: %w", n, maxCuts, block.ErrInvalid)
	}
	if u.Grow != 0 && u.Grow < m.size {
		return fmt.Errorf("grow from %d to %d bytes: %w", m.size, u.Grow, block.ErrInvalid)
	}
	return nil
}

// take adds a cut of the head, unless there is one of that snapshot. That may become
// one of a target: what was lost since it was taken must not be made valid by a flush.
func (m *metadata) take(request block.CutRequest) {
	if q := findCut(m.cuts, request.Snapshot); q != nil {
		q.target = q.target || request.Target && !q.Valid
		return
	}
	m.cuts = append(m.cuts, cut{
		Cut: block.Cut{
			Snapshot: request.Snapshot, Epoch: request.Epoch, Size: m.size,
			Kept: request.Snapshot == block.KeptHead,
		},
		layer:  m.line.head,
		target: request.Target,
	})
	m.line.head++
}

// validated are cuts that become valid with a flush round.
type validated struct {
	replica *Replica
	layers  []uint32
}

// toValidate are the cuts of r that the next flush makes valid.
func (r *Replica) toValidate() (layers []uint32) {
	for i := range r.durable.cuts {
		if c := &r.durable.cuts[i]; !c.Valid && !c.target && !c.dropping {
			layers = append(layers, c.layer)
		}
	}
	return layers
}

// collectCuts prepares a round for the cuts that become valid with it, or after it
// by an Update. With a valid cut goes every checksum that the database lacks of
// its replica, so that nothing of it is ever suspect.
func (s *Store) collectCuts(r *round) {
	for _, t := range r.tasks {
		switch {
		case t.op.Kind == Flush:
			layers := t.replica.toValidate()
			known := slices.ContainsFunc(r.valid, func(v validated) bool { return v.replica == t.replica })
			if len(layers) == 0 || known {
				continue
			}
			r.valid = append(r.valid, validated{replica: t.replica, layers: layers})
		case t.op.Kind != Update || len(t.op.Meta.ValidCuts) == 0:
			continue
		}
		if r.batch == nil {
			r.batch = s.db.NewBatch()
		}
		for _, p := range t.replica.stalePages() {
			s.putStale(r.batch, p)
			p.pins++
			r.pages = append(r.pages, p)
		}
	}
}

// stalePages are the pages of r with stale checksums, in order.
func (r *Replica) stalePages() (pages []*page) {
	for _, p := range r.pages {
		if p.stale > 0 {
			pages = append(pages, p)
		}
	}
	slices.SortFunc(pages, func(a, b *page) int { return int(a.number) - int(b.number) })
	return pages
}

// buildValid marks the cuts of a round as valid.
func (s *Store) buildValid(c *commit, r *round) {
	for _, v := range r.valid {
		next := v.replica.next
		next.cuts = slices.Clone(next.cuts)
		for i := range next.cuts {
			if q := &next.cuts[i]; slices.Contains(v.layers, q.layer) && !q.dropping {
				q.Valid = true
				s.put(c.batch.Set(cutKey(v.replica.record.handle, q.layer), q.encode(), nil))
			}
		}
		v.replica.next = next
		c.published = append(c.published, publication{replica: v.replica, meta: next})
	}
}

// loadCuts reads the line and the cuts of a replica.
func (s *Store) loadCuts(r *Replica) error {
	h := r.record.handle
	b, err := s.get(handleKey(nil, keyLine, h))
	if err != nil || b == nil {
		return err
	}
	if r.next.line, err = decodeLine(b); err != nil {
		return err
	}
	return scan(s.db, handleKey(nil, keyCut, h), handleKey(nil, keyCut, h+1), func(key, value []byte) error {
		c, err := decodeCut(value)
		if err != nil {
			return err
		}
		if len(key) != 9 {
			return fmt.Errorf("cut key %x: %w", key, block.ErrCorrupt)
		}
		if c.layer = binary.BigEndian.Uint32(key[5:]); c.layer < firstLayer || c.layer >= r.next.line.head {
			return fmt.Errorf("cut key %x: the head has number %d: %w", key, r.next.line.head, block.ErrCorrupt)
		}
		r.next.cuts = append(r.next.cuts, c)
		return nil
	})
}

// distrustCuts notes that the process before has ended: a cut that no flush has made
// valid may lack what it had, if power was lost, and checksums of what it has, in any
// case. No later flush makes up for it.
func (s *Store) distrustCuts(b *pebble.Batch) error {
	for _, r := range s.replicas {
		for i := range r.next.cuts {
			c := &r.next.cuts[i]
			if c.Valid || c.target {
				continue
			}
			c.target = true
			if err := b.Set(cutKey(r.record.handle, c.layer), c.encode(), nil); err != nil {
				return databaseError(err)
			}
		}
	}
	return nil
}
