package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// errDeviceLost: the device that Raft shows here no longer exists, as after a
// reboot. What was mounted on it is gone, so its attachment ends.
var errDeviceLost = errors.New("device is gone")

// unstageTimeout bounds the removal of a device and the end of its engine.
const unstageTimeout = 60 * time.Second

// keeper keeps one staged volume served: it starts an engine, gives it the
// device, and starts another when that engine stops, until the volume is
// unstaged, the attachment ends, or the host closes and leaves the device.
type keeper struct {
	host   *Host
	volume block.VolumeID
	log    *slog.Logger

	ready   chan struct{} // closed when the device is there
	gone    chan struct{} // closed when the keeper has ended
	unstage chan struct{} // asks for the end
	refused chan error    // why it could not end

	mu         sync.Mutex
	attachment block.AttachmentID
	path       string
	engine     *Engine
	started    block.View
	revoked    bool
	isReady    bool
	err        error
	waiting    error
}

func newKeeper(h *Host, volume block.VolumeID, attachment block.AttachmentID) *keeper {
	return &keeper{
		host:       h,
		volume:     volume,
		log:        h.config.Logger.With("volume", volume.String()),
		attachment: attachment,
		ready:      make(chan struct{}),
		gone:       make(chan struct{}),
		unstage:    make(chan struct{}, 1),
		refused:    make(chan error),
		waiting:    block.ErrUnavailable,
	}
}

// run serves engine after engine.
func (k *keeper) run(ctx context.Context) {
	adopt := !k.attachment.IsZero()
	for ctx.Err() == nil {
		again, err := k.serve(ctx, adopt)
		if err != nil {
			k.log.Warn("volume is not served", "err", err, "again", again)
		}
		if !again {
			k.mu.Lock()
			k.err = err
			k.mu.Unlock()
			return
		}
		k.mu.Lock()
		adopt = adopt || k.isReady
		k.waiting = err
		k.mu.Unlock()
		k.host.wait(ctx, restartDelay)
	}
}

// serve runs one engine to its end. again tells whether another one is due.
func (k *keeper) serve(ctx context.Context, adopt bool) (again bool, err error) {
	e, err := k.start(ctx)
	if err != nil {
		if errors.Is(err, block.ErrDetached) && adopt {
			return false, k.removeStale(ctx)
		}
		return !permanent(err), err
	}
	defer k.forget(e)
	defer e.Close()
	select {
	case <-e.Serving():
	case <-e.Stopped():
		return k.afterStop(ctx, e, nil)
	case <-k.unstage:
		return k.abandon(ctx, e)
	case <-ctx.Done():
		return false, nil
	}
	device, err := k.open(ctx, e, adopt)
	if errors.Is(err, errDeviceLost) {
		return k.abandon(ctx, e)
	}
	if err != nil {
		return true, err
	}
	return k.watch(ctx, e, device)
}

// start raises the epoch and runs an engine on it.
func (k *keeper) start(ctx context.Context) (*Engine, error) {
	id, err := newStartID()
	if err != nil {
		return nil, err
	}
	config := &k.host.config
	started, err := config.Truth.StartEngine(ctx, k.volume, k.attachment, id)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	e, err := New(Config{
		Core: core.Config{
			Node:      config.Node,
			Cluster:   config.Cluster,
			View:      started.View,
			MinInSync: started.MinInSync,
			Timing:    config.Timing,
			Limits:    config.Limits,
		},
		Dialer:   config.Dialer,
		Proposer: config.Truth,
		Clock:    config.Clock,
		Logger:   config.Logger,
		Notice:   config.Metrics.notice,
	})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.attachment = started.View.Attachment
	k.started = started.View
	k.engine = e
	return e, nil
}

func (k *keeper) forget(e *Engine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.engine == e {
		k.engine = nil
	}
}

