package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// proposeTimeout bounds one proposal. One that is not answered by then counts as
// unknown, and the core settles it by another on the same revision (rule 6).
const proposeTimeout = 10 * time.Second

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
	// Metrics may be nil.
	Metrics *Metrics
	// Reverting is that of Started.
	Reverting block.SnapshotID
}

// Validate reports what is missing; core.New checks the rest.
func (c *Config) Validate() error {
	if c.Dialer == nil || c.Proposer == nil || c.Clock == nil || c.Logger == nil {
		return fmt.Errorf("engine without dialer, proposer, clock or logger: %w", block.ErrInvalid)
	}
	return nil
}

// Engine runs one core: one epoch of one volume.
type Engine struct {
	config Config
	log    *slog.Logger
	links  links
	table  table
	chores chores
	timer  timer
	cuts   cuts
	extent extent
	leaver leaver
	// watched is what was verified and found.
	watched watched
	// revert is how far a revert is.
	revert revertProgress

	serving chan struct{} // closed when the core serves
	stopped chan struct{} // closed when the core has ended and every request is answered
	err     error         // why; read after stopped is closed

	// These are used only by the goroutine that combines.
	core  *core.Core
	now   block.Instant   // of the event being stepped
	began []block.Instant // when the core was given the request of a tag
	dead  bool            // the core has ended
	turn  *turn.Turn      // of who combines
	own   turn.Turn       // for who has none

	mu        sync.Mutex
	inbox     []job
	spare     []job
	combining bool
}

// job is one thing to do with the core: an event to step, or a look at it.
type job struct {
	event core.Event
	look  func(*core.Core)
}

// New makes an engine. It does nothing until Run is called, and Run must be
// called; what is submitted before waits.
func New(config Config) (*Engine, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("start engine of volume %s: %w", config.Core.View.Volume, err)
	}
	now := config.Clock.Now()
	c, err := core.New(config.Core, now)
	if err != nil {
		return nil, fmt.Errorf("start engine of volume %s: %w", config.Core.View.Volume, err)
	}
	if config.Metrics == nil {
		config.Metrics = newMetrics()
	}
	e := &Engine{
		config:  config,
		log:     config.Logger.With("volume", config.Core.View.Volume.String(), "epoch", uint64(config.Core.View.Epoch)),
		serving: make(chan struct{}),
		stopped: make(chan struct{}),
		core:    c,
		now:     now,
		began:   make([]block.Instant, config.Core.Limits.Requests),
	}
	e.links.init()
	e.table.init(config.Core.Limits.Requests)
	e.chores.init()
	e.cuts.init()
	e.extent.init(config.Core.View.Size)
	e.watched.init()
	e.timer.init(config.Clock, e.tick)
	config.Metrics.starts.Inc()
	return e, nil
}

// Run runs the engine until it has ended, by Detach, by itself, or because ctx
// ended: then pending requests fail with block.ErrDetached, so an owner who wants
// the kernel to keep them takes the socket away first. It joins everything that
// the engine has started and returns why the engine ended: nil after a clean
// detach. It is called once.
func (e *Engine) Run(ctx context.Context) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	e.tick()
	var work sync.WaitGroup
	abort := ctx.Done()
	for running := true; running; {
		select {
		case <-abort:
			abort = nil
			e.Abort()
		case <-e.chores.ready:
			for _, chore := range e.chores.take() {
				work.Go(func() { chore(own) })
			}
		case <-e.stopped:
			running = false
		}
	}
	cancel()
	e.timer.stop()
	work.Wait()
	e.links.closeAll()
	return e.err
}

// Serving is closed when the engine has begun to serve.
func (e *Engine) Serving() <-chan struct{} { return e.serving }

// Stopped is closed when the engine has ended and every request was answered;
// Err tells why it ended.
func (e *Engine) Stopped() <-chan struct{} { return e.stopped }

// Err is why the engine stopped: nil after a clean detach, and before the end.
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

