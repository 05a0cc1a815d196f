package store

import "testing"

// TestUsedPagesStay reads one page between many others, with room for four: it stays in
// memory, and the others go.
func TestUsedPagesStay(t *testing.T) {
	const perPage = pageExtents << 16
	g := newRig(t)
	r := g.create(1, testSize)
	for at := int64(0); at < testSize; at += perPage {
		g.write(r, at, fill(4096, byte(at/perPage)))
	}
	g.flush(r)
	g.options.CacheSize = 4 * pageBytes
	g.powerLoss()
	r = g.replica(1)
	for at := int64(0); at < testSize; at += perPage {
		g.expect(r, at, fill(4096, byte(at/perPage)))
		kept := r.pages[0]
		g.expect(r, 0, fill(4096, 0))
		if at > perPage && r.pages[0] != kept {
			t.Fatalf("at %d: a page that is read all the time was read again", at)
		}
		if n := r.store.cache.count; n > 4+1 || int(n) != len(r.pages) {
			t.Fatalf("at %d: %d pages in the list, %d in the map", at, n, len(r.pages))
		}
	}
}
