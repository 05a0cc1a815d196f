package engine

import (
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
)

// TestEverythingCountedHasACounter: one without would end the daemon when it happens.
func TestEverythingCountedHasACounter(t *testing.T) {
	m := newMetrics()
	for kind := core.NoticeMemberLost; int(kind) < len(m.events); kind++ {
		if m.events[kind] == nil {
			t.Errorf("notice %d has no counter", kind)
		}
	}
	for kind := range operationNames() {
		if m.duration[kind] == nil || m.failures[kind] == nil || m.bytes[kind] == nil {
			t.Errorf("operation %d lacks a counter", kind)
		}
	}
}
