package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/vfs"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// scrubTarget is how many times as long the 99th percentile may be beside a scrub.
	scrubTarget = 2.0
	// scrubWatch is how often the scrub is looked at while it must run.
	scrubWatch = 100 * time.Millisecond
	// scrubQuiet bounds the wait for a scrub to end, between two measurements.
	scrubQuiet = 5 * time.Minute
)

func parseScrubFlags(args []string) (options, error) {
	flags := flag.NewFlagSet("bench scrub", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "rounds; each measures once without a scrub and once beside one")
	runtime := flags.Duration("runtime", 5*time.Second, "length of each measurement, whole seconds")
	size := flags.Int64("size", 2048, "size of the volume, in MiB; seven times that must be free")
	dir := flags.String("dir", "/var/tmp", "where everything lies while it runs; on the disk to measure")
	output := flags.String("o", outputTable, "table, json or markdown")
	only := flags.String("only", "randwrite-16", "the load whose half is put on: randwrite-1, randwrite-16, randwrite-64")
	engine := flags.String("disk-io", string(vfs.EngineAuto), "how Holdfast reads and writes disks: auto, io_uring or threads")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o := options{Rounds: *rounds, Runtime: *runtime, SizeBytes: *size << 20, Dir: *dir, Output: *output}
	var err error
	if o.Workloads, err = choose(workloads(), *only); err != nil {
		return options{}, err
	}
	if o.Engine, err = vfs.ParseEngine(*engine); err != nil {
		return options{}, fmt.Errorf("-disk-io %w", err)
	}
	if len(o.Workloads) != 1 || o.Workloads[0].Flush || o.Workloads[0].Pattern != "randwrite" {
		return options{}, fmt.Errorf("-only %q: want one of randwrite-1, randwrite-16 and randwrite-64", *only)
	}
	return o, o.validate(flags.Args())
}

// runScrub says what a scrub does to the latency of writes.
func runScrub(ctx context.Context, args []string) error {
	o, err := parseScrubFlags(args)
	if err != nil {
		return err
	}
	host, err := describeHost(ctx, o.Dir)
	if err != nil {
		return err
	}
	progress := newProgress(os.Stderr)
	volumes, err := newVolumeStage(o)
	if err != nil {
		return err
	}
	s := &scrubStage{volumeStage: volumes}
	var result scrubReport
	err = withStage(ctx, s, progress, func(ctx context.Context) error {
		result, err = s.measure(ctx, progress, host)
		return err
	})
	progress.end()
	if err != nil {
		return err
	}
	if err := writeReport(os.Stdout, o.Output, result, result.sheet()); err != nil {
		return err
	}
	return result.judge()
}

// scrubStage has one volume that is scrubbed now and then.
type scrubStage struct {
	*volumeStage
	volume string
	node   *harness.Node
	target target
}

// scrubbed is a measurement without or beside a scrub.
type scrubbed struct {
	measurement
	// Beside is whether a scrub ran all the while, and Verified how many bytes of the
	// volume it has read.
	Beside   bool
	Verified int64
}

func (s *scrubStage) measure(ctx context.Context, p *progress, host hostFacts) (scrubReport, error) {
	w := s.options.Workloads[0]
	r := scrubReport{Host: host, Workload: w, RuntimeSeconds: s.options.Runtime.Seconds(), Rounds: s.options.Rounds, SizeBytes: s.options.SizeBytes}
	steps := []step{
		{"looking for fio's nbd engine", checkFio},
		{"building Holdfast and starting three daemons", s.startCluster},
		{"writing a volume with 3 replicas", s.addScrubbedVolume},
		{"measuring the rate that it reaches", func(ctx context.Context) error {
			full, err := s.fio.run(ctx, s.target, job{workload: w, SizeBytes: s.options.SizeBytes, Runtime: s.options.Runtime, Seed: 1})
			r.Full = full.Rate
			return err
		}},
	}
	if err := runSteps(ctx, p, steps); err != nil {
		return r, err
	}
	r.Rate = int(r.Full / 2)
	var all []scrubbed
	for round := range s.options.Rounds {
		// Who begins changes, so that nobody always finds what the other one left.
		for i := range 2 {
			beside := (round+i)%2 == 1
			p.note(fmt.Sprintf("round %d of %d, scrub: %v", round+1, s.options.Rounds, beside))
			m, err := s.round(ctx, round, r.Rate, beside)
			if err != nil {
				return r, fmt.Errorf("round %d, scrub %v: %w", round+1, beside, err)
			}
			all = append(all, m)
		}
	}
	r.condense(all)
	return r, nil
}

