package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// resyncLook is how often the progress of a resync is looked at.
	resyncLook = time.Second
	// resyncPatience is how long one may make no progress at all before it is given up:
	// a replica cannot be reached, or its disk has no room.
	resyncPatience = 30 * time.Second
)

// leaver is the replica that the core was last asked to let go.
type leaver struct {
	mu        sync.Mutex
	old, next block.ReplicaID
}

// AskRetire asks for old to leave the in-sync set once next, which takes its place, is in
// it, and does not wait for that; zero IDs ask for nobody. Raft has the intent.
func (e *Engine) AskRetire(old, next block.ReplicaID) {
	e.leaver.mu.Lock()
	asked := e.leaver.old == old && e.leaver.next == next
	e.leaver.old, e.leaver.next = old, next
	e.leaver.mu.Unlock()
	if !asked {
		e.post(job{event: core.Event{Kind: core.EventRetire, Replica: old, Successor: next}})
	}
}

// Resync brings replicas of a volume that is published to nobody into its in-sync set,
// and lets those go whose place they take, by an engine without a frontend. It yields:
// whoever wants the volume gets it at once, and this ends with block.ErrUnavailable, as
// it does when nothing has moved for a while. What was compared until then need not be
// compared again. block.ErrInUse: it is staged here, and its engine does all that by
// itself.
func (h *Host) Resync(ctx context.Context, volume block.VolumeID, replicas []block.ReplicaID) error {
	err := h.resync(ctx, volume, replicas)
	if err != nil {
		return fmt.Errorf("resync volume %s: %w", volume, err)
	}
	return nil
}

func (h *Host) resync(ctx context.Context, volume block.VolumeID, replicas []block.ReplicaID) error {
	k, err := h.keeperOf(ctx, volume)
	switch {
	case err != nil:
		return err
	case k != nil:
		return fmt.Errorf("it is staged here: %w", block.ErrInUse)
	}
	return h.borrow(ctx, volume, true, func(ctx context.Context, e *Engine, _ *keeper) error {
		return h.awaitResync(ctx, e, volume, replicas)
	})
}

// resyncMark is what moves while a resync does.
type resyncMark struct {
	revision             block.Revision
	remaining, divergent int64
	copied               int64
}

// markOf leaves out what goes on without an end: a disk that is full is asked again.
func markOf(s *core.Status) resyncMark {
	m := resyncMark{revision: s.View.Revision, divergent: s.Divergent}
	for _, t := range s.Targets {
		m.copied += t.Copied
		if t.Waits == nil {
			m.remaining += t.Remaining
		}
	}
	return m
}

// awaitResync waits until the replicas are in sync, or gone, and nobody is to leave.
func (h *Host) awaitResync(ctx context.Context, e *Engine, volume block.VolumeID, replicas []block.ReplicaID) error {
	var last resyncMark
	moved := h.config.Clock.Now()
	for {
		changed := h.config.Truth.Changed()
		old, next := h.config.Truth.Retiring(volume)
		e.AskRetire(old, next)
		status, err := e.Status(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", block.ErrUnavailable, err)
		}
		absent := slices.DeleteFunc(slices.Clone(replicas), func(id block.ReplicaID) bool {
			m := status.View.Member(id)
			return m == nil || m.InSync
		})
		leaves := status.View.Member(old) != nil && status.View.Member(old).InSync
		if len(absent) == 0 && !leaves {
			return nil
		}
		now := h.config.Clock.Now()
		if mark := markOf(&status); mark != last {
			last, moved = mark, now
		}
		if time.Duration(now-moved) >= resyncPatience {
			return stalled(&status, absent, old)
		}
		look := make(chan struct{})
		stop := h.config.Clock.AfterFunc(resyncLook, func() { close(look) })
		select {
		case <-changed:
		case <-look:
		case <-e.Stopped():
			err = fmt.Errorf("%w: %s", block.ErrUnavailable, e.gone().Error())
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", block.ErrUnavailable, ctx.Err())
		}
		stop()
		if err != nil {
			return err
		}
	}
}

// stalled says why a resync makes no progress.
func stalled(s *core.Status, absent []block.ReplicaID, old block.ReplicaID) error {
	switch {
	case len(absent) == 0:
		return fmt.Errorf("replica %s cannot leave yet: too few others are in sync: %w", old, block.ErrUnavailable)
	case s.Frozen != nil:
		return fmt.Errorf("%w: %w", block.ErrUnavailable, s.Frozen)
	}
	for _, t := range s.Targets {
		if slices.Contains(absent, t.Replica) {
			return fmt.Errorf("replica %s makes no progress: %w", t.Replica, cmp.Or(t.Waits, block.ErrUnavailable))
		}
	}
	return fmt.Errorf("replica %s cannot be reached: %w", absent[0], block.ErrUnavailable)
}
