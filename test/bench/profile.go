package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/holdfast-io/holdfast/internal/vfs"
)

// sampleRate is that of perf, each second and CPU. It is no divisor of what the kernel
// does regularly.
const sampleRate = 1999

// profileOptions are what the flags of bench profile say.
type profileOptions struct {
	options
	replicas int
	// flames is where a profile for `go tool pprof` is written; empty for nowhere.
	flames string
}

func parseProfileFlags(args []string) (profileOptions, error) {
	flags := flag.NewFlagSet("bench profile", flag.ContinueOnError)
	replicas := flags.Int("replicas", 3, "replicas of the volume, 1 to 3; each daemon has one")
	only := flags.String("only", "randwrite-16", "the workload: "+strings.Join(names(workloads()), ", "))
	runtime := flags.Duration("runtime", 10*time.Second, "length of the measurement, and of the sampling after it")
	size := flags.Int64("size", 1024, "size of the volume, in MiB; four times that must be free")
	dir := flags.String("dir", "/var/tmp", "where everything lies while it runs; on the disk to measure")
	output := flags.String("o", outputTable, "table, json or markdown")
	engine := flags.String("disk-io", string(vfs.EngineAuto), "how Holdfast reads and writes disks: auto, io_uring or threads")
	flames := flags.String("flames", "", "also write the stacks to this file; `go tool pprof -http : FILE` draws flames of them")
	if err := flags.Parse(args); err != nil {
		return profileOptions{}, err
	}
	o := profileOptions{replicas: *replicas, flames: *flames, options: options{
		Rounds: 1, Runtime: *runtime, SizeBytes: *size << 20, Dir: *dir, Output: *output,
	}}
	var err error
	if o.Workloads, err = choose(workloads(), *only); err != nil {
		return o, err
	}
	if o.Engine, err = vfs.ParseEngine(*engine); err != nil {
		return o, fmt.Errorf("-disk-io %w", err)
	}
	switch {
	case len(o.Workloads) != 1:
		return o, fmt.Errorf("-only %q: one workload is profiled at a time", *only)
	case o.replicas < 1 || o.replicas > 3:
		return o, fmt.Errorf("-replicas %d: want 1 to 3", o.replicas)
	}
	return o, o.validate(flags.Args())
}

// profiled is what a profile came to.
type profiled struct {
	Host     hostFacts `json:"host"`
	Workload workload  `json:"workload"`
	Replicas int       `json:"replicas"`
	// Rate is in operations each second, ServerCPU for one of them, without sampling.
	Rate      float64       `json:"operationsPerSecond"`
	ServerCPU float64       `json:"serverCPUMicroseconds"`
	Samples   int           `json:"samples"`
	Stages    []stageReport `json:"stages"`
}

// stageReport is the part of one stage.
type stageReport struct {
	Title        string  `json:"title"`
	Share        float64 `json:"share"`
	Microseconds float64 `json:"microseconds"`
}

// runProfile says where the CPU of one workload goes.
func runProfile(ctx context.Context, args []string) (err error) {
	o, err := parseProfileFlags(args)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("perf"); err != nil {
		return errors.New("perf is missing: install the package linux-perf, or run build/deps.sh bench")
	}
	host, err := describeHost(ctx, o.Dir)
	if err != nil {
		return err
	}
	progress := newProgress(os.Stderr)
	s, err := newVolumeStage(o.options)
	if err != nil {
		return err
	}
	var result profiled
	err = withStage(ctx, s, progress, func(ctx context.Context) error {
		if err := runSteps(ctx, progress, s.daemonSteps(o.replicas)); err != nil {
			return err
		}
		result, err = s.profile(ctx, o, progress)
		return err
	})
	progress.end()
	if err != nil {
		return err
	}
	result.Host = host
	return writeReport(os.Stdout, o.Output, result, result.sheet())
}

// daemonSteps make one volume, and nothing to compare it with.
func (s *volumeStage) daemonSteps(replicas int) []step {
	return []step{
		{"looking for fio's nbd engine", s.checkFio},
		{"building Holdfast and starting three daemons", s.startCluster},
		{fmt.Sprintf("writing a volume, replicas: %d", replicas), s.addVolume("holdfast", "Holdfast", replicas)},
	}
}

