package engine

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// Scrubs is what a host needs of the cluster to verify volumes. Nothing of it is on
// the way of a request.
type Scrubs interface {
	// ScrubPlan says what is to be done about a volume whose engine has served for a
	// while. It is asked again when Truth.Changed says that something has changed.
	ScrubPlan(volume block.VolumeID, served time.Duration) ScrubPlan
	// ScrubDetached is the volume that is due first, in so long, of those that nobody
	// has attached and that are this node's to verify: of those that were asked for, or
	// of the others. None is the zero ID. This node runs for so long; skip leaves
	// volumes out. It is asked again when Truth.Changed says that something has changed.
	ScrubDetached(up time.Duration, asked bool, skip func(block.VolumeID) bool) (volume block.VolumeID, wait time.Duration)
	// RecordScrub keeps a report. block.ErrStaleEpoch: another engine has taken over.
	RecordScrub(ctx context.Context, report ScrubReport) error
}

// ScrubPlan is what the cluster wants.
type ScrubPlan struct {
	// Never: no walk is wanted. Else Wait is how long it is until one is, 0 if one is
	// wanted now.
	Never bool
	Wait  time.Duration
	// Asked: somebody waits for it. Others go one after the other on a node.
	Asked bool
	// Walk names the walk. It goes on after From, which was verified on Covered, and
	// has found what Found says.
	Walk    int64
	From    int64
	Covered []block.ReplicaID
	Found   Found
	// Rate bounds it, in bytes of the volume a second; 0 does not.
	Rate int64
}

// ScrubReport is how far a walk is, or what was found without one.
type ScrubReport struct {
	Volume block.VolumeID
	Epoch  block.Epoch
	// Walk is 0 if there is none to tell of.
	Walk     int64
	Scrubbed core.Scrubbed
	Found    Found
	Findings []Finding
}

const (
	// recordParts and recordInterval are the steps in which the progress of a walk is
	// recorded: so many for the whole volume, or when so much time has passed. A walk
	// that is taken up again repeats no more than one.
	recordParts    = 20
	recordInterval = 10 * time.Minute
	// recordPause is the least time between two records but for the beginning and the
	// end of a walk.
	recordPause   = 10 * time.Second
	recordTimeout = 10 * time.Second
	// recordRetry is how long after a record that failed another one is tried.
	recordRetry = time.Second
	// restAfter is how long after a walk no other one begins.
	restAfter = time.Second
)

// scrubber verifies the volume of one engine when that is due, and records what comes
// of it and what else the engine finds. It does not care whether the engine has a
// device: one without a frontend is scrubbed alike.
type scrubber struct {
	host   *Host
	engine *Engine
	volume block.VolumeID
	epoch  block.Epoch
	size   int64
	since  block.Instant

	// walk is the one under way, 0 if there is none; rate is how fast it goes.
	walk, rate int64
	// turn: it has this node's turn, which scheduled walks take one after the other.
	turn bool
	// once: it ends with the first walk, or if none is wanted.
	once bool
	// recorded is where the walk was when it was recorded last; -1 before that.
	recorded   int64
	recordedAt block.Instant
	retryAt    block.Instant
	// restUntil is when the end of a walk is known to whoever makes plans.
	restUntil block.Instant
}

// scrub runs beside an engine, until that has ended.
func (h *Host) scrub(ctx context.Context, e *Engine, started block.View) {
	if h.config.Scrubs == nil {
		return
	}
	select {
	case <-e.Serving():
	case <-e.Stopped():
		return
	case <-ctx.Done():
		return
	}
	h.scrubberOf(e, started).run(ctx)
}

func (h *Host) scrubberOf(e *Engine, started block.View) *scrubber {
	now := h.config.Clock.Now()
	return &scrubber{host: h, engine: e, volume: started.Volume, epoch: started.Epoch, size: started.Size, since: now,
		recordedAt: now - block.Instant(recordPause)}
}

