package store

import "testing"

// TestPageSize bounds what the map of a volume takes in memory: a page of 128 KiB, so
// that the cache's limit tells how much of a volume it covers.
func TestPageSize(t *testing.T) {
	if limit := int64(320); pageBytes > limit {
		t.Errorf("a page has %d bytes, at most %d", pageBytes, limit)
	}
	t.Logf("%d bytes", pageBytes)
}
