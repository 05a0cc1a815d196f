package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// behindBytes is what a replica lacks when its resync under load begins.
	behindBytes = 1024 * mebibyte
	// quietFor is how long latency is measured without a resync, before it and after.
	quietFor = 8 * time.Second
)

// foreground measures what a resync takes from clients, and they from it.
func foreground(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newFilledBed(ctx, largeVolume)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	latency := []row{
		{Name: "foreground-1", What: "p99 of 4 KiB writes during a resync, depth 1", Limit: 2, Unit: "x"},
		{Name: "foreground-16", What: "p99 of 4 KiB writes during a resync, depth 16", Limit: 2, Unit: "x"},
	}
	still := row{Name: "resync-goes-on", What: "longest time without progress of a resync under load", Limit: 1000, Unit: "ms"}
	for range r.samples() {
		for i, depth := range []int{1, 16} {
			s, err := b.resyncUnderLoad(ctx, depth)
			if err != nil {
				return nil, err
			}
			latency[i].Samples = append(latency[i].Samples, s.during.Seconds()/s.without.Seconds())
			latency[i].Notes = append(latency[i].Notes, s.String())
			still.Samples = append(still.Samples, float64(s.still.Milliseconds()))
			r.say("depth %d: %s", depth, s)
		}
	}
	return append(latency, still), r.verify(ctx, b)
}

// strain is one sample of a resync under load.
type strain struct {
	// without and during are the 99th percentile of latency.
	without, during time.Duration
	writes          int
	took, still     time.Duration
}

func (s strain) String() string {
	return fmt.Sprintf("p99 %d us without, %d us during; %.1f s, %d writes a second, %.0f MiB/s compared or copied",
		s.without.Microseconds(), s.during.Microseconds(), s.took.Seconds(),
		int(float64(s.writes)/s.took.Seconds()), behindBytes/mebibyte/s.took.Seconds())
}

// resyncUnderLoad takes one sample.
func (b *bed) resyncUnderLoad(ctx context.Context, depth int) (s strain, err error) {
	if err := b.inSync(ctx); err != nil {
		return s, err
	}
	victim, err := b.victim(ctx, false)
	if err != nil {
		return s, err
	}
	load := startLoad(ctx, shape{area: block.Span{Length: hotBytes}, depth: depth}, b.device, b.ledger, b.meter)
	defer func() { err = errors.Join(err, load.stop()) }()
	quiet, err := b.latencies(ctx, quietFor)
	if err != nil {
		return s, err
	}
	if err := load.stop(); err != nil {
		return s, err
	}
	if err := b.node(victim).Kill(); err != nil {
		return s, err
	}
	if err := fill(ctx, b.device, b.ledger, pieces(block.Span{Offset: b.size - behindBytes, Length: behindBytes}, mebibyte)); err != nil {
		return s, err
	}
	load = startLoad(ctx, load.shape, b.device, b.ledger, b.meter)
	if err := b.node(victim).Start(ctx); err != nil {
		return s, err
	}
	during, err := b.watchResync(ctx, &s)
	if err != nil {
		return s, err
	}
	after, err := b.latencies(ctx, quietFor)
	if err != nil {
		return s, err
	}
	s.without, s.during, s.writes = p99(append(quiet, after...)), p99(during), len(during)
	return s, nil
}

// latencies records for a while.
func (b *bed) latencies(ctx context.Context, d time.Duration) ([]time.Duration, error) {
	b.meter.record()
	sleep(ctx, d)
	all := b.meter.recorded()
	if len(all) == 0 {
		return nil, fmt.Errorf("no write was acknowledged in %v: %w", d, errStopped)
	}
	return all, ctx.Err()
}

// watchResync records from the beginning of a resync to its end, and notes for how
// long at most it made no progress.
func (b *bed) watchResync(ctx context.Context, s *strain) ([]time.Duration, error) {
	err := b.until(ctx, "a resync to begin", func(ctx context.Context) error {
		v, err := b.look(ctx)
		if err == nil && len(v.GetEngine().GetResyncs()) == 0 {
			err = errors.New("there is none")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	b.meter.record()
	began := time.Now()
	moved, state := began, ""
	err = b.until(ctx, "the resync to end", func(ctx context.Context) error {
		v, err := b.look(ctx)
		if err != nil {
			return err
		}
		now := fmt.Sprint(v.GetEngine().GetResyncs())
		s.still = max(s.still, time.Since(moved))
		if now != state {
			moved, state = time.Now(), now
		}
		for _, r := range v.GetReplicas() {
			if !r.GetInSync() {
				return errors.New(now)
			}
		}
		return nil
	})
	s.took = time.Since(began)
	return b.meter.recorded(), err
}

func p99(all []time.Duration) time.Duration {
	values := make([]float64, 0, len(all))
	for _, d := range all {
		values = append(values, float64(d))
	}
	return time.Duration(percentile(values, 99))
}
