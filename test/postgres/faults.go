package main

import (
	"context"
	"fmt"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// fault is trouble under load: brought about, left alone for hold, mended. The
// volume is attached to the first node; the replicas of the others suffer first.
type fault struct {
	hold time.Duration
	// away is the node whose replica must be out of the in-sync set before that is
	// over; the fault would not have been one.
	away int
	// waits: the volume cannot go on before the fault is mended. Otherwise the
	// database must have gone on before that.
	waits bool
	// prepare, if there is one, comes before the load.
	prepare, inject, mend func(*test, context.Context) error
}

// syncLimit bounds how long replicas may take to be in sync again. It is for what never
// ends: in a guest on a busy machine everything takes ten times as long, and how long
// it may take is for `make reliability` to say.
const syncLimit = 6 * time.Minute

var (
	replicaKilled = fault{
		hold:   5 * time.Second,
		away:   starved,
		inject: func(t *test, _ context.Context) error { return t.nodes()[starved].Kill() },
		mend:   func(t *test, ctx context.Context) error { return t.nodes()[starved].Start(ctx) },
	}
	replicaStopped = fault{
		hold:   10 * time.Second,
		away:   other,
		inject: func(t *test, _ context.Context) error { return t.nodes()[other].Freeze() },
		mend:   func(t *test, _ context.Context) error { return t.nodes()[other].Thaw() },
	}
	replicaStarved = fault{
		hold: 8 * time.Second, away: starved,
		prepare: (*test).prepareStarving,
		inject:  (*test).starve,
		mend:    (*test).feed,
	}
	// Two of three daemons are the majority of the Raft group: what is not answered
	// by then waits until one is back.
	twoAtOnce = fault{
		hold: 5 * time.Second, waits: true,
		inject: func(t *test, _ context.Context) error {
			if err := t.nodes()[other].Freeze(); err != nil {
				return err
			}
			return t.nodes()[starved].Kill()
		},
		mend: func(t *test, ctx context.Context) error {
			if err := t.nodes()[other].Thaw(); err != nil {
				return err
			}
			return t.nodes()[starved].Start(ctx)
		},
	}
	engineKilled = fault{
		waits:  true,
		inject: func(t *test, _ context.Context) error { return t.nodes()[attached].Kill() },
		mend:   func(t *test, ctx context.Context) error { return t.nodes()[attached].Start(ctx) },
	}
)

// step makes a step of the test out of a fault.
func (f fault) step() func(*test, context.Context) (string, error) {
	return func(t *test, ctx context.Context) (string, error) { return t.suffer(ctx, f) }
}

// suffer brings a fault about under load, mends it, and waits until all is well.
func (t *test) suffer(ctx context.Context, f fault) (string, error) {
	if f.prepare != nil {
		if err := f.prepare(t, ctx); err != nil {
			return "", err
		}
	}
	r, err := t.load(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	s := t.shoot(ctx, r)
	defer s.giveUp()
	from := time.Now()
	if err := f.inject(t, ctx); err != nil {
		return "", err
	}
	if t.spoilt {
		if err := t.nodes()[attached].Freeze(); err != nil {
			return "", err
		}
	}
	rest(ctx, f.hold)
	if !f.waits && !t.spoilt {
		if err := t.isAway(ctx, f.away); err != nil {
			return "", err
		}
	}
	mended := time.Now()
	if err := t.nodes()[attached].Thaw(); err != nil {
		return "", err
	}
	if err := f.mend(t, ctx); err != nil {
		return "", err
	}
	if err := t.inSync(ctx); err != nil {
		return "", err
	}
	synced := time.Now()
	rest(ctx, time.Until(began.Add(t.options.lead+f.hold)))
	if err := r.finish(ctx); err != nil {
		return "", err
	}
	summary := fmt.Sprintf("%d transactions, %.0f/s; longest pause %d ms; in sync %.1f s after the end of the fault",
		len(r.commits), r.tps(), r.pause(from, synced).Milliseconds(), synced.Sub(mended).Seconds())
	if since := mended.Add(-f.hold / 2); !f.waits && !r.commitsIn(since, mended) {
		return "", fmt.Errorf("no transaction committed in the %.1f s before the end of the fault; %s: %w",
			mended.Sub(since).Seconds(), summary, errStandstill)
	}
	return t.withShots(ctx, summary, s)
}

// withShots adds to a step's summary what became of its snapshots.
func (t *test) withShots(ctx context.Context, summary string, s *shooter) (string, error) {
	taken, err := s.end()
	if err != nil {
		return "", fmt.Errorf("%s: %w", summary, err)
	}
	report, err := t.checkShots(ctx, taken)
	if err != nil {
		return "", fmt.Errorf("%s: %w", summary, err)
	}
	return summary + "\n" + report, nil
}

// plantStandstill lets the next fault stop the engine as well: without that the
// volume cannot go on.
func (t *test) plantStandstill(context.Context) error {
	t.spoilt = true
	return nil
}

// isAway reports whether the replica of a node is out of the in-sync set.
func (t *test) isAway(ctx context.Context, node int) error {
	v, err := t.nodes()[attached].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: t.volume})
	if err != nil {
		return err
	}
	for _, r := range v.GetReplicas() {
		if r.GetNodeId() == t.nodes()[node].ID() && !r.GetInSync() {
			return nil
		}
	}
	return fmt.Errorf("the replica on %s is in sync all the time: %w", t.nodes()[node].Name, errStandstill)
}

// inSync waits until all replicas are.
func (t *test) inSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	if err := t.cluster.WaitAlive(ctx, t.nodes()...); err != nil {
		return err
	}
	return t.nodes()[attached].WaitInSync(ctx, t.volume)
}

// crash kills the database itself under load, all its processes at once.
func (t *test) crash(ctx context.Context) (string, error) {
	const lead = 3 * time.Second
	r, err := t.load(ctx)
	if err != nil {
		return "", err
	}
	s := t.shoot(ctx, r)
	defer s.giveUp()
	rest(ctx, lead)
	r.cut = true
	if err := t.database.Kill(ctx); err != nil {
		return "", err
	}
	if err := r.finish(ctx); err != nil {
		return "", err
	}
	began := time.Now()
	if err := t.database.Start(ctx); err != nil {
		return "", err
	}
	summary := fmt.Sprintf("%d transactions, %.0f/s; recovered from its log in %.1f s", len(r.commits), r.tps(), time.Since(began).Seconds())
	return t.withShots(ctx, summary, s)
}

// quiet is a run without a fault, for comparison. What the volume is then will be
// planted later.
func (t *test) quiet(ctx context.Context) (string, error) {
	r, err := t.load(ctx)
	if err != nil {
		return "", err
	}
	s := t.shoot(ctx, r)
	defer s.giveUp()
	from := time.Now()
	rest(ctx, t.options.lead)
	if err := r.finish(ctx); err != nil {
		return "", err
	}
	summary := fmt.Sprintf("%d transactions, %.0f/s; longest pause %d ms", len(r.commits), r.tps(), r.pause(from, time.Now()).Milliseconds())
	if summary, err = t.withShots(ctx, summary, s); err != nil {
		return "", err
	}
	return summary, t.putAside(ctx)
}

// rest waits for d or for the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// nodes are those of the cluster; the volume is attached to the first.
func (t *test) nodes() []*harness.Node { return t.cluster.Nodes }
