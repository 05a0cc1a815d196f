package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/test/harness"
)

func main() { harness.Main("bench", run) }

// options are what the flags say.
type options struct {
	Rounds    int
	Runtime   time.Duration
	SizeBytes int64
	Dir       string
	Output    string
	Workloads []workload
	// Engine is how Holdfast reads and writes disks.
	Engine vfs.Engine
	// TLS says that Holdfast's nodes do not trust their network.
	TLS bool
}

// quick is a look, not a measurement.
var quick = options{Rounds: 1, Runtime: time.Second, SizeBytes: 512 << 20}

const (
	outputTable    = "table"
	outputJSON     = "json"
	outputMarkdown = "markdown"
)

func parseFlags(args []string, all []workload) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "rounds; each measures every workload on every contender")
	runtime := flags.Duration("runtime", 3*time.Second, "length of each measurement, whole seconds")
	size := flags.Int64("size", 1024, "size of the file and of each volume, in MiB; seven times that must be free")
	dir := flags.String("dir", "/var/tmp", "where everything lies while it runs; on the disk to measure")
	output := flags.String("o", outputTable, "table, json or markdown")
	only := flags.String("only", "", "measure only these workloads, by name: "+strings.Join(names(all), ","))
	engine := flags.String("disk-io", string(vfs.EngineAuto), "how Holdfast reads and writes disks: auto, io_uring or threads")
	secure := flags.Bool("tls", false, "with mutual TLS between Holdfast's nodes")
	short := flags.Bool("quick", false, "a look of a minute or two: -rounds 1 -runtime 1s -size 512")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o := options{Rounds: *rounds, Runtime: *runtime, SizeBytes: *size << 20}
	if *short {
		o = quick
	}
	o.Dir, o.Output, o.TLS = *dir, *output, *secure
	var err error
	if o.Workloads, err = choose(all, *only); err != nil {
		return options{}, err
	}
	if o.Engine, err = vfs.ParseEngine(*engine); err != nil {
		return options{}, fmt.Errorf("-disk-io %w", err)
	}
	return o, o.validate(flags.Args())
}

func (o *options) validate(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.Rounds < 1:
		return fmt.Errorf("-rounds %d: want at least 1", o.Rounds)
	case o.Runtime < time.Second || o.Runtime%time.Second != 0:
		return fmt.Errorf("-runtime %v: want whole seconds, at least one", o.Runtime)
	case o.SizeBytes < 64<<20:
		return fmt.Errorf("-size %d: want at least 64 MiB", o.SizeBytes>>20)
	case !slices.Contains([]string{outputTable, outputJSON, outputMarkdown}, o.Output):
		return fmt.Errorf("-o %q: want table, json or markdown", o.Output)
	}
	return nil
}

// cleanupLimit bounds the cleaning up.
const cleanupLimit = 60 * time.Second

// benchmark compares contenders under workloads.
type benchmark struct {
	workloads []workload
	set       setting
	summarize func(hostFacts, options, []measurement) summary
}

// summary is a report of any benchmark.
type summary interface {
	write(w io.Writer, form string) error
}

// comparisons are the benchmarks of which that is all; that of volumes has no word.
func comparisons() map[string]benchmark {
	return map[string]benchmark{
		"": {workloads(), volumeSetting, func(h hostFacts, o options, all []measurement) summary { return summarize(h, o, all) }},
		"store": {storeWorkloads(), storeSetting, func(h hostFacts, o options, all []measurement) summary {
			return summarizeStore(h, o, all)
		}},
		"frontend": {frontendWorkloads(), frontendSetting, func(h hostFacts, o options, all []measurement) summary {
			return summarizeFrontend(h, o, all)
		}},
	}
}

// benchmarks are known by a word before the flags.
func benchmarks() map[string]func(context.Context, []string) error {
	all := map[string]func(context.Context, []string) error{
		"profile": runProfile, "idle": runIdle, "scrub": runScrub, "postgres": runPostgres,
		memoryWord: func(ctx context.Context, args []string) error { return serveMemory(ctx, args, os.Stdin, os.Stdout) },
	}
	for word, b := range comparisons() {
		all[word] = b.run
	}
	return all
}

func run(ctx context.Context, args []string) error {
	word := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		word, args = args[0], args[1:]
	}
	all := benchmarks()
	do, ok := all[word]
	if !ok {
		delete(all, "")
		delete(all, memoryWord)
		return fmt.Errorf("unexpected argument %q: there are %s, or flags alone", word, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	return do(ctx, args)
}

func (b benchmark) run(ctx context.Context, args []string) error {
	o, err := parseFlags(args, b.workloads)
	if err != nil {
		return err
	}
	facts, err := describeHost(ctx, o.Dir)
	if err != nil {
		return err
	}
	progress := newProgress(os.Stderr)
	results, err := measure(ctx, o, b.set, progress)
	progress.end()
	if err != nil {
		return err
	}
	return b.summarize(facts, o, results).write(os.Stdout, o.Output)
}

// setting makes the contenders of a benchmark, on a stage of its own.
type setting func(o options) (stage, error)

// stage has contenders.
type stage interface {
	// set makes them all.
	set(ctx context.Context, p *progress) error
	all() []contender
	// strike ends and removes everything, whatever was set.
	strike(ctx context.Context) error
}

func volumeSetting(o options) (stage, error) {
	s, err := newVolumeStage(o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// measure sets the contenders up, lets them take turns, and takes them down.
func measure(ctx context.Context, o options, set setting, progress *progress) (results []measurement, err error) {
	s, err := set(o)
	if err != nil {
		return nil, err
	}
	err = withStage(ctx, s, progress, func(ctx context.Context) error {
		if err := s.set(ctx, progress); err != nil {
			return err
		}
		turns := schedule(o.Workloads, s.all(), o.Rounds)
		for i, t := range turns {
			progress.turn(i, len(turns), t)
			m, err := t.measure(ctx)
			if err != nil {
				return err
			}
			results = append(results, m)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// withStage does something on a stage, and strikes it.
func withStage(ctx context.Context, s stage, progress *progress, do func(context.Context) error) (err error) {
	defer func() {
		// After a signal too, so the context of the run cannot serve.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		progress.note("cleaning up")
		if cleanErr := s.strike(ctx); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cleanErr))
		}
	}()
	return do(ctx)
}
