package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// startTimeout bounds the call that raises the epoch.
	startTimeout = 30 * time.Second
	// leaveTimeout bounds how long a daemon that stops waits for requests under
	// way. Those that it leaves unanswered, as in a volume whose I/O waits, are
	// sent again to the next engine.
	leaveTimeout = 5 * time.Second
	// servingGrace is how long unstaging waits for an engine that does not serve
	// yet.
	servingGrace = 15 * time.Second
	// steadyAfter is how long a volume must have been served for the next restart
	// of its engine to be without a longer pause.
	steadyAfter = time.Minute
	// answerTime of what a caller gives is kept for an answer that says why it was
	// not enough.
	answerTime = 500 * time.Millisecond
)

// keeper keeps one staged volume served: it starts an engine, gives it the
// device, and starts another when that engine stops, until the volume is
// unstaged, the attachment ends, or the host closes and leaves the device.
type keeper struct {
	host   *Host
	volume block.VolumeID
	log    *slog.Logger

	ready chan struct{} // closed when the device is there
	gone  chan struct{} // closed when the keeper has ended
	wake  chan struct{} // holds a token after askEnd
	shown shown         // what users of the device see

	// These are used only by the goroutine that runs the keeper.
	start block.StartID // of the start that is not answered yet
	adopt bool          // the device exists

	mu         sync.Mutex
	attachment block.AttachmentID
	path       string
	engine     *Engine
	started    block.View
	revoked    bool
	isReady    bool
	taken      bool // the device was taken away: nothing but the end may follow
	ending     *ending
	err        error
	waiting    error
}

func newKeeper(h *Host, volume block.VolumeID, attachment block.AttachmentID) *keeper {
	k := &keeper{
		host:       h,
		volume:     volume,
		log:        h.config.Logger.With("volume", volume.String()),
		attachment: attachment,
		adopt:      !attachment.IsZero(),
		ready:      make(chan struct{}),
		gone:       make(chan struct{}),
		wake:       make(chan struct{}, 1),
		waiting:    fmt.Errorf("its engine does not serve yet: %w", block.ErrUnavailable),
	}
	k.shown.init()
	return k
}

// run serves engine after engine and returns why it serves no more.
func (k *keeper) run(ctx context.Context) error {
	pause := retryPauseMin
	for {
		began := k.host.config.Clock.Now()
		over, err := k.serve(ctx)
		switch {
		case ctx.Err() != nil:
			if err != nil {
				k.log.Warn("volume is left", "err", err)
			}
			return errClosing
		case over:
			return err
		case err != nil:
			k.log.Warn("volume is not served, trying again", "err", err)
		}
		k.setWaiting(err)
		if time.Duration(k.host.config.Clock.Now()-began) > steadyAfter {
			pause = retryPauseMin
		}
		if !k.host.wait(ctx, pause, k.asked()) {
			return errClosing
		}
		pause = min(2*pause, retryPauseMax)
	}
}

// serve runs one engine to its end. over tells that no other is to follow.
func (k *keeper) serve(ctx context.Context) (over bool, err error) {
	if k.mustEnd() {
		return k.endWithout(ctx)
	}
	e, err := k.raise(ctx)
	if err != nil {
		return k.notRaised(ctx, err)
	}
	// It outlives ctx: before it ends, the device is taken off it, so that no
	// request of the kernel fails because a daemon stops.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(own) }) // why it ended is told by Err
	running.Go(func() { k.host.scrub(own, e, k.started) })
	over, err = k.attend(ctx, e)
	k.setEngine(nil)
	cancel()
	running.Wait()
	return over, err
}

// raise raises the epoch and makes an engine of it.
func (k *keeper) raise(ctx context.Context) (*Engine, error) {
	// The same start is asked for until it is answered: had it been committed
	// unheard, a second one would find an attachment that nobody knows.
	if k.start.IsZero() {
		id, err := block.NewID(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("start engine: %w", err)
		}
		k.start = block.StartID{ID: id}
	}
	config := &k.host.config
	asking, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	started, err := config.Truth.StartEngine(asking, k.volume, k.attachment, k.start)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	k.start = block.StartID{}
	e, err := k.host.newEngine(started)
	k.mu.Lock()
	k.attachment = started.View.Attachment
	k.started = started.View
	k.engine = e
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	// What Raft showed while there was no engine to tell.
	if view, ok := config.Truth.View(k.volume); ok {
		k.observe(view)
	}
	return e, nil
}

// notRaised decides what follows a start that failed.
func (k *keeper) notRaised(ctx context.Context, err error) (over bool, _ error) {
	detached := errors.Is(err, block.ErrDetached) || errors.Is(err, block.ErrNotFound)
	switch {
	case !k.attachment.IsZero():
		// There may be a device, and users of it: only the end of the attachment
		// ends this.
		if !detached {
			return false, err
		}
		k.removeStale(ctx)
		return true, err
	case errors.Is(err, block.ErrInUse) && k.host.ownsUnseen(k.volume):
		// A start of an earlier daemon of this node landed after this one had looked.
		k.log.Warn("an attachment without a device ends", "err", err)
		return false, k.host.endLeftover(ctx, k.volume, k)
	case detached, errors.Is(err, block.ErrInvalid), errors.Is(err, block.ErrInUse), errors.Is(err, block.ErrForeign):
		// Trying again cannot help; who staged it is told.
		return true, err
	default:
		return false, err
	}
}

