package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// Dialer makes links to replicas: by direct call to those of the own node, by
// internal/wire to the others.
type Dialer interface {
	Dial(ctx context.Context, member block.Member, recv wire.Receiver) (wire.Link, error)
}

// Proposer hands proposals to Raft. Whatever is not known to be committed or
// refused is Unknown.
type Proposer interface {
	Propose(ctx context.Context, p block.Proposal) (block.Verdict, block.View)
}

// Config is what an Engine needs.
type Config struct {
	Core     core.Config
	Dialer   Dialer
	Proposer Proposer
	Clock    clock.Clock
	Logger   *slog.Logger
	// Notice is told what the core reports; it may be nil and must not block.
	Notice func(core.Notice)
}

// Engine runs one core: one epoch of one volume.
type Engine struct {
	config Config
	log    *slog.Logger
	links  links
	table  table

	serving chan struct{} // closed when the core serves
	stopped chan struct{} // closed when the core has ended
	err     error         // why; read after stopped is closed
	notices notices

	ctx    context.Context // ends the goroutines; an owner's lifetime, not a call's
	cancel context.CancelFunc
	work   sync.WaitGroup

	core *core.Core // used only by the goroutine that combines
	dead bool       // the core ended; used likewise

	mu        sync.Mutex
	inbox     []job
	spare     []job
	combining bool

	timerMu  sync.Mutex
	timerAt  block.Instant
	timerOff func() bool
}

// job is one thing to do with the core: an event to step, or a look at it.
type job struct {
	event core.Event
	look  func(*core.Core)
}

