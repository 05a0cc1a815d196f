package engine

import (
	"context"
	"sync"
)

// chores are what the core wants done that takes time: making a link, asking
// Raft. Whoever steps the core only leaves them here; Run gives each a goroutine.
// There is at most one for each replica and one proposal, and those whose link
// was given up meanwhile.
type chores struct {
	// ready holds a token while there is something to take.
	ready chan struct{}

	mu   sync.Mutex
	list []func(context.Context)
}

func (c *chores) init() { c.ready = make(chan struct{}, 1) }

func (c *chores) add(chore func(context.Context)) {
	c.mu.Lock()
	c.list = append(c.list, chore)
	c.mu.Unlock()
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (c *chores) take() []func(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}
