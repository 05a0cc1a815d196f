package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// cuts lets one cut run at a time, which is what the core does.
type cuts struct {
	// turn holds a token while no cut is under way.
	turn chan struct{}

	mu sync.Mutex
	// snapshot is the one under way, and done hears of its end.
	snapshot block.SnapshotID
	done     chan error
}

func (c *cuts) init() {
	c.turn = make(chan struct{}, 1)
	c.turn <- struct{}{}
}

// begin is called by who has taken the turn.
func (c *cuts) begin(id block.SnapshotID) <-chan error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot, c.done = id, make(chan error, 1)
	return c.done
}

// end tells who waits and passes the turn on.
func (c *cuts) end(id block.SnapshotID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil || c.snapshot != id {
		return
	}
	c.done <- err
	c.done = nil
	c.turn <- struct{}{}
}

// Cut takes a snapshot that is reserved in Raft and waits until Raft has committed it;
// one that is committed already is taken. One at a time, others wait for their turn.
// block.ErrUnavailable: it was not begun, and may be asked for again. block.ErrConflict:
// it was begun. Only Raft tells whether it is committed; if not, another ID has to be
// asked for, because some replica may hold what was given up under this one. When ctx
// ends first the engine goes on.
func (e *Engine) Cut(ctx context.Context, snapshot block.Snapshot) error {
	err := e.cut(ctx, snapshot)
	if err != nil {
		return fmt.Errorf("take snapshot %s of volume %s: %w", snapshot.ID, e.config.Core.View.Volume, err)
	}
	return nil
}

func (e *Engine) cut(ctx context.Context, snapshot block.Snapshot) error {
	select {
	case <-e.cuts.turn:
	case <-e.stopped:
		return fmt.Errorf("%w: %w", block.ErrUnavailable, e.gone())
	case <-ctx.Done():
		return fmt.Errorf("others are being taken: %w: %w", block.ErrUnavailable, ctx.Err())
	}
	done := e.cuts.begin(snapshot.ID)
	e.post(job{event: core.Event{Kind: core.EventCut, Snapshot: snapshot}})
	var err error
	select {
	case err = <-done:
	case <-e.stopped:
		err = e.gone()
		// Its last words may have been of this cut.
		select {
		case err = <-done:
		default:
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		// What it wraps would say something else to who asks by errors.Is.
		err = fmt.Errorf("%w: %s", block.ErrConflict, err.Error())
	}
	return err
}

// gone is why an engine that has stopped does nothing more.
func (e *Engine) gone() error {
	if err := e.Err(); err != nil {
		return fmt.Errorf("the engine has stopped: %w: %w", block.ErrDetached, err)
	}
	return fmt.Errorf("the engine has stopped: %w", block.ErrDetached)
}
