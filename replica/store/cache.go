package store

import (
	"fmt"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// pageExtents is the number of extents that are cached together: 128 KiB of a volume. A
// request that finds none of them in memory reads them all, so fewer are better for
// small requests, and more for long ones and for what a page takes by itself.
const pageExtents = 2

// pageBytes is what a page takes, with its place in the replica's map of pages.
const pageBytes = int64(unsafe.Sizeof(page{})) + pagePlace

// pagePlace is a number and a pointer at the load that Go's maps have on average.
const pagePlace = 24

// entry is one extent of a head map in memory.
type entry struct {
	entryState
	// undo is what the database lacks of the states that cuts keep.
	undo *undoChange
	// queue are the pieces of requests on this extent, in the order of their
	// arrival, granted or not.
	queue *piece
	// changed: places differ from the last built commit, so that the next flush
	// round takes the entry.
	changed bool
	// inRound: the flush round in progress carries the entry.
	inRound bool
	// stale: checksums differ from the last built commit.
	stale bool
}

// page is a part of a replica's head map. All fields are guarded by the store's
// mutex.
type page struct {
	replica *Replica
	number  uint32
	loaded  bool
	// used since it came into the cache, or was last looked at by evict.
	used bool
	// err is why the page could not be loaded; its pieces fail, and it leaves
	// the cache with the last of them.
	err error
	// pins count the pieces on the page, its changed entries and the commits in
	// flight that carry a part of it; stale counts the stale entries.
	pins  int
	stale int
	// newer and older link the pages of a store.
	newer   *page
	older   *page
	entries [pageExtents]entry
}

// cache holds pages up to mapLimit; pages in use may exceed it, which the limits
// on changed entries and requests in flight bound. They leave in the order in which they
// came, but for one that was used meanwhile, which gets another turn: so a use is a mark
// on the page, and touches no other.
type cache struct {
	newest *page
	oldest *page
	count  int64
}

func (c *cache) push(p *page) {
	p.older, p.newer = c.newest, nil
	if c.newest != nil {
		c.newest.newer = p
	} else {
		c.oldest = p
	}
	c.newest = p
	c.count++
}

func (c *cache) unlink(p *page) {
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		c.newest = p.older
	}
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		c.oldest = p.newer
	}
	p.newer, p.older = nil, nil
	c.count--
}

// page returns page number of r with one more pin. It starts to load it if it
// is not in memory.
func (s *Store) page(r *Replica, number uint32) *page {
	p := r.pages[number]
	if p == nil {
		p = s.newPage(r, number)
		r.pages[number] = p
		s.cache.push(p)
		s.missPage(p)
	} else {
		p.used = true
	}
	p.pins++
	return p
}

// unpin takes one pin back.
func (s *Store) unpin(p *page) {
	p.pins--
	if p.pins == 0 && p.err != nil {
		s.dropPage(p)
	}
}

func (s *Store) dropPage(p *page) {
	s.cache.unlink(p)
	delete(p.replica.pages, p.number)
}

// scan calls f for each pair of [lower, upper) in the order of the keys.
func scan(db *pebble.DB, lower, upper []byte, f func(key, value []byte) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return databaseError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			_ = it.Close() // the error of f is the one that counts
			return err
		}
	}
	if err := it.Close(); err != nil {
		return databaseError(err)
	}
	return nil
}

// databaseError gives an error of pebble its sentinel.
func databaseError(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", block.ErrCorrupt, err)
	}
	return fmt.Errorf("%w: %w", block.ErrDiskFailed, err)
}

// evict brings the cache down to its limit. A page with stale checksums is
// first written back by a commit.
func (s *Store) evict() {
	const attempts = 64
	limit := s.mapLimit()
	p := s.cache.oldest
	for range attempts {
		if p == nil || s.cache.count*pageBytes <= limit {
			return
		}
		next := p.newer
		switch {
		case p.pins > 0 || !p.loaded:
		case p.used:
			p.used = false
			s.cache.unlink(p)
			s.cache.push(p)
		case p.stale == 0:
			s.dropPage(p)
			s.keepPage(p)
		case s.failed == nil:
			p.pins++
			s.writeback = append(s.writeback, p)
			s.startCommit()
		}
		p = next
	}
}

// change marks that the places of entry index differ from the database's.
func (s *Store) change(p *page, index int) {
	e := &p.entries[index]
	if !e.changed {
		e.changed = true
		p.pins++
		s.changed = append(s.changed, entryRef{page: p, index: index})
	}
}

// entryRef is a changed entry; it pins its page.
type entryRef struct {
	page  *page
	index int
}

func (ref entryRef) entry() *entry { return &ref.page.entries[ref.index] }

func (ref entryRef) extent() uint32 { return ref.page.number*pageExtents + uint32(ref.index) }

// markStale notes that e's checksums differ from the database's.
func markStale(p *page, e *entry) {
	if !e.stale {
		e.stale = true
		p.stale++
	}
}

func clearStale(p *page, e *entry) {
	if e.stale {
		e.stale = false
		p.stale--
	}
}

// regionPageRange are the page numbers of a region.
func regionPageRange(g block.Region) (first, end uint32) {
	const perRegion = block.ExtentsPerRegion / pageExtents
	return uint32(g) * perRegion, (uint32(g) + 1) * perRegion
}