// New starts an engine. Close must be called in the end.
func New(config Config) (*Engine, error) {
	c, err := core.New(config.Core, config.Clock.Now())
	if err != nil {
		return nil, fmt.Errorf("start engine of volume %s: %w", config.Core.View.Volume, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		config:  config,
		log:     config.Logger.With("volume", config.Core.View.Volume.String(), "epoch", uint64(config.Core.View.Epoch)),
		serving: make(chan struct{}),
		stopped: make(chan struct{}),
		ctx:     ctx,
		cancel:  cancel,
		core:    c,
		timerAt: math.MaxInt64,
	}
	e.links.init()
	e.table.init(config.Core.Limits.Requests)
	e.tick()
	return e, nil
}

// Serving is closed when the engine has begun to serve.
func (e *Engine) Serving() <-chan struct{} { return e.serving }

// Stopped is closed when the engine has ended; Err tells why.
func (e *Engine) Stopped() <-chan struct{} { return e.stopped }

// Err is why the engine stopped: nil after a clean detach.
func (e *Engine) Err() error {
	select {
	case <-e.stopped:
		return e.err
	default:
		return nil
	}
}

// Observe tells the engine the view that Raft shows, in case another engine was
// started.
func (e *Engine) Observe(view block.View) {
	e.post(job{event: core.Event{Kind: core.EventView, View: view}})
}

// Abort ends the engine at once, without waiting for it: every request fails with
// block.ErrDetached.
func (e *Engine) Abort() { e.post(job{event: core.Event{Kind: core.EventAbort}}) }

// Detach ends the engine cleanly: everything acknowledged is flushed and the
// intent logs are cleared. It waits until the engine has stopped; when ctx ends
// first the engine goes on detaching.
func (e *Engine) Detach(ctx context.Context) error {
	e.post(job{event: core.Event{Kind: core.EventDetach}})
	select {
	case <-e.stopped:
		return e.err
	case <-ctx.Done():
		return fmt.Errorf("detach engine of volume %s: %w", e.config.Core.View.Volume, ctx.Err())
	}
}

// Close ends the engine at once. Pending requests fail with block.ErrDetached;
// callers that want the kernel to keep them take the socket away first.
func (e *Engine) Close() {
	e.Abort()
	<-e.stopped
	e.cancel()
	e.stopTimer()
	e.links.closeAll()
	e.work.Wait()
}

// Status describes the engine at this moment.
func (e *Engine) Status(ctx context.Context) (core.Status, error) {
	result := make(chan core.Status, 1)
	e.post(job{look: func(c *core.Core) { result <- c.Status() }})
	select {
	case s := <-result:
		return s, nil
	case <-ctx.Done():
		return core.Status{}, fmt.Errorf("read status of volume %s: %w", e.config.Core.View.Volume, ctx.Err())
	}
}

func (e *Engine) tick() { e.post(job{event: core.Event{Kind: core.EventTick}}) }

// post hands a job to the core. If no one is stepping it, the caller does, until
// the inbox is empty.
func (e *Engine) post(j job) {
	e.mu.Lock()
	e.inbox = append(e.inbox, j)
	if e.combining {
		e.mu.Unlock()
		return
	}
	e.combining = true
	for len(e.inbox) > 0 {
		batch := e.inbox
		e.inbox = e.spare[:0]
		e.mu.Unlock()
		for i := range batch {
			e.step(&batch[i])
			batch[i] = job{}
		}
		e.armTimer()
		e.mu.Lock()
		e.spare = batch
	}
	e.combining = false
	e.mu.Unlock()
}

// step runs one job. A broken invariant ends this engine before it can touch
// data; the host starts another.
func (e *Engine) step(j *job) {
	defer func() {
		if r := recover(); r != nil {
			violation, ok := r.(invariant.Violation)
			if !ok {
				panic(r)
			}
			e.log.Error("engine stopped by a broken invariant", "err", violation)
			e.end(violation)
		}
	}()
	if j.look != nil {
		j.look(e.core)
		return
	}
	if e.dead {
		e.drop(&j.event)
		return
	}
	j.event.Now = e.config.Clock.Now()
	e.core.Step(j.event)
	for _, effect := range e.core.Effects() {
		e.perform(effect)
	}
}

// drop releases what an event that comes too late carries, and fails a request.
func (e *Engine) drop(ev *core.Event) {
	switch ev.Kind {
	case core.EventRequest:
		ev.Request.Buf.Release()
		e.complete(ev.Request.Tag, e.endError(), nil)
	case core.EventReply:
		ev.Reply.Buf.Release()
	}
}

func (e *Engine) endError() error {
	if e.err != nil {
		return e.err
	}
	return block.ErrDetached
}

func (e *Engine) perform(effect core.Effect) {
	switch effect.Kind {
	case core.EffectConnect:
		e.connect(effect.Replica, effect.Request)
	case core.EffectDisconnect:
		e.links.drop(effect.Replica, effect.Request.Session)
	case core.EffectSend:
		e.links.send(effect.Replica, effect.Request)
	case core.EffectPropose:
		e.propose(effect.Proposal)
	case core.EffectComplete:
		e.complete(effect.Tag, effect.Err, effect.Buf)
	case core.EffectServing:
		close(e.serving)
		e.log.Info("engine serves")
	case core.EffectStopped:
		e.end(effect.Err)
	case core.EffectNotice:
		e.report(effect.Notice)
	default:
		invariant.Assert(false, "unknown effect %d", effect.Kind)
	}
}

// end marks the engine stopped. Requests that a broken core left behind fail.
func (e *Engine) end(err error) {
	if e.dead {
		return
	}
	e.dead = true
	e.err = err
	close(e.stopped)
	for _, done := range e.table.takeAll() {
		done.Complete(e.endError(), nil)
	}
	if err != nil && !errors.Is(err, block.ErrDetached) {
		e.log.Warn("engine stopped", "err", err)
		return
	}
	e.log.Info("engine stopped", "err", err)
}

func (e *Engine) propose(p block.Proposal) {
	e.work.Go(func() {
		verdict, view := e.config.Proposer.Propose(e.ctx, p)
		e.post(job{event: core.Event{Kind: core.EventOutcome, Proposal: p, Verdict: verdict, View: view}})
	})
}

// armTimer makes sure that the core is stepped at its deadline. A timer that
// fires early costs one idle step, so it is moved only to the front.
func (e *Engine) armTimer() {
	if e.dead {
		return
	}
	at := e.core.Deadline()
	e.timerMu.Lock()
	defer e.timerMu.Unlock()
	if at >= e.timerAt {
		return
	}
	if e.timerOff != nil {
		e.timerOff()
	}
	e.timerAt = at
	wait := time.Duration(max(0, int64(at-e.config.Clock.Now())))
	e.timerOff = e.config.Clock.AfterFunc(wait, func() {
		e.timerMu.Lock()
		if e.timerAt == at {
			e.timerAt = math.MaxInt64
		}
		e.timerMu.Unlock()
		e.tick()
	})
}

func (e *Engine) stopTimer() {
	e.timerMu.Lock()
	defer e.timerMu.Unlock()
	if e.timerOff != nil {
		e.timerOff()
	}
}
