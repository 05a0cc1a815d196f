package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// smallVolume is that of the lines about pauses, hotBytes what they write to.
	smallVolume = 256 * mebibyte
	hotBytes    = 64 * mebibyte
	// flowing is how many writes show that they flow again.
	flowing = 50
	// sayEach is how often a person is told of samples.
	sayEach = 10
)

// pauseShape keeps writes coming without using all of the CPU.
func pauseShape() shape {
	return shape{area: block.Span{Length: hotBytes}, depth: 4, pace: 2 * time.Millisecond, reads: 8, flushes: 32}
}

// trouble is what happens to a node, and how it ends.
type trouble struct {
	inject, mend func(ctx context.Context, b *bed, node int) error
}

func dies() trouble {
	return trouble{
		inject: func(_ context.Context, b *bed, node int) error { return b.node(node).Kill() },
		mend:   func(ctx context.Context, b *bed, node int) error { return b.node(node).Start(ctx) },
	}
}

func vanishes() trouble {
	return trouble{
		inject: func(ctx context.Context, b *bed, node int) error { return b.isolate(ctx, node) },
		mend:   func(ctx context.Context, b *bed, _ int) error { return b.network.Heal(ctx) },
	}
}

func replicaDies(ctx context.Context, r *runner) ([]row, error) {
	return r.pauses(ctx, false, dies(), row{
		Name: "replica-dies", What: "pause when a replica's process dies", Limit: 100, Unit: "ms",
	})
}

func leaderDies(ctx context.Context, r *runner) ([]row, error) {
	return r.pauses(ctx, true, dies(), row{
		Name: "leader-dies", What: "pause when it is on the Raft leader's node", Limit: 3000, Unit: "ms",
	})
}

func replicaVanishes(ctx context.Context, r *runner) ([]row, error) {
	return r.pauses(ctx, false, vanishes(), row{
		Name: "replica-vanishes", What: "pause when a replica's node vanishes", Limit: 4000, Unit: "ms",
	})
}

func leaderVanishes(ctx context.Context, r *runner) ([]row, error) {
	return r.pauses(ctx, true, vanishes(), row{
		Name: "leader-vanishes", What: "pause when the Raft leader's node vanishes", Limit: 4000, Unit: "ms",
	})
}

// pauses takes the samples of one row: trouble for a node with a replica, the Raft
// leader's or another one, never that of the engine.
func (r *runner) pauses(ctx context.Context, ofLeader bool, t trouble, result row) ([]row, error) {
	b, err := r.newBed(ctx, smallVolume)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	load := startLoad(ctx, pauseShape(), b.device, b.ledger, b.meter)
	for range r.samples() {
		pause, err := b.suffer(ctx, load, ofLeader, t)
		if err != nil {
			return nil, errors.Join(err, load.stop())
		}
		result.Samples = append(result.Samples, float64(pause.Microseconds())/1000)
		r.saySamples(result)
	}
	if err := errors.Join(load.stop(), r.verify(ctx, b)); err != nil {
		return nil, err
	}
	return []row{result}, nil
}

func (r *runner) saySamples(result row) {
	if n := len(result.Samples); n%sayEach == 0 || n == r.samples() {
		r.say("%d samples, the last ones %.4g %s", n, result.Samples[n-min(n, sayEach):], result.Unit)
	}
}

// suffer takes one sample: the longest time without an acknowledged write from the
// trouble until the volume goes on without the replica.
func (b *bed) suffer(ctx context.Context, load *load, ofLeader bool, t trouble) (time.Duration, error) {
	if err := b.inSync(ctx); err != nil {
		return 0, err
	}
	if err := b.flows(ctx, load); err != nil {
		return 0, err
	}
	victim, err := b.victim(ctx, ofLeader)
	if err != nil {
		return 0, err
	}
	b.meter.mark()
	if err := t.inject(ctx, b, victim); err != nil {
		return 0, err
	}
	if err := b.away(ctx, victim); err != nil {
		return 0, err
	}
	if err := b.flows(ctx, load); err != nil {
		return 0, err
	}
	pause := b.meter.pause()
	if err := t.mend(ctx, b, victim); err != nil {
		return 0, err
	}
	return pause, b.cluster.WaitAlive(ctx, b.cluster.Nodes...)
}

// victim is the node to suffer. The volume moves if it must.
func (b *bed) victim(ctx context.Context, ofLeader bool) (int, error) {
	leader, _, err := b.leader(ctx)
	if err != nil {
		return 0, err
	}
	if !ofLeader {
		left := slices.DeleteFunc(b.others(b.home), func(i int) bool { return i == leader })
		return left[0], nil
	}
	if leader == b.home {
		to := b.others(leader)[0]
		if err := b.detach(ctx, leader); err != nil {
			return 0, err
		}
		if err := b.attach(ctx, to); err != nil {
			return 0, err
		}
		if err := b.inSync(ctx); err != nil {
			return 0, err
		}
	}
	return leader, nil
}

// flows waits until writes are acknowledged.
func (b *bed) flows(ctx context.Context, load *load) error {
	before := b.meter.count()
	return b.until(ctx, "writes to flow", func(context.Context) error {
		if n := b.meter.count() - before; n < flowing && load.failure() == nil {
			return fmt.Errorf("%d of %d were acknowledged", n, flowing)
		}
		return load.failure()
	})
}

// attachElsewhere lets the engine's node die or vanish, and moves the volume to
// another one at once.
func attachElsewhere(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newBed(ctx, smallVolume)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	load := startLoad(ctx, pauseShape(), b.device, b.ledger, b.meter)
	results := []row{
		{Name: "attach-died", What: "attach elsewhere after the engine's node died", Limit: 5000, Unit: "ms"},
		{Name: "attach-vanished", What: "attach elsewhere after it vanished", Limit: 5000, Unit: "ms"},
	}
	ways := []trouble{dies(), vanishes()}
	for range r.samples() {
		for i := range results {
			took, err := b.moveFrom(ctx, load, ways[i])
			if err != nil {
				return nil, errors.Join(err, load.stop())
			}
			results[i].Samples = append(results[i].Samples, float64(took.Microseconds())/1000)
			r.saySamples(results[i])
		}
	}
	if err := errors.Join(load.stop(), r.verify(ctx, b)); err != nil {
		return nil, err
	}
	return results, nil
}

// moveFrom takes one sample: from the call that takes the volume from its node,
// which has just died, to the first acknowledged write on another one.
func (b *bed) moveFrom(ctx context.Context, load *load, t trouble) (time.Duration, error) {
	if err := errors.Join(b.inSync(ctx), b.flows(ctx, load)); err != nil {
		return 0, err
	}
	from := b.home
	to := b.others(from)[b.ledger.draw()%2]
	if err := t.inject(ctx, b, from); err != nil {
		return 0, err
	}
	b.device.use(nil)
	b.meter.mark()
	if err := b.detach(ctx, to); err != nil {
		return 0, err
	}
	if err := b.attach(ctx, to); err != nil {
		return 0, err
	}
	if err := b.flows(ctx, load); err != nil {
		return 0, err
	}
	took, _ := b.meter.untilFirst()
	if err := t.mend(ctx, b, from); err != nil {
		return 0, err
	}
	return took, b.cluster.WaitAlive(ctx, b.cluster.Nodes...)
}
