package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// extent is how large a volume is, and is to be.
type extent struct {
	mu sync.Mutex
	// size is committed, asked the most that the core was asked for.
	size  int64
	asked int64
	// changed is closed when size rises.
	changed chan struct{}
}

func (x *extent) init(size int64) { x.size, x.changed = size, make(chan struct{}) }

func (x *extent) now() (size int64, changed <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.size, x.changed
}

// ask reports whether the core is still to be asked for a size.
func (x *extent) ask(size int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if size <= max(x.size, x.asked) {
		return false
	}
	x.asked = size
	return true
}

func (x *extent) set(size int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if size > x.size {
		x.size = size
		close(x.changed)
		x.changed = make(chan struct{})
	}
}

// Size is the committed size of the volume, which every member has, in bytes. The
// channel is closed when it has grown.
func (e *Engine) Size() (int64, <-chan struct{}) { return e.extent.now() }

// AskGrowth asks for a size that Raft has as an intent (rule 27), and does not wait
// for it. The engine tries until it is done.
func (e *Engine) AskGrowth(size int64) {
	if e.extent.ask(size) {
		e.post(job{event: core.Event{Kind: core.EventGrow, Size: size}})
	}
}

// Grow is AskGrowth and waits until Raft has committed the size. When ctx ends first
// the engine goes on.
func (e *Engine) Grow(ctx context.Context, size int64) error {
	e.AskGrowth(size)
	for {
		has, changed := e.Size()
		if has >= size {
			return nil
		}
		var err error
		select {
		case <-changed:
			continue
		case <-e.stopped:
			err = e.gone()
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", block.ErrUnavailable, ctx.Err())
		}
		return fmt.Errorf("grow volume %s to %d bytes: %w", e.config.Core.View.Volume, size, err)
	}
}