// post hands a job to the core. The inbox holds at most one event for each request,
// each call to a replica and each chore, all of which are bounded.
func (e *Engine) post(j job) { e.postIn(nil, j) }

// postIn is post in a turn of the caller, at whose end the core is stepped.
func (e *Engine) postIn(t *turn.Turn, j job) {
	e.mu.Lock()
	e.inbox = append(e.inbox, j)
	e.mu.Unlock()
	t.Defer(e)
}

// EndTurn implements turn.Ender: unless somebody is at it, it steps the core until the
// inbox is empty. What each batch of events has to be sent goes together.
func (e *Engine) EndTurn(t *turn.Turn) {
	e.mu.Lock()
	if e.combining {
		e.mu.Unlock()
		return
	}
	e.combining = true
	if e.turn = t; t == nil {
		e.turn = &e.own
	}
	for len(e.inbox) > 0 {
		batch := e.inbox
		e.inbox = e.spare[:0]
		e.mu.Unlock()
		for i := range batch {
			e.step(&batch[i])
			batch[i] = job{}
		}
		if !e.dead {
			e.timer.arm(e.core.Deadline())
		}
		e.own.End()
		e.mu.Lock()
		e.spare = batch
	}
	e.combining = false
	e.mu.Unlock()
}

// step runs one job. A broken invariant ends this engine before it can touch
// data; the host starts another, and the kernel asks that one again: the requests
// are not to blame.
func (e *Engine) step(j *job) {
	defer func() {
		if r := recover(); r != nil {
			violation, ok := r.(invariant.Violation)
			if !ok {
				panic(r)
			}
			e.log.Error("engine stopped by a broken invariant", "err", violation)
			e.end(fmt.Errorf("broken invariant: %w: %w", violation, block.ErrUnavailable))
		}
	}()
	if j.look != nil {
		j.look(e.core)
		return
	}
	if e.dead {
		// Who asked has been told by end.
		j.event.Request.Buf.Release()
		j.event.Reply.Buf.Release()
		return
	}
	e.now = e.config.Clock.Now()
	j.event.Now = e.now
	if j.event.Kind == core.EventRequest {
		e.began[j.event.Request.Tag] = e.now
	}
	e.core.Step(j.event)
	for _, effect := range e.core.Effects() {
		e.perform(effect)
	}
}

func (e *Engine) perform(effect core.Effect) {
	switch effect.Kind {
	case core.EffectConnect:
		e.connect(effect.Replica, effect.Request)
	case core.EffectDisconnect:
		e.links.drop(effect.Replica, effect.Request.Session)
	case core.EffectSend:
		e.links.send(effect.Replica, effect.Request, e.turn)
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
	case core.EffectCut:
		e.cuts.end(effect.Snapshot, effect.Err)
	case core.EffectResized:
		e.extent.set(effect.Size)
	case core.EffectScrubbed:
		e.config.Metrics.scrubbed(effect.Scrubbed)
		e.watched.progress(effect.Scrubbed)
	default:
		invariant.Assert(false, "unknown effect %d", effect.Kind)
	}
}

// end marks the engine stopped. What the core never saw, or a broken core left
// behind, fails with the reason of the end.
func (e *Engine) end(err error) {
	if e.dead {
		return
	}
	e.dead = true
	e.err = err
	reason := err
	if reason == nil {
		reason = block.ErrDetached
	}
	for _, done := range e.table.close(reason) {
		done.CompleteIn(e.turn, reason, nil)
	}
	if err != nil && !errors.Is(err, block.ErrDetached) {
		e.log.Warn("engine stopped", "err", err)
	} else {
		e.log.Info("engine stopped", "err", err)
	}
	close(e.stopped)
}

func (e *Engine) propose(p block.Proposal) {
	e.chores.add(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
		verdict, view := e.config.Proposer.Propose(ctx, p)
		e.post(job{event: core.Event{Kind: core.EventOutcome, Proposal: p, Verdict: verdict, View: view}})
	})
}
