package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// errLost: a read does not show what was acknowledged.
var errLost = errors.New("acknowledged write lost")

const sectorsPerBlock = block.BlockSize / block.SectorSize

// ledger knows what each block of a volume must hold. Each block has one writer at a
// time, who waits for the answer to a write before the next; so there is one value
// that was acknowledged last, and perhaps some that were sent after it and never
// answered. It is safe for concurrent use.
type ledger struct {
	drawn atomic.Uint64
	// writes and reads count blocks: acknowledged, and verified.
	writes, reads atomic.Int64

	mu    sync.Mutex
	acked []stamp.Value
	// open are the values of unknown outcome, the oldest first.
	open map[int64][]stamp.Value
}

func newLedger(size int64) *ledger {
	return &ledger{acked: make([]stamp.Value, size/block.BlockSize), open: map[int64][]stamp.Value{}}
}

// draw gives the value of a new write.
func (l *ledger) draw() stamp.Value { return stamp.Value(l.drawn.Add(1)) }

// wrote notes an acknowledged write.
func (l *ledger) wrote(span block.Span, v stamp.Value) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := span.Offset / block.BlockSize; b < span.End()/block.BlockSize; b++ {
		l.acked[b] = v
		delete(l.open, b)
		l.writes.Add(1)
	}
}

// unanswered notes a write of unknown outcome.
func (l *ledger) unanswered(span block.Span, v stamp.Value) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := span.Offset / block.BlockSize; b < span.End()/block.BlockSize; b++ {
		l.open[b] = append(l.open[b], v)
	}
}

// check judges whole blocks that were read at an offset.
func (l *ledger) check(p []byte, offset int64) error {
	values, err := stamp.Read(p, offset)
	if err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; i < len(values); i += sectorsPerBlock {
		b := offset/block.BlockSize + int64(i/sectorsPerBlock)
		if err := l.checkBlock(b, values[i:i+sectorsPerBlock]); err != nil {
			return err
		}
		l.reads.Add(1)
	}
	return nil
}

// checkBlock judges one block. What was seen of unknown outcome has happened, and
// what was sent before it never will.
func (l *ledger) checkBlock(b int64, seen []stamp.Value) error {
	latest := -1
	for _, v := range seen {
		if v == l.acked[b] {
			continue
		}
		at := slices.Index(l.open[b], v)
		if at < 0 {
			return fmt.Errorf("%w: block %d reads as write %d, acknowledged was %d, unknown are %v",
				errLost, b, v, l.acked[b], l.open[b])
		}
		latest = max(latest, at)
	}
	if latest < 0 || !allEqual(seen) {
		return nil // a block that a crash left half new stays in doubt
	}
	l.acked[b] = l.open[b][latest]
	if l.open[b] = l.open[b][latest+1:]; len(l.open[b]) == 0 {
		delete(l.open, b)
	}
	return nil
}

func allEqual(values []stamp.Value) bool {
	return !slices.ContainsFunc(values, func(v stamp.Value) bool { return v != values[0] })
}

// snapshot is what the blocks hold now, as far as it was acknowledged.
func (l *ledger) snapshot() []stamp.Value {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acked)
}

// extentsSince counts the extents that have changed since a snapshot.
func (l *ledger) extentsSince(old []stamp.Value) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := 0
	for at := 0; at < len(old); at += block.BlocksPerExtent {
		end := min(at+block.BlocksPerExtent, len(old))
		if !slices.Equal(old[at:end], l.acked[at:end]) {
			changed++
		}
	}
	return changed
}
