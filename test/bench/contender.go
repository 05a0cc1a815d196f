package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// Names of the contenders.
const (
	rawFile   = "raw"
	qemuNBD   = "qemu-nbd"
	holdfast1 = "holdfast-1"
	holdfast3 = "holdfast-3"
	// holdfastRemote is a volume with one replica, on another node than its client.
	holdfastRemote = "holdfast-remote"
)

// contender is something that stores blocks.
type contender struct {
	// Name is for scripts, Title for people.
	Name, Title string
	// ready prepares it for its turn before anything is counted; nil if there is nothing
	// to do.
	ready func(ctx context.Context) error
	// load puts a workload on it and says what it came to.
	load func(ctx context.Context, w workload, round int) (load, error)
	// pids are the processes behind it; nil if there is none.
	pids func() []int
	// allocations are what Go's heap was asked for so far in these processes; nil where
	// that is not known.
	allocations func(ctx context.Context) (float64, error)
	// idle is how many that are each second without any load.
	idle float64
	// syncs is how often flushes have synced its disk so far, each of its disks if there are
	// several; nil where that is not known.
	syncs func(ctx context.Context) (float64, error)
	// healthy says that it is still what it is called; nil if it cannot be
	// otherwise.
	healthy func(ctx context.Context) error
}

// wantTools fails for the first program that is missing; packages names the package of each.
func wantTools(packages map[string]string) error {
	for _, tool := range slices.Sorted(maps.Keys(packages)) {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: install the package %s, or run build/deps.sh bench", tool, packages[tool])
		}
	}
	return nil
}

// cpu is what the processes behind it have used so far.
func (c contender) cpu() (time.Duration, error) {
	if c.pids == nil {
		return 0, nil
	}
	return harness.CPU(c.pids())
}

// allocated is what has been allocated since it was called, without what the question
// takes and what an idle contender does.
func (c contender) allocated(ctx context.Context) (func(context.Context) (float64, error), error) {
	if c.allocations == nil {
		return func(context.Context) (float64, error) { return 0, nil }, nil
	}
	first, err := c.allocations(ctx)
	if err != nil {
		return nil, err
	}
	before, err := c.allocations(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	return func(ctx context.Context) (float64, error) {
		elapsed := time.Since(began)
		after, err := c.allocations(ctx)
		return max(0, after-before-(before-first)-c.idle*elapsed.Seconds()), err
	}, nil
}

// synced is how often flushes have synced its disk so far.
func (c contender) synced(ctx context.Context) (float64, error) {
	if c.syncs == nil {
		return 0, nil
	}
	return c.syncs(ctx)
}

func (c contender) check(ctx context.Context) error {
	if c.healthy == nil {
		return nil
	}
	return c.healthy(ctx)
}

// volumeStage is what the contenders need, and all of them.
type volumeStage struct {
	holdfast
	options    options
	dir        string
	fio        fio
	qemu       *exec.Cmd
	contenders []contender
}

// copies is how often the size is stored: the file, one replica twice, three
// replicas, and as much again for metadata and the replicas' own needs.
const copies = 7

// newVolumeStage makes the directory, once it is clear that what is needed is there.
func newVolumeStage(o options) (*volumeStage, error) {
	if err := wantTools(map[string]string{"fio": "fio", "qemu-nbd": "qemu-utils", "go": "golang-go"}); err != nil {
		return nil, err
	}
	if err := wantFree(o.Dir, copies*o.SizeBytes); err != nil {
		return nil, err
	}
	// Short, because of the limit on paths of sockets.
	dir, err := os.MkdirTemp(o.Dir, "hf-bench-")
	if err != nil {
		return nil, err
	}
	return &volumeStage{holdfast: holdfast{tls: o.TLS}, options: o, dir: dir, fio: fio{dir: dir}}, nil
}

// step is one of those that set a stage.
type step struct {
	note string
	do   func(context.Context) error
}

// set makes all contenders.
func (s *volumeStage) set(ctx context.Context, p *progress) error {
	return runSteps(ctx, p, []step{
		{"looking for fio's nbd engine", checkFio},
		{"building Holdfast and starting three daemons", s.startCluster},
		{"writing the raw file", s.addRawFile},
		{"starting qemu-nbd", s.addQemu},
		{"writing a volume with 1 replica", s.addVolume(holdfast1, "Holdfast, 1 replica", 1)},
		{"writing a volume with 1 replica on another node", s.addVolume(holdfastRemote, "Holdfast, 1, other node", 1)},
		{"writing a volume with 3 replicas", s.addVolume(holdfast3, "Holdfast, 3 replicas", 3)},
		{"looking at idle daemons", s.watchIdle},
	})
}

// runSteps runs the steps that set a stage.
func runSteps(ctx context.Context, p *progress, steps []step) error {
	for _, step := range steps {
		p.note(step.note)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.note, err)
		}
	}
	return nil
}

// checkFio: some builds of fio have no nbd engine.
func checkFio(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "fio", "--enghelp").Output()
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == "nbd" {
			return nil
		}
	}
	return errors.New("this fio was built without libnbd; the one of Debian has it")
}

func (s *volumeStage) rawPath() string { return filepath.Join(s.dir, "raw") }

func (s *volumeStage) addRawFile(ctx context.Context) error {
	if err := makeFile(s.rawPath(), s.options.SizeBytes); err != nil {
		return err
	}
	t := fileTarget(s.rawPath())
	s.add(contender{Name: rawFile, Title: "raw file"}, t)
	return s.fio.fill(ctx, t, s.options.SizeBytes)
}

func (s *volumeStage) all() []contender { return s.contenders }

// add adds a contender that is reached at target.
func (s *volumeStage) add(c contender, t target) {
	byFio, byUs := s.fio.loads(t, s.options), durableLoads(t, s.options)
	c.load = func(ctx context.Context, w workload, round int) (load, error) {
		if w.Durable {
			return byUs(ctx, w, round)
		}
		return byFio(ctx, w, round)
	}
	s.contenders = append(s.contenders, c)
}

// sharedClients is how many clients qemu-nbd takes at once: each writer that flushes is one.
const sharedClients = 32

// addQemu shows the same file by qemu-nbd.
func (s *volumeStage) addQemu(ctx context.Context) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "qemu-nbd", "--cache=none", "--format=raw", "--persistent",
		"--shared="+strconv.Itoa(sharedClients), "--socket="+socketPath(s.dir, qemuNBD), s.rawPath())
	if err := startServer(ctx, s.dir, qemuNBD, cmd); err != nil {
		return err
	}
	s.qemu = cmd
	s.add(contender{Name: qemuNBD, Title: "qemu-nbd, cache=none", pids: processOf(cmd)}, socketTarget(s.dir, qemuNBD))
	return nil
}

// strike ends and removes everything, whatever was set.
func (s *volumeStage) strike(ctx context.Context) error {
	var errs []error
	if s.qemu != nil {
		errs = append(errs, endServer(s.qemu))
	}
	return errors.Join(append(errs, s.stop(ctx), os.RemoveAll(s.dir))...)
}
