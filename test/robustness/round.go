package robustness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// flowLimit is how long after the mending of a fault writes may stand still, and
	// syncLimit how long replicas may take to be in sync.
	flowLimit = 60 * time.Second
	syncLimit = 90 * time.Second
	// flowing is how many writes show that they flow.
	flowing = 30
	// setupLimit bounds the making of a cluster, endLimit what comes after the faults.
	setupLimit = 90 * time.Second
	endLimit   = 5 * time.Minute
	// descriptorSlack is how many more files a daemon may hold open after all faults
	// than any held before.
	descriptorSlack = 64
)

// options of a round.
type options struct {
	// dir of the stage is made for the round.
	stageOptions
	seed   uint64
	length time.Duration
	// keep is where results of a failure go.
	keep string
	// faults are those to draw from for that length; with none, each is made once.
	faults []fault
	table  *table
	// printf shows progress.
	printf func(format string, args ...any)
}

// round is one seed's run.
type round struct {
	options
	draw    *rand.Rand
	stage   *stage
	load    *load
	fillers int
	// stale counts the reads that an engine answered after the volume had moved.
	stale       atomic.Int64
	descriptors int
}

// runRound runs one round from an empty machine to an empty machine.
func runRound(ctx context.Context, o options) (err error) {
	r := &round{options: o, draw: rand.New(rand.NewPCG(o.seed, 0))}
	r.table.count(countRemovals, 0)
	r.table.count(countElections, 0)
	began := time.Now()
	setup, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	r.stage, err = newStage(setup, r.draw, o.stageOptions)
	defer func() {
		if err != nil && r.stage.cluster != nil {
			err = errors.Join(err, r.keepEvidence(err))
		}
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		began := time.Now()
		if cleanErr := r.stage.clean(cleaning); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cleanErr))
		}
		r.printf("  cleaned up in %.1f s\n", time.Since(began).Seconds())
	}()
	if err != nil {
		return err
	}
	dial, err := r.stage.attach(setup, r.stage.home)
	if err != nil {
		return err
	}
	r.printf("  made and attached in %.1f s\n", time.Since(began).Seconds())
	r.load = startLoad(ctx, o.seed, volumeLayout())
	r.load.use(dial)
	if err := r.makeTrouble(ctx); err != nil {
		return errors.Join(err, r.load.stop())
	}
	healed := time.Now()
	err = r.end(ctx)
	r.printf("  healed, checked and taken down in %.1f s\n", time.Since(healed).Seconds())
	return err
}

// say prints a line and puts it into the history.
func (r *round) say(format string, args ...any) moment {
	at := r.load.history.note(format, args...)
	r.printf("  %6.2f s  %s\n", time.Duration(at).Seconds(), fmt.Sprintf(format, args...))
	return at
}

