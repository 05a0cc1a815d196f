package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// maxLoaders bounds the jobs that read pages.
	maxLoaders = 8
	// sparePages bounds the pages that are kept for reuse.
	sparePages = 64
)

// pageLoader is a job that reads pages, with its memory.
type pageLoader struct {
	store *Store
	job   func()
	key   []byte
	next  *pageLoader
}

// newPage takes the memory of a page that has left the cache.
func (s *Store) newPage(r *Replica, number uint32) *page {
	p := s.freePages
	if p == nil {
		return &page{replica: r, number: number}
	}
	s.freePages = p.older
	s.freePageCount--
	*p = page{replica: r, number: number}
	return p
}

// keepPage keeps the memory of a page that is used by nobody.
func (s *Store) keepPage(p *page) {
	if s.freePageCount < sparePages {
		p.older, p.newer = s.freePages, nil
		s.freePages = p
		s.freePageCount++
	}
}

// missPage queues a page to be read, and starts a job unless those that are about to
// begin take it along.
func (s *Store) missPage(p *page) {
	s.missing = append(s.missing, p)
	if len(s.missing) <= s.loadersComing || s.loaders == maxLoaders {
		return
	}
	l := s.freeLoaders
	if l == nil {
		l = &pageLoader{store: s}
		l.job = l.run
	} else {
		s.freeLoaders = l.next
	}
	s.loaders++
	s.loadersComing++
	s.jobs++
	s.options.Executor.Go(l.job)
}

// run reads the page that has waited longest, until none waits. One at a time: a second
// one would hold up the first, and another job may have its hands free.
func (l *pageLoader) run() {
	s := l.store
	var p *page
	for err := error(nil); ; err = l.read(p) {
		if !s.enter() {
			return
		}
		if p == nil {
			s.loadersComing--
		} else {
			s.pageRead(p, err)
			s.evict()
		}
		if p = s.takeMissing(); p == nil {
			break
		}
		s.unlock()
	}
	s.loaders--
	l.next, s.freeLoaders = s.freeLoaders, l
	s.jobDone()
	s.unlock()
}

// takeMissing takes the page that has waited longest, if one waits.
func (s *Store) takeMissing() *page {
	if len(s.missing) == 0 {
		return nil
	}
	p := s.missing[0]
	last := copy(s.missing, s.missing[1:])
	s.missing[last] = nil
	s.missing = s.missing[:last]
	return p
}

// pageRead lets the pieces go that wait for a page.
func (s *Store) pageRead(p *page, err error) {
	p.loaded, p.err = true, err
	for i := range p.entries {
		e := &p.entries[i]
		if err != nil {
			e.entryState = entryState{}
		}
		s.grant(e)
	}
	if p.pins == 0 && p.err != nil {
		s.dropPage(p)
	}
}

// read fills a page in from the database. Nobody else looks at its states before it is
// loaded, so the mutex is not needed.
func (l *pageLoader) read(p *page) error {
	s := l.store
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: mapStart, UpperBound: mapEnd})
	if err != nil {
		err = databaseError(err)
	} else {
		err = l.readEntries(it, p)
		_ = it.Close() // its errors have been seen
	}
	if err != nil {
		return fmt.Errorf("read map page %d in %s: %w", p.number, s.metaPath(), err)
	}
	if p.replica.origin != nil {
		return s.showOrigin(p)
	}
	return nil
}

var mapStart, mapEnd = []byte{keyMap}, []byte{keyMap + 1}

func (l *pageLoader) readEntries(it *pebble.Iterator, p *page) error {
	h, first := p.replica.record.handle, p.number*pageExtents
	l.key = mapKey(l.key[:0], h, first)
	for ok := it.SeekGE(l.key); ok; ok = it.Next() {
		owner, extent, err := splitMapKey(it.Key())
		if err != nil {
			return err
		}
		if owner != h || extent >= first+pageExtents {
			return nil
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return databaseError(err)
		}
		if err := decodeEntry(value, &p.entries[extent-first].entryState); err != nil {
			return fmt.Errorf("map key %x: %w", it.Key(), err)
		}
	}
	if err := it.Error(); err != nil {
		return databaseError(err)
	}
	return nil
}
