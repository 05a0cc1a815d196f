package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// detachedPause is the least time between two looks for a volume that nobody has
	// attached and that is due, detachedLook the most.
	detachedPause = time.Second
	detachedLook  = time.Hour
	// detachedRetry is how long a volume is left alone that could not be verified, or
	// whose walk was given up for somebody who wanted it.
	detachedRetry = time.Minute
)

// scrubDetached verifies volumes that nobody has attached and that are this node's to
// verify, one after the other: those that were asked for, or those that are due.
func (h *Host) scrubDetached(ctx context.Context, asked bool) {
	if h.config.Scrubs == nil || h.known(ctx) != nil {
		return
	}
	began := h.config.Clock.Now()
	failed := map[block.VolumeID]block.Instant{}
	for {
		changed := h.config.Truth.Changed()
		now := h.config.Clock.Now()
		for id, at := range failed {
			if now-at >= block.Instant(detachedRetry) {
				delete(failed, id)
			}
		}
		skip := func(id block.VolumeID) bool { _, is := failed[id]; return is }
		volume, wait := h.config.Scrubs.ScrubDetached(time.Duration(now-began), asked, skip)
		if !volume.IsZero() && wait <= 0 {
			if err := h.scrubBorrowed(ctx, volume, !asked); err != nil {
				h.config.Logger.Info("a volume that is not in use is not verified yet", "volume", volume.String(), "err", err)
				failed[volume] = h.config.Clock.Now()
			}
			continue
		}
		if wait <= 0 || wait > detachedLook {
			wait = detachedLook
		}
		if len(failed) > 0 {
			wait = min(wait, detachedRetry)
		}
		if !h.wait(ctx, wait, changed) || !h.wait(ctx, detachedPause, nil) {
			return
		}
	}
}

// scrubBorrowed verifies a volume with an engine without a frontend, which lets go of it
// as soon as anybody wants the volume; then the walk goes on later, where it was
// recorded last. One that takes turns waits for its own.
func (h *Host) scrubBorrowed(ctx context.Context, volume block.VolumeID, turns bool) error {
	turn := false
	if turns {
		select {
		case h.scrubbing <- struct{}{}:
			turn = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		if turn {
			<-h.scrubbing
		}
	}()
	return h.borrow(ctx, volume, true, func(ctx context.Context, e *Engine, _ *keeper) error {
		s := h.scrubberOf(e, e.config.Core.View)
		s.turn, turn, s.once = turn, false, true
		s.run(ctx)
		if s.walk != 0 {
			return fmt.Errorf("scrub of volume %s is given up for now: %w", volume, block.ErrUnavailable)
		}
		return nil
	})
}