// makeTrouble draws faults until the time is over.
func (r *round) makeTrouble(ctx context.Context) error {
	r.printf("  %d nodes, replicas on %v, attached to n%d\n", len(r.stage.cluster.Nodes), names(r.stage.holders), r.stage.home+1)
	if err := r.flows(ctx); err != nil {
		return err
	}
	if err := r.stage.inSync(ctx); err != nil {
		return err
	}
	var err error
	if r.descriptors, err = r.stage.descriptors(); err != nil {
		return err
	}
	quiet := r.load.history.now()
	pause(ctx, 2*time.Second)
	r.table.add("(no fault)", sample{during: r.load.history.pause(quiet, r.load.history.now())})
	if r.length == 0 {
		for _, f := range r.faults {
			if err := r.make(ctx, f); err != nil {
				return err
			}
		}
	}
	for began := time.Now(); time.Since(began) < r.length && ctx.Err() == nil; {
		if err := r.make(ctx, r.choose()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// make brings a fault about, from its beginning to its mending.
func (r *round) make(ctx context.Context, f fault) error {
	r.table.count(countFaults, 1)
	err := f.run(r, ctx)
	if err == nil {
		err = r.load.failure()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

func names(nodes []int) (all []string) {
	for _, i := range nodes {
		all = append(all, fmt.Sprintf("n%d", i+1))
	}
	return all
}

// choose draws a fault.
func (r *round) choose() fault {
	total := 0
	for _, f := range r.faults {
		total += f.weight
	}
	at := r.draw.IntN(total)
	for _, f := range r.faults {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	return r.faults[0]
}

// flows waits until writes are acknowledged again.
func (r *round) flows(ctx context.Context) error {
	before := r.load.history.acknowledgedWrites()
	ctx, cancel := context.WithTimeout(ctx, flowLimit)
	defer cancel()
	err := harness.Wait(ctx, "writes to flow", func(context.Context) error {
		if err := r.load.failure(); err != nil {
			return harness.Stop(err)
		}
		if n := r.load.history.acknowledgedWrites() - before; n < flowing {
			return fmt.Errorf("%d of %d were acknowledged", n, flowing)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w; the engine says: %s", err, r.describe(ctx))
	}
	return nil
}

// recover waits until writes flow again and, most of the time, until all replicas
// are in sync; so that some faults meet replicas that are not.
func (r *round) recover(ctx context.Context, kind string, at, mended moment) error {
	if err := r.flows(ctx); err != nil {
		return err
	}
	s := sample{}
	if r.draw.IntN(4) > 0 {
		if err := r.stage.inSync(ctx); err != nil {
			return err
		}
		s.sync = time.Duration(r.load.history.now() - mended)
	}
	s.during = r.load.history.pause(at, mended)
	s.after = r.load.history.pause(mended, r.load.history.now())
	r.table.add(kind, s)
	r.printf("            %s: longest pause %s, after mending %s, in sync after %s\n", kind, ms(s.during), ms(s.after), ms(s.sync))
	return nil
}

// end heals everything and looks at what is left.
func (r *round) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	if err := r.lastLook(ctx); err != nil {
		return errors.Join(err, r.load.stop())
	}
	if err := r.load.stop(); err != nil {
		return err
	}
	began := time.Now()
	histories, err := r.load.history.check()
	if err != nil {
		return err
	}
	all, lost, _ := r.load.history.counts()
	r.table.count(countRequests, uint64(all))
	r.table.count(countUnknown, uint64(lost))
	r.table.count(countStale, uint64(r.stale.Load()))
	r.table.count(countHistories, uint64(histories))
	r.printf("  %d requests, %d of unknown outcome, %d reads answered at an old place; %d histories linearizable, checked in %.1f s\n",
		all, lost, r.stale.Load(), histories, time.Since(began).Seconds())
	return r.stage.takeDown(ctx)
}

// lastLook waits for health, reads everything and compares the replicas.
func (r *round) lastLook(ctx context.Context) error {
	if err := r.stage.heal(ctx); err != nil {
		return err
	}
	if err := r.flows(ctx); err != nil {
		return err
	}
	if err := r.stage.inSync(ctx); err != nil {
		return err
	}
	if err := r.load.hold(ctx); err != nil {
		return err
	}
	volume, err := r.load.readAll(ctx, finalReader)
	if err != nil {
		return err
	}
	r.load.use(nil)
	want, err := harness.SumsOf(ctx, bytes.NewReader(volume))
	if err != nil {
		return err
	}
	if err := r.stage.compare(ctx, want); err != nil {
		return err
	}
	now, err := r.stage.descriptors()
	if err != nil {
		return err
	}
	if now > r.descriptors+descriptorSlack {
		return fmt.Errorf("a daemon holds %d files open, none held more than %d before the faults", now, r.descriptors)
	}
	return nil
}

// descriptors is the largest number of files that a daemon holds open.
func (s *stage) descriptors() (most int, err error) {
	for _, n := range s.cluster.Nodes {
		open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.PID()))
		if err != nil {
			return 0, err
		}
		most = max(most, len(open))
	}
	return most, nil
}