// open gives the engine its device.
func (k *keeper) open(ctx context.Context, e *Engine, adopt bool) (frontend.Device, error) {
	spec := frontend.Spec{
		Volume:     k.volume,
		Attachment: k.started.Attachment,
		Size:       k.started.Size,
		Backend:    backend{e},
	}
	var device frontend.Device
	var err error
	if adopt {
		device, err = k.host.config.Devices.Adopt(ctx, spec)
		if errors.Is(err, block.ErrNotFound) {
			return nil, errDeviceLost
		}
	} else {
		device, err = k.host.config.Devices.Attach(ctx, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.path = device.Path()
	if !k.isReady {
		k.isReady = true
		close(k.ready)
	}
	return device, nil
}

// watch waits for what ends this engine's service.
func (k *keeper) watch(ctx context.Context, e *Engine, device frontend.Device) (again bool, err error) {
	for {
		select {
		case <-e.Stopped():
			return k.afterStop(ctx, e, device)
		case <-ctx.Done():
			return false, k.leave(device)
		case <-k.unstage:
			err := k.end(ctx, e, device)
			if err == nil {
				return false, nil
			}
			select {
			case k.refused <- err:
			case <-ctx.Done():
			}
		}
	}
}

// leave stops serving a device and keeps it for the next engine. The kernel's
// unanswered requests are sent again to that one.
func (k *keeper) leave(device frontend.Device) error {
	ctx, cancel := context.WithTimeout(context.Background(), unstageTimeout)
	defer cancel()
	if err := device.Close(ctx); err != nil {
		return fmt.Errorf("leave device %s: %w", device.Path(), err)
	}
	return nil
}

// end unstages: device, engine, attachment, in this order.
func (k *keeper) end(ctx context.Context, e *Engine, device frontend.Device) error {
	ctx, cancel := context.WithTimeout(ctx, unstageTimeout)
	defer cancel()
	if err := device.Detach(ctx); err != nil {
		return fmt.Errorf("remove device %s: %w", device.Path(), err)
	}
	if err := e.Detach(ctx); err != nil {
		return err
	}
	return k.host.config.Truth.EndAttachment(ctx, k.volume, k.started.Attachment)
}

// abandon ends an attachment that has no device.
func (k *keeper) abandon(ctx context.Context, e *Engine) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, unstageTimeout)
	defer cancel()
	select {
	case <-e.Serving():
		if err := e.Detach(ctx); err != nil {
			return true, err
		}
	default:
	}
	if err := k.host.config.Truth.EndAttachment(ctx, k.volume, k.started.Attachment); err != nil {
		return true, err
	}
	return false, nil
}

// afterStop decides what follows an engine that ended by itself.
func (k *keeper) afterStop(ctx context.Context, e *Engine, device frontend.Device) (again bool, err error) {
	k.mu.Lock()
	over := k.revoked
	k.mu.Unlock()
	err = e.Err()
	if !over && !errors.Is(err, block.ErrDetached) {
		if device != nil {
			return true, errors.Join(err, k.leave(device))
		}
		return true, err
	}
	if device != nil {
		err = errors.Join(err, k.leave(device))
	}
	return false, errors.Join(err, k.removeStale(ctx))
}

// removeStale removes the device of an attachment that has ended, in use or not:
// its I/O must fail rather than reach a newer attachment (rule 2).
func (k *keeper) removeStale(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, unstageTimeout)
	defer cancel()
	id := frontend.Identity{Volume: k.volume, Attachment: k.attachment}
	if err := k.host.config.Devices.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove device of ended attachment: %w", err)
	}
	return nil
}

// observe ends the engine when Raft shows that its attachment is over, and
// shows it newer views.
func (k *keeper) observe(view block.View) {
	k.mu.Lock()
	e, started := k.engine, k.started
	if e == nil || view.Revision <= started.Revision {
		k.mu.Unlock()
		return
	}
	over := view.Attachment != started.Attachment
	k.revoked = k.revoked || over
	k.mu.Unlock()
	if over {
		k.log.Info("attachment is over")
		e.Abort()
		return
	}
	e.Observe(view)
}

func (k *keeper) device() (string, block.AttachmentID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.path, k.attachment
}

func (k *keeper) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// waitsFor says why the volume is not ready yet.
func (k *keeper) waitsFor() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.waiting
}

func (k *keeper) status(ctx context.Context) (core.Status, string, error) {
	k.mu.Lock()
	e, path, started := k.engine, k.path, k.started
	waiting := k.waiting
	k.mu.Unlock()
	if e == nil {
		return core.Status{View: started, Frozen: waiting}, path, nil
	}
	status, err := e.Status(ctx)
	return status, path, err
}