// addScrubbedVolume makes the volume and writes it to its last byte.
func (s *scrubStage) addScrubbedVolume(ctx context.Context) error {
	id, uri, err := s.makeVolume(ctx, "scrubbed", s.options.SizeBytes, 3)
	if err != nil {
		return err
	}
	v, err := s.cluster.Nodes[0].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: id})
	if err != nil {
		return fmt.Errorf("look at the volume: %w", err)
	}
	s.volume, s.node, s.target = id, s.cluster.Node(v.GetPublishedNodeId()), nbdTarget(uri)
	return s.fio.fill(ctx, s.target, s.options.SizeBytes)
}

// round measures once, without a scrub or while one runs from before fio begins until
// after it has ended.
func (s *scrubStage) round(ctx context.Context, round, rate int, beside bool) (scrubbed, error) {
	c := contender{
		Title: "Holdfast, 3 replicas", pids: s.daemons,
		healthy: func(ctx context.Context) error { return s.checkVolume(ctx, s.volume, 3) },
		load: func(ctx context.Context, w workload, round int) (load, error) {
			return s.fio.run(ctx, s.target, job{workload: w, SizeBytes: s.options.SizeBytes, Runtime: s.options.Runtime, Seed: round + 2, Rate: rate})
		},
	}
	t := turn{Round: round, Workload: s.options.Workloads[0], Contender: c}
	if !beside {
		if err := s.awaitNoScrub(ctx); err != nil {
			return scrubbed{}, err
		}
		m, err := t.measure(ctx)
		if err != nil {
			return scrubbed{}, err
		}
		// One that began by itself would be in both.
		if at, err := s.scrubAt(ctx); err != nil || at >= 0 {
			return scrubbed{}, errors.Join(err, errors.New("a scrub runs that nobody has asked for"))
		}
		return scrubbed{measurement: m}, nil
	}
	if err := s.beginScrub(ctx); err != nil {
		return scrubbed{}, err
	}
	watch := s.watchScrub(ctx)
	m, err := t.measure(ctx)
	verified, watchErr := watch()
	return scrubbed{measurement: m, Beside: true, Verified: verified}, errors.Join(err, watchErr)
}

// scrubAt is where the scrub is that runs, in bytes of the volume; -1 if there is none.
func (s *scrubStage) scrubAt(ctx context.Context) (int64, error) {
	status, err := s.node.Agent().GetEngine(ctx, &holdfastv1.GetEngineRequest{VolumeId: s.volume})
	if err != nil {
		return 0, fmt.Errorf("look at the engine: %w", err)
	}
	if status.GetScrub() == nil {
		return -1, nil
	}
	return status.GetScrub().GetOffsetBytes(), nil
}

// beginScrub asks for a scrub and waits until it runs.
func (s *scrubStage) beginScrub(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if _, err := s.cluster.Nodes[0].Volumes().ScrubVolume(ctx, &holdfastv1.ScrubVolumeRequest{Id: s.volume}); err != nil {
		return fmt.Errorf("ask for a scrub: %w", err)
	}
	return harness.Wait(ctx, "the scrub to run", func(ctx context.Context) error {
		at, err := s.scrubAt(ctx)
		if err == nil && at < 0 {
			err = errors.New("it does not run yet")
		}
		return err
	})
}

func (s *scrubStage) awaitNoScrub(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, scrubQuiet)
	defer cancel()
	return harness.Wait(ctx, "the scrub to end", func(ctx context.Context) error {
		at, err := s.scrubAt(ctx)
		if err == nil && at >= 0 {
			err = fmt.Errorf("it is at %d", at)
		}
		return err
	})
}

// watchScrub looks at the scrub until it is called, and says how far the scrub came
// meanwhile. It is an error if at any look there was none, or if it came nowhere.
func (s *scrubStage) watchScrub(ctx context.Context) func() (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	var seen scrubTrack
	var err error
	watching.Go(func() {
		for ticker := time.NewTicker(scrubWatch); ; {
			var at int64
			if at, err = s.scrubAt(context.WithoutCancel(ctx)); err != nil {
				return
			}
			seen.look(at)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				ticker.Stop()
				return
			}
		}
	})
	return func() (int64, error) {
		cancel()
		watching.Wait()
		if err != nil {
			return 0, err
		}
		return seen.verdict()
	}
}

// scrubTrack is what looks at a scrub have seen.
type scrubTrack struct {
	looks, missed int
	first, last   int64
}

func (t *scrubTrack) look(at int64) {
	t.looks++
	if at < 0 {
		t.missed++
		return
	}
	if t.looks == 1 {
		t.first = at
	}
	t.last = at
}

func (t *scrubTrack) verdict() (int64, error) {
	switch {
	case t.missed > 0:
		return 0, fmt.Errorf("the scrub ran only at %d of %d looks, so that the figures are void: take a larger volume (-size) or less time (-runtime)",
			t.looks-t.missed, t.looks)
	case t.last <= t.first:
		return 0, fmt.Errorf("the scrub stood at byte %d all the while, so that the figures are void: look into the logs of the daemons", t.first)
	}
	return t.last - t.first, nil
}
