package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// giveBackTimeout bounds the end of a borrowed attachment in Raft. One that does not
// end in time is ended by Run.
const giveBackTimeout = 10 * time.Second

// borrowers are the engines without a frontend of a host.
type borrowers struct {
	mu sync.Mutex
	// turns hold a token while somebody works on a volume. waiting counts those who
	// hold or want it.
	turns   map[block.VolumeID]chan struct{}
	waiting map[block.VolumeID]int
	// starts are those that this host answers for: Run leaves them alone.
	starts map[block.StartID]*Engine
	// ending are attachments that Run is ending.
	ending map[block.AttachmentID]bool
	// yields end what works on a volume and lets go of it for anybody else.
	yields map[block.VolumeID]context.CancelFunc
}

func (b *borrowers) init() {
	b.turns = make(map[block.VolumeID]chan struct{})
	b.waiting = make(map[block.VolumeID]int)
	b.starts = make(map[block.StartID]*Engine)
	b.ending = make(map[block.AttachmentID]bool)
	b.yields = make(map[block.VolumeID]context.CancelFunc)
}

// take waits for the turn of a volume.
func (b *borrowers) take(ctx context.Context, volume block.VolumeID) (release func(), err error) {
	b.mu.Lock()
	turn := b.turns[volume]
	if turn == nil {
		turn = make(chan struct{}, 1)
		b.turns[volume] = turn
	}
	b.waiting[volume]++
	if yield := b.yields[volume]; yield != nil {
		yield()
	}
	b.mu.Unlock()
	leave := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.waiting[volume]--; b.waiting[volume] == 0 {
			delete(b.waiting, volume)
			delete(b.turns, volume)
		}
	}
	select {
	case turn <- struct{}{}:
		return func() { <-turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("others work on it: %w: %w", block.ErrUnavailable, ctx.Err())
	}
}

// mayYield lets whoever has the turn of a volume lose it to the next who wants it; that
// ends the returned context. kept takes it back.
func (b *borrowers) mayYield(ctx context.Context, volume block.VolumeID) (_ context.Context, kept func()) {
	ctx, cancel := context.WithCancel(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.yields[volume] = cancel
	if b.waiting[volume] > 1 {
		cancel()
	}
	return ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.yields, volume)
		cancel()
	}
}

// answerFor notes a start before Raft is asked for it, and its engine later.
func (b *borrowers) answerFor(start block.StartID, e *Engine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starts[start] = e
}

func (b *borrowers) forget(start block.StartID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.starts, start)
}

// engine is that of a volume, nil if none runs.
func (b *borrowers) engine(volume block.VolumeID) *Engine {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.starts {
		if e != nil && e.config.Core.View.Volume == volume {
			return e
		}
	}
	return nil
}

// engines are those that run.
func (b *borrowers) engines() []*Engine {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*Engine
	for _, e := range b.starts {
		if e != nil {
			all = append(all, e)
		}
	}
	return all
}

// strays are attachments that nobody here answers for: of an earlier daemon, or of a
// start whose answer was lost. They are marked as being ended.
func (b *borrowers) strays(borrowed []block.View) (strays []block.View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range borrowed {
		if _, ours := b.starts[v.Start]; !ours && !b.ending[v.Attachment] {
			b.ending[v.Attachment] = true
			strays = append(strays, v)
		}
	}
	return strays
}

func (b *borrowers) ended(attachment block.AttachmentID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.ending, attachment)
}

// Cut takes a snapshot that is reserved in Raft (see Engine.Cut): by the engine that
// serves the volume here, or by one without a frontend if it is published to nobody.
func (h *Host) Cut(ctx context.Context, volume block.VolumeID, snapshot block.Snapshot) error {
	return h.onEngine(ctx, volume, func(ctx context.Context, e *Engine, _ *keeper) error { return e.Cut(ctx, snapshot) })
}

// Grow makes a volume as large as Raft has it as an intent, in the same way. It waits
// for the device, if there is one.
func (h *Host) Grow(ctx context.Context, volume block.VolumeID, size int64) error {
	return h.onEngine(ctx, volume, func(ctx context.Context, e *Engine, k *keeper) error {
		if err := e.Grow(ctx, size); err != nil || k == nil {
			return err
		}
		return k.awaitSize(ctx, size)
	})
}

// onEngine does something with the engine of a volume, for which k is nil if it was
// borrowed.
func (h *Host) onEngine(ctx context.Context, volume block.VolumeID, do func(ctx context.Context, e *Engine, k *keeper) error) error {
	ctx, cancel := early(ctx)
	defer cancel()
	k, err := h.keeperOf(ctx, volume)
	switch {
	case err != nil:
		return err
	case k == nil:
		return h.borrow(ctx, volume, false, do)
	}
	e, err := k.serving()
	if err != nil {
		return fmt.Errorf("engine of volume %s: %w", volume, err)
	}
	return do(ctx, e, k)
}

