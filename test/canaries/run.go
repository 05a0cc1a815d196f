package canaries

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Runner shows planted bugs to those who must catch them.
type Runner struct {
	// Root is the tree, an absolute path; Dir is a folder for what is built.
	Root, Dir string
	// Off turns the code's own assertions off.
	Off Edit
	// Limit is how long one checker may take for one bug.
	Limit time.Duration
}

// Catch is what came of showing a bug to one who must catch it.
type Catch struct {
	// By is who must catch it.
	By     string
	Caught bool
	// Checker is what noticed, Events after how many events of the simulator, states
	// of the explorer or crash states, in how many runs and with which seed.
	Checker            string
	Events, Runs, Seed int
	Took               time.Duration
	// Output is what the checker said.
	Output string
}

// NewRunner takes the edit AssertionsOff out of the others and returns those. The
// runner's folder is made in a temporary place; Close removes it.
func NewRunner(root string, all []Edit, limit time.Duration) (*Runner, []Edit, error) {
	at := slices.IndexFunc(all, func(e Edit) bool { return e.Name == AssertionsOff })
	if at < 0 {
		return nil, nil, fmt.Errorf("find edit %s: %w", AssertionsOff, os.ErrNotExist)
	}
	dir, err := os.MkdirTemp("", "holdfast-canaries-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a folder for canaries: %w", err)
	}
	r := &Runner{Root: root, Dir: dir, Off: all[at], Limit: limit}
	return r, slices.Delete(slices.Clone(all), at, at+1), nil
}

// Close removes what was built.
func (r *Runner) Close() error {
	if err := os.RemoveAll(r.Dir); err != nil {
		return fmt.Errorf("remove what was built: %w", err)
	}
	return nil
}

// Show plants a bug and shows it to everybody who must catch it. The error says
// why it could not be planted.
func (r *Runner) Show(ctx context.Context, e *Edit) ([]Catch, error) {
	dir := filepath.Join(r.Dir, e.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("plant %s: %w", e.Name, err)
	}
	// What it leaves goes with the runner's folder, at the latest.
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := Overlay(r.Root, dir, r.Off, *e)
	if err != nil {
		return nil, err
	}
	s := &show{Runner: r, edit: e, dir: dir, overlay: overlay}
	for _, part := range []func(context.Context) error{s.explorer, s.simulator, s.test} {
		if err := part(ctx); err != nil {
			return s.catches, fmt.Errorf("show %s: %w", e.Name, err)
		}
	}
	return s.catches, nil
}

// show is one bug being shown.
type show struct {
	*Runner
	edit         *Edit
	dir, overlay string
	catches      []Catch
}

func (s *show) explorer(ctx context.Context) error {
	if len(s.edit.Explorer) == 0 {
		return nil
	}
	binary := filepath.Join(s.dir, "explore")
	if err := s.build(ctx, "build", binary, "./test/explore/cmd/explore"); err != nil {
		return err
	}
	for _, config := range s.edit.Explorer {
		name, set, _ := strings.Cut(config, ":")
		c := s.check(ctx, s.Root, binary, "-config", name, "-set", set)
		c.By, c.Caught = "explorer "+name, c.status == 3
		c.find(explored, func(m []string) { c.Events = atoi(m[1]) })
		c.find(broken, func(m []string) { c.Checker = m[1] })
		s.catches = append(s.catches, c.Catch)
	}
	return nil
}

func (s *show) simulator(ctx context.Context) error {
	if len(s.edit.Scenarios) == 0 && s.edit.Seeds == 0 {
		return nil
	}
	binary := filepath.Join(s.dir, "sim.test")
	if err := s.build(ctx, "test", binary, "./test/sim", "-c", "-vet=off"); err != nil {
		return err
	}
	for _, name := range s.edit.Scenarios {
		c := s.check(ctx, s.Root, binary, "-test.run", "^TestScenario(OfRules|OfNodes|Doubts|Scrubs)?$/^"+regexp.QuoteMeta(name)+"$")
		c.By, c.Caught = "scenario "+name, c.failed()
		c.Checker = "what it reads"
		c.find(violated, func(m []string) { c.Checker, c.Events = m[1], atoi(m[2]) })
		s.catches = append(s.catches, c.Catch)
	}
	if s.edit.Seeds > 0 {
		c := s.check(ctx, s.Root, binary, "-test.run", "^TestSim$", "-test.timeout", "0", "-test.v", "-sim.hunt", strconv.Itoa(s.edit.Seeds),
			"-sim.steps", "6000")
		c.By = "simulator"
		c.find(hunted, func(m []string) {
			c.Caught, c.Checker, c.Seed, c.Events, c.Runs = c.failed(), m[1], atoi(m[2]), atoi(m[3]), atoi(m[4])
		})
		s.catches = append(s.catches, c.Catch)
	}
	return nil
}

func (s *show) test(ctx context.Context) error {
	if len(s.edit.Test) == 0 {
		return nil
	}
	binary := filepath.Join(s.dir, "test")
	if err := s.build(ctx, "test", binary, s.edit.Test[0], "-c", "-vet=off"); err != nil {
		return err
	}
	c := s.check(ctx, filepath.Join(s.Root, s.edit.Test[0]), binary, "-test.run", "^"+s.edit.Test[1]+"$")
	c.By, c.Caught, c.Checker = "test "+s.edit.Test[0], c.failed(), s.edit.Test[1]
	c.find(crashed, func(m []string) { c.Events = atoi(m[1]) })
	s.catches = append(s.catches, c.Catch)
	return nil
}

// build makes a program of the changed tree.
func (s *show) build(ctx context.Context, verb, binary, pkg string, flags ...string) error {
	arguments := append([]string{verb, "-overlay", s.overlay, "-ldflags", "-s -w", "-o", binary}, flags...)
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	c := command(ctx, s.Root, "go", append(arguments, pkg)...)
	if c.err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, c.err, c.Output)
	}
	return nil
}

// buildLimit bounds a build, on a busy machine with empty caches.
const buildLimit = 5 * time.Minute

// ran is a program that has ended.
type ran struct {
	Catch
	status int
	err    error
}

// check runs a checker in a folder, for a limited time.
func (s *show) check(ctx context.Context, dir, name string, arguments ...string) *ran {
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	return command(ctx, dir, name, arguments...)
}

func command(ctx context.Context, dir, name string, arguments ...string) *ran {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = dir
	// The product is static; its tests are built alike, whatever the caller does.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	r := &ran{err: err}
	r.Took, r.Output = time.Since(begin), string(out)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		r.status = exit.ExitCode()
	}
	return r
}

// failed reports that a test ran to its end and failed.
func (r *ran) failed() bool { return r.status == 1 && strings.Contains(r.Output, "--- FAIL") }

func (r *ran) find(pattern *regexp.Regexp, use func(m []string)) {
	if m := pattern.FindStringSubmatch(r.Output); m != nil {
		use(m)
	}
}

func atoi(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// What the checkers print.
var (
	explored = regexp.MustCompile(`(?m)^\S+ +\d+ +(\d+) .* BROKEN$`)
	broken   = regexp.MustCompile(`(?m)^([a-z ]+): .*\n\nin \d+ steps`)
	violated = regexp.MustCompile(`(?m)_test\.go:\d+: ([a-z-]+): step (\d+),`)
	crashed  = regexp.MustCompile(`(?m)_test\.go:\d+: crash state (\d+): `)
	hunted   = regexp.MustCompile(`caught by (\S+): seed (\d+), \d+ events, (\d+) in all (\d+) runs`)
)
