package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// revertRetry is how long a revert waits, with its engine, after it found bytes of the
// snapshot that no replica has intact: one that is away may bring them.
const revertRetry = 10 * time.Second

// RevertProgress is how far a revert is, in bytes of what may differ; Total is 0 until
// it is known. Trouble is why it does not go on.
type RevertProgress struct {
	Done, Total int64
	Trouble     error
}

// revertProgress is the progress of the revert that an engine runs, if there is one.
type revertProgress struct {
	mu      sync.Mutex
	running bool
	at      RevertProgress
}

func (p *revertProgress) set(at RevertProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.at = true, at
}

func (p *revertProgress) now() (at RevertProgress, running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at, p.running
}

// Reverting tells how far the revert of a volume is, if one runs here.
func (h *Host) Reverting(volume block.VolumeID) (RevertProgress, bool) {
	if e := h.borrowers.engine(volume); e != nil {
		return e.revert.now()
	}
	return RevertProgress{}, false
}

// Revert gives a volume that is published to nobody the content of a snapshot, as Raft
// has it as an intent (rule 26), by an engine without a frontend, and tells Raft.
// block.ErrConflict: there is no such intent. Cut short, it may be asked for again, here
// or elsewhere: what is done is not done twice.
func (h *Host) Revert(ctx context.Context, volume block.VolumeID, snapshot block.SnapshotID) error {
	err := h.onEngine(ctx, volume, func(ctx context.Context, e *Engine, k *keeper) error {
		view := &e.config.Core.View
		switch {
		case k != nil:
			return fmt.Errorf("it is still staged here: %w", block.ErrUnavailable)
		case e.config.Reverting != snapshot:
			// This request is late. Since Raft gave the epoch an intent only ends by
			// it, but before that clients may have come and gone.
			return fmt.Errorf("nobody wants that any more: %w", block.ErrConflict)
		}
		if err := h.revert(ctx, e, snapshot); err != nil {
			return err
		}
		return h.config.Truth.EndRevert(ctx, volume, snapshot, view.Epoch)
	})
	if err != nil {
		return fmt.Errorf("revert volume %s to snapshot %s: %w", volume, snapshot, err)
	}
	return nil
}

// revert tries until it is done, or the engine or ctx ends.
func (h *Host) revert(ctx context.Context, e *Engine, snapshot block.SnapshotID) error {
	for {
		err := e.revertTo(ctx, snapshot)
		lost := errors.Is(err, block.ErrIO) || errors.Is(err, block.ErrInvalid)
		if !lost || ctx.Err() != nil {
			return err
		}
		err = fmt.Errorf("no in-sync replica has all of snapshot %s intact; going back to what was kept is possible, and deleting the volume: %w", snapshot, err)
		e.log.Error("a revert does not go on", "snapshot", snapshot.String(), "err", err)
		at, _ := e.revert.now()
		at.Trouble = err
		e.revert.set(at)
		if !h.wait(ctx, revertRetry, e.Stopped()) {
			return err
		}
	}
}

// ended is the end of one request of a revert.
type ended struct {
	tag uint64
	err error
	buf *block.Buffer
}

// completion hands the end of a request over. The channel has room for it.
type completion struct {
	tag  uint64
	ends chan<- ended
}

// CompleteIn implements Completer.
func (c completion) CompleteIn(_ *turn.Turn, err error, buf *block.Buffer) {
	c.ends <- ended{tag: c.tag, err: err, buf: buf}
}

// revertTo runs one core.Revert. When ctx ends so does the engine, for what is under way
// may wait for a replica.
func (e *Engine) revertTo(ctx context.Context, snapshot block.SnapshotID) error {
	r, err := core.NewRevert(&e.config.Core.View, snapshot)
	if err != nil {
		return err
	}
	ends := make(chan ended, core.RevertRequests)
	over := ctx.Done()
	for {
		for q, more := r.Next(); more; q, more = r.Next() {
			e.Submit(q, completion{tag: q.Tag, ends: ends}, nil)
		}
		done, total := r.Progress()
		e.revert.set(RevertProgress{Done: done, Total: total})
		if over, err := r.Ended(); over {
			return reverted(err)
		}
		select {
		case end := <-ends:
			r.Done(end.tag, end.err, end.buf)
		case <-over:
			over = nil
			r.Stop(ctx.Err())
			e.Abort()
		}
	}
}

// reverted is the end of a revert for who asked: that the engine ended says nothing but
// that another one is needed.
func reverted(err error) error {
	if err == nil || errors.Is(err, block.ErrIO) || errors.Is(err, block.ErrInvalid) {
		return err
	}
	return fmt.Errorf("it was cut short: %w: %s", block.ErrUnavailable, err.Error())
}