// serving is the engine of the volume, if there is one that serves.
func (k *keeper) serving() (*Engine, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.engine == nil {
		return nil, fmt.Errorf("%w: %w", block.ErrUnavailable, k.waiting)
	}
	return k.engine, nil
}

// borrow does something to a volume that is published to nobody, at an epoch of its own.
// What yields is ended as soon as anybody else wants the volume, here or by publishing it.
func (h *Host) borrow(ctx context.Context, volume block.VolumeID, yields bool, do func(ctx context.Context, e *Engine, k *keeper) error) error {
	release, err := h.borrowers.take(ctx, volume)
	if err != nil {
		return fmt.Errorf("borrow volume %s: %w", volume, err)
	}
	defer release()
	if yields {
		var kept func()
		ctx, kept = h.borrowers.mayYield(ctx, volume)
		defer kept()
	}
	id, err := block.NewID(rand.Reader)
	if err != nil {
		return fmt.Errorf("borrow volume %s: %w", volume, err)
	}
	start := block.StartID{ID: id}
	h.borrowers.answerFor(start, nil)
	// What is left of it then is a stray.
	defer func() {
		h.borrowers.forget(start)
		select {
		case h.left <- struct{}{}:
		default:
		}
	}()
	started, err := h.config.Truth.BorrowVolume(ctx, volume, start, yields)
	if err != nil {
		// Whatever it is, nothing was begun, and may be once Raft shows something else.
		return fmt.Errorf("borrow volume %s: %w: %s", volume, block.ErrUnavailable, err.Error())
	}
	defer h.giveBack(ctx, volume, started.View.Attachment)
	e, err := h.newEngine(started)
	if err != nil {
		return err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(own) }) // why it ended is told by Err
	defer running.Wait()
	defer cancel()
	h.borrowers.answerFor(start, e)
	if h.isClosed() {
		return errClosing
	}
	select {
	case <-e.Serving():
	case <-e.Stopped():
		return fmt.Errorf("borrow volume %s: %w: %s", volume, block.ErrUnavailable, e.gone().Error())
	case <-ctx.Done():
		return fmt.Errorf("borrow volume %s: its engine does not serve yet: %w: %w", volume, block.ErrUnavailable, ctx.Err())
	}
	if err := do(ctx, e, nil); err != nil {
		return err
	}
	// In order is better: the next engine finds empty logs. But it is done either way.
	leaving, cancelLeaving := context.WithTimeout(own, leaveTimeout)
	defer cancelLeaving()
	if err := e.Detach(leaving); err != nil {
		h.config.Logger.Warn("a borrowed volume is left in disorder", "volume", volume.String(), "err", err)
	}
	return nil
}

// giveBack ends a borrowed attachment. ctx may be over.
func (h *Host) giveBack(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	if err := h.config.Truth.EndAttachment(ctx, volume, attachment); err != nil {
		h.config.Logger.Warn("a borrowed volume is not given back yet", "volume", volume.String(), "err", err)
	}
}

// endStray ends an attachment that nobody answers for, however long that takes.
func (h *Host) endStray(ctx context.Context, view block.View) {
	defer h.borrowers.ended(view.Attachment)
	for pause := retryPauseMin; ; pause = min(2*pause, retryPauseMax) {
		attempt, cancel := context.WithTimeout(ctx, giveBackTimeout)
		err := h.config.Truth.EndAttachment(attempt, view.Volume, view.Attachment)
		cancel()
		if err == nil {
			h.config.Logger.Warn("a volume that was left borrowed is given back", "volume", view.Volume.String())
			return
		}
		if !h.wait(ctx, pause, nil) {
			return
		}
	}
}

// observeBorrowed ends engines whose attachment is over.
func (h *Host) observeBorrowed() {
	for _, e := range h.borrowers.engines() {
		started := &e.config.Core.View
		view, ok := h.config.Truth.View(started.Volume)
		e.AskRetire(h.config.Truth.Retiring(started.Volume))
		switch {
		case !ok || view.Revision <= started.Revision:
		case view.Attachment != started.Attachment:
			e.Abort()
		default:
			e.Observe(view)
		}
	}
}

// newEngine makes the engine of a start.
func (h *Host) newEngine(started Started) (*Engine, error) {
	config := &h.config
	return New(Config{
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
		Metrics:  config.Metrics,

		Reverting: started.Reverting,
	})
}
