package sim

import (
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/internal/block"
)

// trace is what happened: a hash over every line and the last lines themselves.
// Two runs of one seed must have the same hash.
type trace struct {
	hash  uint64
	lines int
	ring  [][]byte
	// full gets every line as it is written; nil for none.
	full io.Writer
}

func newTrace(keep int) *trace {
	return &trace{hash: 14695981039346656037, ring: make([][]byte, keep)}
}

// add writes one line. The line is formatted into the ring's own memory.
func (t *trace) add(now block.Instant, step int, format string, args ...any) {
	slot := &t.ring[t.lines%len(t.ring)]
	t.lines++
	line := fmt.Appendf((*slot)[:0], "%6d %12.6f ", step, float64(now)/float64(second)-1000)
	line = fmt.Appendf(line, format, args...)
	for _, c := range line {
		t.hash = (t.hash ^ uint64(c)) * 1099511628211
	}
	*slot = line
	if t.full != nil {
		fmt.Fprintf(t.full, "%s\n", line)
	}
}

// last returns the newest n lines, oldest first.
func (t *trace) last(n int) []string {
	n = min(n, t.lines, len(t.ring))
	out := make([]string, 0, n)
	for i := t.lines - n; i < t.lines; i++ {
		out = append(out, string(t.ring[i%len(t.ring)]))
	}
	return out
}

// log adds a trace line at the present.
func (l *loop) log(format string, args ...any) { l.trace.add(l.now, l.steps, format, args...) }