// run goes on until the engine has ended, or the first walk if that is enough.
func (s *scrubber) run(ctx context.Context) {
	defer s.yield()
	config := &s.host.config
	for {
		changed := config.Truth.Changed()
		pause, mine := s.look(ctx)
		if s.once && s.walk == 0 {
			return
		}
		timer := make(chan struct{})
		stop := config.Clock.AfterFunc(pause, func() { close(timer) })
		select {
		case <-changed:
		case <-s.engine.watched.wake:
		case <-timer:
		case mine <- struct{}{}:
			s.turn = true
		case <-s.engine.Stopped():
			stop()
			return
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}

// look does what is due. It returns how long nothing is, unless something happens, and
// where to wait for this node's turn if a walk waits for that.
func (s *scrubber) look(ctx context.Context) (pause time.Duration, turn chan<- struct{}) {
	now := s.host.config.Clock.Now()
	plan := s.host.config.Scrubs.ScrubPlan(s.volume, time.Duration(now-s.since))
	if rest := time.Duration(s.restUntil - now); !plan.Never && s.walk == 0 {
		plan.Wait = max(plan.Wait, rest)
	}
	switch wanted := !plan.Never && plan.Wait <= 0; {
	case !wanted && s.walk != 0:
		s.host.config.Logger.Info("scrub called off", "volume", s.volume.String())
		s.engine.scrub(nil)
		s.walk = 0
		s.yield()
	case wanted && s.walk == 0 && !plan.Asked && !s.turn:
		turn = s.host.scrubbing
	case wanted && s.walk == 0:
		s.begin(&plan)
	case wanted && s.rate != plan.Rate:
		s.hurry(plan.Rate)
	}
	pause = s.record(ctx, now)
	if s.walk == 0 && !plan.Never && plan.Wait > 0 {
		pause = min(pause, plan.Wait)
	}
	return pause, turn
}

// begin begins a walk or goes on with it.
func (s *scrubber) begin(plan *ScrubPlan) {
	s.walk, s.rate, s.recorded = plan.Walk, plan.Rate, -1
	if plan.From > 0 {
		s.recorded = plan.From
	}
	s.engine.watched.begin(plan.From, plan.Covered, plan.Found)
	s.engine.scrub(&core.Scrub{From: plan.From, Rate: plan.Rate, Covered: plan.Covered})
	s.host.config.Logger.Info("scrub begins", "volume", s.volume.String(), "offset", plan.From)
}

// hurry changes the rate of the walk under way.
func (s *scrubber) hurry(rate int64) {
	at, _ := s.engine.watched.look()
	if at.Done {
		return
	}
	s.rate = rate
	s.engine.scrub(&core.Scrub{From: at.Offset, Rate: rate, Covered: at.Covered})
}

// yield lets another volume have its turn.
func (s *scrubber) yield() {
	if s.turn {
		s.turn = false
		<-s.host.scrubbing
	}
}

// record keeps what is worth it, and returns how long nothing more is.
func (s *scrubber) record(ctx context.Context, now block.Instant) time.Duration {
	at, found := s.engine.watched.look()
	report := ScrubReport{Volume: s.volume, Epoch: s.epoch}
	begins, ends := s.walk != 0 && s.recorded < 0, s.walk != 0 && at.Done
	far := s.walk != 0 && (at.Offset-s.recorded >= s.size/recordParts || now-s.recordedAt >= block.Instant(recordInterval))
	wait := max(s.retryAt, s.recordedAt+block.Instant(recordPause))
	if begins || ends {
		wait = s.retryAt
	}
	if now < wait {
		return time.Duration(wait - now)
	}
	if begins || ends || far {
		report.Walk, report.Scrubbed, report.Found = s.walk, at, found
	}
	if report.Findings = s.engine.watched.take(); report.Walk == 0 && len(report.Findings) == 0 {
		return recordInterval
	}
	asking, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	err := s.host.config.Scrubs.RecordScrub(asking, report)
	now = s.host.config.Clock.Now()
	switch {
	case err == nil:
		s.recordedAt = now
	case errors.Is(err, block.ErrStaleEpoch), errors.Is(err, block.ErrNotFound):
		// Whoever serves the volume now goes on.
		return recordInterval
	default:
		s.host.config.Logger.Warn("progress of a scrub cannot be recorded", "volume", s.volume.String(), "err", err)
		s.engine.watched.putBack(report.Findings)
		s.retryAt = now + block.Instant(recordRetry)
		return recordRetry
	}
	if report.Walk == 0 {
		return recordPause
	}
	s.recorded = at.Offset
	if ends {
		s.host.config.Logger.Info("scrub ends", "volume", s.volume.String(), "replicas", len(at.Covered),
			"repaired", found.Repaired, "lost", found.Lost, "differing", found.Differing)
		s.walk, s.restUntil = 0, now+block.Instant(restAfter)
		s.yield()
		return restAfter
	}
	return recordPause
}
