package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// unstageTimeout bounds one attempt to remove a device, to detach its engine and
// to end its attachment.
const unstageTimeout = 60 * time.Second

// ending is one attempt to unstage, whoever asked for it. Its success is the end
// of the keeper.
type ending struct {
	failed chan struct{} // closed when it failed
	err    error         // why; read after failed is closed
}

// askEnd asks the keeper to unstage; all who ask meanwhile get the same attempt.
func (k *keeper) askEnd() *ending {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending == nil {
		k.ending = &ending{failed: make(chan struct{})}
		k.wake <- struct{}{}
	}
	return k.ending
}

// asked is readable when unstaging was asked for and not tried yet.
func (k *keeper) asked() <-chan struct{} { return k.wake }

// takeAway notes that the device is gone.
func (k *keeper) takeAway() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.taken = true
}

// mustEnd reports that no further engine is to serve the volume.
func (k *keeper) mustEnd() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.taken || k.ending != nil
}

// endFailed tells those who asked; they may ask again.
func (k *keeper) endFailed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending == nil {
		return
	}
	select {
	case <-k.wake: // asked for while the keeper was at something else
	default:
	}
	k.ending.err = err
	close(k.ending.failed)
	k.ending = nil
}

// end unstages in order: device, engine, attachment. An attempt that failed may
// be repeated from the start.
func (k *keeper) end(ctx context.Context, e *Engine, device frontend.Device) (over bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, unstageTimeout)
	defer cancel()
	if device != nil {
		if err := device.Detach(ctx); err != nil {
			err = fmt.Errorf("remove device %s: %w", device.Path(), err)
			k.endFailed(err)
			return false, err
		}
		k.takeAway()
	}
	if err := e.Detach(ctx); err != nil {
		k.endFailed(err)
		return false, err
	}
	return k.endAttachment(ctx)
}

// endWithout unstages a volume that no engine serves. Nothing that was
// acknowledged is lost by that: it is on every member, and named in their logs.
func (k *keeper) endWithout(ctx context.Context) (over bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, unstageTimeout)
	defer cancel()
	if over, err := k.endAttachment(bounded); !over {
		return false, err
	}
	k.removeStale(ctx)
	return true, nil
}

func (k *keeper) endAttachment(ctx context.Context) (over bool, err error) {
	if k.attachment.IsZero() {
		return true, nil
	}
	if err := k.host.config.Truth.EndAttachment(ctx, k.volume, k.attachment); err != nil {
		err = fmt.Errorf("end attachment %s: %w", k.attachment, err)
		k.endFailed(err)
		return false, err
	}
	return true, nil
}

// removeStale removes the device of an attachment that has ended, in use or not:
// its I/O must fail rather than reach a newer attachment (rule 2). It tries until
// that is done, or until ctx ends; then the next daemon does it.
func (k *keeper) removeStale(ctx context.Context) {
	id := frontend.Identity{Volume: k.volume, Attachment: k.attachment}
	if id.Attachment.IsZero() {
		return
	}
	for pause := retryPauseMin; ; pause = min(2*pause, retryPauseMax) {
		attempt, cancel := context.WithTimeout(ctx, unstageTimeout)
		err := k.host.config.Devices.Remove(attempt, id)
		cancel()
		if err == nil || errors.Is(err, block.ErrNotFound) {
			return
		}
		k.log.Error("device of an ended attachment cannot be removed", "attachment", id.Attachment.String(), "err", err)
		if !k.host.wait(ctx, pause, nil) {
			return
		}
	}
}
