package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// shown is the size that users of a device see.
type shown struct {
	mu   sync.Mutex
	size int64
	// err is why the last attempt to make it larger failed.
	err error
	// changed is closed when size or err changes.
	changed chan struct{}
}

func (s *shown) init() { s.changed = make(chan struct{}) }

func (s *shown) set(size int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.err = size, err
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shown) now() (size int64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size, s.changed, s.err
}

// fit makes the device as large as the volume, each time that the volume has grown,
// until ctx ends. It goes on beside the keeper: a device may wait for requests under
// way before it grows, which must be served meanwhile.
func (k *keeper) fit(ctx context.Context, e *Engine, device frontend.Device) {
	pause := retryPauseMin
	for {
		size, changed := e.Size()
		has, _, _ := k.shown.now()
		var err error
		if has < size {
			if err = device.Resize(ctx, size); err == nil {
				k.log.Info("device has grown", "device", device.Path(), "size", size)
				has, pause = size, retryPauseMin
			}
			k.shown.set(has, err)
		}
		if err == nil {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			continue
		}
		if ctx.Err() == nil {
			k.log.Error("device does not grow with its volume, trying again", "device", device.Path(), "size", size, "err", err)
		}
		if !k.host.wait(ctx, pause, nil) {
			return
		}
		pause = min(2*pause, retryPauseMax)
	}
}

// awaitSize waits until users of the device see a size.
func (k *keeper) awaitSize(ctx context.Context, size int64) error {
	for {
		has, changed, err := k.shown.now()
		if has >= size {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-k.gone:
			err = k.whyGone()
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
		}
		return fmt.Errorf("volume %s has %d bytes, its device %d: %w: %w", k.volume, size, has, block.ErrUnavailable, err)
	}
}
