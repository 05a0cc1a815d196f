package robustness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// What is counted over all rounds.
const (
	countFaults    = "faults"
	countRequests  = "requests"
	countUnknown   = "requests of unknown outcome"
	countStale     = "reads answered at an old place"
	countHistories = "histories found linearizable"
	countUnjudged  = "turns of the clock on a machine that stood still"
	countRemovals  = "changes of the in-sync set while CPUs were busy"
	countElections = "elections while CPUs were busy"
)

// sample is what one fault cost: the longest time without an acknowledged write
// from the fault to its mending and from there on, and how long after the mending
// all replicas were in sync (zero: that was not waited for).
type sample struct{ during, after, sync time.Duration }

// table collects samples by kind of fault. It is safe for concurrent use.
type table struct {
	mu    sync.Mutex
	kinds map[string][]sample
	// counts are what is counted over all rounds.
	counts map[string]uint64
}

// counted is what was counted so far.
func (t *table) counted(what string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[what]
}

// count adds to what is counted over all rounds.
func (t *table) count(what string, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]uint64{}
	}
	t.counts[what] += n
}

func (t *table) add(kind string, s sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds == nil {
		t.kinds = map[string][]sample{}
	}
	t.kinds[kind] = append(t.kinds[kind], s)
}

// String is the table for people, in milliseconds.
func (t *table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kinds := slices.Sorted(maps.Keys(t.kinds))
	var text strings.Builder
	fmt.Fprintf(&text, "%-34s %5s  %19s  %19s  %19s\n", "longest pause of writes, ms", "n", "during median/max", "after median/max", "in sync median/max")
	for _, kind := range kinds {
		samples := t.kinds[kind]
		column := func(of func(sample) time.Duration) string {
			var values []time.Duration
			for _, s := range samples {
				if v := of(s); v > 0 {
					values = append(values, v)
				}
			}
			if len(values) == 0 {
				return ""
			}
			slices.Sort(values)
			return fmt.Sprintf("%d / %d", values[len(values)/2].Milliseconds(), values[len(values)-1].Milliseconds())
		}
		fmt.Fprintf(&text, "%-34s %5d  %19s  %19s  %19s\n", kind, len(samples),
			column(func(s sample) time.Duration { return s.during }),
			column(func(s sample) time.Duration { return s.after }),
			column(func(s sample) time.Duration { return s.sync }))
	}
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Fprintf(&text, "%-50s %8d\n", what, t.counts[what])
	}
	return text.String()
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