// attend gives a running engine its device and waits for what ends its service.
func (k *keeper) attend(ctx context.Context, e *Engine) (over bool, err error) {
	asked := false
	select {
	case <-e.Serving():
	case <-e.Stopped():
		return k.afterStop(ctx, e, nil)
	case <-k.asked():
		asked = true
		if !k.adopt || !servesSoon(ctx, e) {
			return k.endWithout(ctx)
		}
	case <-ctx.Done():
		return false, nil
	}
	device, err := k.open(ctx, e)
	switch {
	case errors.Is(err, block.ErrNotFound) && k.adopt:
		// The device that Raft shows here no longer exists, as after a reboot. What
		// was mounted on it is gone, so its attachment ends.
		k.log.Warn("device is gone, its attachment ends", "err", err)
		k.takeAway()
		return k.end(ctx, e, nil)
	case err != nil:
		return false, err
	}
	if asked {
		if over, err := k.end(ctx, e, device); over {
			return true, err
		}
	}
	return k.watch(ctx, e, device)
}

// servesSoon waits for an engine whose device is to be unstaged: in order is
// better, but not at any price.
func servesSoon(ctx context.Context, e *Engine) bool {
	ctx, cancel := context.WithTimeout(ctx, servingGrace)
	defer cancel()
	select {
	case <-e.Serving():
		return true
	case <-e.Stopped():
		return false
	case <-ctx.Done():
		return false
	}
}

// open gives the engine its device.
func (k *keeper) open(ctx context.Context, e *Engine) (frontend.Device, error) {
	size, _ := e.Size()
	spec := frontend.Spec{
		Volume:     k.volume,
		Attachment: k.started.Attachment,
		Size:       size,
		Backend:    backend{e},
	}
	open := k.host.config.Devices.Attach
	if k.adopt {
		open = k.host.config.Devices.Adopt
	}
	device, err := open(ctx, spec)
	if err != nil {
		// One that was made by an attempt that failed later is adopted.
		k.adopt = k.adopt || errors.Is(err, block.ErrExists)
		return nil, fmt.Errorf("open device: %w", err)
	}
	k.adopt = true
	k.shown.set(size, nil)
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
func (k *keeper) watch(ctx context.Context, e *Engine, device frontend.Device) (over bool, err error) {
	fitting, cancel := context.WithCancel(ctx)
	var fits sync.WaitGroup
	fits.Go(func() { k.fit(fitting, e, device) })
	defer fits.Wait()
	defer cancel()
	for {
		select {
		case <-e.Stopped():
			return k.afterStop(ctx, e, device)
		case <-ctx.Done():
			return false, k.leave(ctx, device)
		case <-k.asked():
			if over, err := k.end(ctx, e, device); over {
				return true, err
			}
		}
	}
}

// leave stops serving a device and keeps it for the next engine. The kernel's
// unanswered requests are sent again to that one.
func (k *keeper) leave(ctx context.Context, device frontend.Device) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := device.Close(ctx); err != nil {
		return fmt.Errorf("leave device %s: %w", device.Path(), err)
	}
	return nil
}

// afterStop decides what follows an engine that ended by itself.
func (k *keeper) afterStop(ctx context.Context, e *Engine, device frontend.Device) (over bool, err error) {
	err = e.Err()
	if device != nil {
		err = errors.Join(err, k.leave(ctx, device))
	}
	k.mu.Lock()
	k.revoked = k.revoked || errors.Is(e.Err(), block.ErrDetached) && ctx.Err() == nil
	over = k.revoked
	k.mu.Unlock()
	if over {
		k.removeStale(ctx)
	}
	return over, err
}

// observe ends the engine when Raft shows that its attachment is over, and
// shows it newer views.
func (k *keeper) observe(view block.View) {
	k.mu.Lock()
	serving := k.engine
	k.mu.Unlock()
	if serving == nil {
		return
	}
	// An intent once begun is finished by whoever serves the volume (rule 27), and so is
	// a replacement.
	serving.AskGrowth(k.host.config.Truth.Growing(k.volume))
	serving.AskRetire(k.host.config.Truth.Retiring(k.volume))
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

func (k *keeper) setEngine(e *Engine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.engine = e
}

func (k *keeper) setWaiting(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		err = block.ErrUnavailable
	}
	k.waiting = err
}

// device is what staging returns.
func (k *keeper) device() (string, block.AttachmentID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending != nil || k.revoked || k.taken {
		return "", block.AttachmentID{}, fmt.Errorf("its device is being removed: %w", block.ErrUnavailable)
	}
	return k.path, k.attachment, nil
}

// finish notes why the keeper has ended.
func (k *keeper) finish(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// whyGone is never nil: a volume that was unstaged can be staged again.
func (k *keeper) whyGone() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		return fmt.Errorf("it was unstaged meanwhile: %w", block.ErrUnavailable)
	}
	return k.err
}

// waitsFor says why the volume is not ready yet, and what would help.
func (k *keeper) waitsFor() error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime/2)
	defer cancel()
	k.mu.Lock()
	e, waiting := k.engine, k.waiting
	k.mu.Unlock()
	if e == nil {
		return waiting
	}
	status, err := e.Status(ctx)
	if err != nil || status.Frozen == nil {
		return errors.Join(waiting, err)
	}
	return fmt.Errorf("%w; what was acknowledged is on these nodes, of which one must come back: %s",
		status.Frozen, strings.Join(inSyncNodes(status.View), ", "))
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
