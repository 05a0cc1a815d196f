package cluster

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
)

// turns lets one at a time do something under a name.
type turns struct {
	mu    sync.Mutex
	names map[string]*turn
}

// turn is that of one name; users hold it or wait for it.
type turn struct {
	held  chan struct{}
	users int
}

// take waits for the turn of a name.
func (t *turns) take(ctx context.Context, name string) (release func(), err error) {
	t.mu.Lock()
	if t.names == nil {
		t.names = map[string]*turn{}
	}
	own := t.names[name]
	if own == nil {
		own = &turn{held: make(chan struct{}, 1)}
		t.names[name] = own
	}
	own.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.names, name)
		}
	}
	select {
	case own.held <- struct{}{}:
		return func() { <-own.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("the same is being done for another request: %w: %w", block.ErrUnavailable, ctx.Err())
	}
}