// profile measures the workload, and samples it after that: sampling costs CPU itself.
func (s *volumeStage) profile(ctx context.Context, o profileOptions, progress *progress) (profiled, error) {
	w, c := o.Workloads[0], s.contenders[0]
	progress.note("measuring " + w.Title)
	m, err := turn{Workload: w, Contender: c}.measure(ctx)
	if err != nil {
		return profiled{}, err
	}
	progress.note("sampling it")
	stacks, err := s.sample(ctx, o, w, c)
	if err != nil {
		return profiled{}, err
	}
	p := profiled{
		Workload: w, Replicas: o.replicas, Rate: m.Rate, Samples: stacks.total,
		ServerCPU: float64(m.ServerCPU.Nanoseconds()) / 1000 / float64(m.Operations),
	}
	for title, n := range stacks.stages {
		share := float64(n) / float64(stacks.total)
		p.Stages = append(p.Stages, stageReport{Title: title, Share: share, Microseconds: share * p.ServerCPU})
	}
	slices.SortFunc(p.Stages, func(a, b stageReport) int { return cmp.Compare(b.Share, a.Share) })
	if o.flames == "" {
		return p, nil
	}
	return p, stacks.write(o.flames)
}

// sample runs the workload with perf watching the daemons.
func (s *volumeStage) sample(ctx context.Context, o profileOptions, w workload, c contender) (*stackCounts, error) {
	data := filepath.Join(s.dir, "perf.data")
	var pids []string
	for _, pid := range c.pids() {
		pids = append(pids, strconv.Itoa(pid))
	}
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-F", strconv.Itoa(sampleRate), "-e", "cpu-clock", "-g",
		"-p", strings.Join(pids, ","), "-o", data)
	perf.SysProcAttr = childOfOurs()
	said := new(strings.Builder)
	perf.Stdout, perf.Stderr = said, said
	if err := perf.Start(); err != nil {
		return nil, err
	}
	_, loadErr := c.load(ctx, w, 1)
	interruptErr := perf.Process.Signal(os.Interrupt)
	// It says by its exit code that it was interrupted; whether it has what it should
	// have, the next step shows.
	_ = perf.Wait()
	if err := errors.Join(loadErr, interruptErr); err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	script := exec.CommandContext(ctx, "perf", "script", "-i", data, "-F", "ip,sym")
	out, err := script.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := script.Start(); err != nil {
		return nil, err
	}
	counts := newStackCounts()
	readErr := readStacks(out, counts.add)
	if err := errors.Join(readErr, script.Wait()); err != nil {
		return nil, fmt.Errorf("read the samples: %w: %s", err, said)
	}
	if counts.total == 0 {
		return nil, fmt.Errorf("perf took no samples: %s", said)
	}
	return counts, nil
}

// stackCounts are samples by stage, and by stack.
type stackCounts struct {
	total  int
	stages map[string]int
	stacks map[string]int
}

func newStackCounts() *stackCounts {
	return &stackCounts{stages: make(map[string]int), stacks: make(map[string]int)}
}

func (c *stackCounts) add(stack []string) {
	c.total++
	c.stages[stageOf(stack)]++
	c.stacks[strings.Join(stack, "\n")]++
}

// write writes the stacks as a profile of pprof.
func (c *stackCounts) write(path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return c.profile().Write(file)
}

func (c *stackCounts) profile() *profile.Profile {
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Period:     int64(time.Second) / sampleRate,
	}
	known := make(map[string]*profile.Location)
	at := func(function string) *profile.Location {
		l := known[function]
		if l == nil {
			f := &profile.Function{ID: uint64(len(known) + 1), Name: function}
			l = &profile.Location{ID: f.ID, Line: []profile.Line{{Function: f}}}
			known[function] = l
			p.Function, p.Location = append(p.Function, f), append(p.Location, l)
		}
		return l
	}
	for stack, n := range c.stacks {
		sample := &profile.Sample{Value: []int64{int64(n), int64(n) * p.Period}}
		for function := range strings.SplitSeq(stack, "\n") {
			sample.Location = append(sample.Location, at(function))
		}
		p.Sample = append(p.Sample, sample)
	}
	return p
}

// sheet is the table of stages.
func (p profiled) sheet() sheet {
	title := fmt.Sprintf("%s, replicas: %d", p.Workload.Title, p.Replicas)
	t := sheet{
		facts: []string{
			fmt.Sprintf("Holdfast %s, %s", p.Host.Commit, p.Host.Taken.Format("2006-01-02 15:04 MST")),
			fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", p.Host.CPU, p.Host.CPUs, p.Host.MemoryBytes>>30, p.Host.Kernel),
			fmt.Sprintf("%.0f operations/s; %d samples of all daemons", p.Rate, p.Samples),
		},
		legend:  "us: the share of the samples, of the CPU for an operation measured without sampling.\n",
		columns: []string{"share", "us/op"},
	}
	row := func(name string, share, microseconds float64) {
		t.rows = append(t.rows, sheetRow{group: title, title: name, cells: []string{
			fmt.Sprintf("%.1f%%", 100*share), fmt.Sprintf("%.1f", microseconds),
		}})
	}
	for _, s := range p.Stages {
		row(s.Title, s.Share, s.Microseconds)
	}
	row("all server processes", 1, p.ServerCPU)
	return t
}
