package store

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// maxLoaders bounds the jobs that read pages.
	maxLoaders = 8
	// loadBatch bounds the pages that the device's thread takes at once. It ends a few
	// requests together, whose owners ask for as many. Others take one, for a second one
	// would hold up the first, and another job may have its hands free.
	loadBatch = 4
	// sparePages bounds the pages that are kept for reuse.
	sparePages = 64
)

// pageLoader is a job that reads pages, with its memory.
type pageLoader struct {
	store *Store
	job   func()
	// helped: the job is run by the device's thread.
	helped bool
	pages  []*page
	errs   [loadBatch]error
	key    []byte
	next   *pageLoader
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
	s.jobs++
	l.start()
}

// start has somebody read pages.
func (l *pageLoader) start() {
	s := l.store
	s.loadersComing++
	l.helped = s.loads.start(s, l.job)
}

// run reads the pages that have waited longest, until none waits. The device's thread
// looks after its own work in between.
func (l *pageLoader) run() {
	s := l.store
	if !s.enter() {
		return
	}
	s.loadersComing--
	for l.take(); len(l.pages) > 0; l.take() {
		s.unlock()
		began := time.Now()
		l.read()
		took := time.Since(began)
		if !s.enter() {
			return
		}
		if l.helped {
			s.loads.took(took)
		}
		for i, p := range l.pages {
			s.pageRead(p, l.errs[i])
			l.pages[i], l.errs[i] = nil, nil
		}
		s.evict()
		if l.helped && len(s.missing) > 0 {
			l.start()
			s.unlock()
			return
		}
	}
	s.loaders--
	l.next, s.freeLoaders = s.freeLoaders, l
	s.jobDone()
	s.unlock()
}

// take takes the pages that have waited longest.
func (l *pageLoader) take() {
	s := l.store
	batch := 1
	if l.helped {
		batch = loadBatch
	}
	n := min(len(s.missing), batch)
	l.pages = append(l.pages[:0], s.missing[:n]...)
	rest := copy(s.missing, s.missing[n:])
	clear(s.missing[rest:])
	s.missing = s.missing[:rest]
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

// read fills the pages in from the database. Nobody else looks at their states before
// they are loaded, so the mutex is not needed.
func (l *pageLoader) read() {
	s := l.store
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: mapStart, UpperBound: mapEnd})
	if err != nil {
		err = databaseError(err)
	}
	for i, p := range l.pages {
		l.errs[i] = err
		if err == nil {
			l.errs[i] = l.readEntries(it, p)
		}
		switch {
		case l.errs[i] != nil:
			l.errs[i] = fmt.Errorf("read map page %d in %s: %w", p.number, s.metaPath(), l.errs[i])
		case p.replica.origin != nil:
			l.errs[i] = s.showOrigin(p)
		}
	}
	if err == nil {
		_ = it.Close() // its errors have been seen
	}
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
