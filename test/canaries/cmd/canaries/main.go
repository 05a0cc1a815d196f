// Command canaries applies each planted bug in turn and shows that the explorer
// or the simulator catches it, and after how much work. It is started in the
// root of the tree. It fails if a bug is not caught by one who must.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/canaries"
)

// dir is where the edits are.
const dir = "test/canaries"

func main() {
	run := flag.String("run", "", "only the edits whose name matches this `pattern`")
	verbose := flag.Bool("v", false, "print what the checkers say")
	limit := flag.Duration("limit", 4*time.Minute, "how long one checker may take for one bug")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := runAll(ctx, *run, *verbose, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "canaries:", err)
		os.Exit(1)
	}
}

func runAll(ctx context.Context, pattern string, verbose bool, limit time.Duration) (err error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	edits, err := canaries.Load(dir)
	if err != nil {
		return err
	}
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	at := slices.IndexFunc(edits, func(e canaries.Edit) bool { return e.Name == canaries.AssertionsOff })
	if at < 0 {
		return fmt.Errorf("there is no edit %s", canaries.AssertionsOff)
	}
	r := runner{root: root, off: edits[at], verbose: verbose, limit: limit}
	if r.dir, err = os.MkdirTemp("", "holdfast-canaries-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	fmt.Printf("%-4s %-28s %-9s %-44s %s\n", "rule", "canary", "caught by", "how", "it breaks")
	missed := 0
	for _, e := range edits {
		if e.Rule == 0 || !wanted.MatchString(e.Name) {
			continue
		}
		ok, err := r.edit(ctx, &e)
		if err != nil {
			return err
		}
		if !ok {
			missed++
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d planted bugs were not caught", missed)
	}
	return nil
}

// runner runs checkers on a changed tree.
type runner struct {
	root, dir string
	off       canaries.Edit
	verbose   bool
	limit     time.Duration
}

// edit shows one planted bug to those who must catch it.
func (r *runner) edit(ctx context.Context, e *canaries.Edit) (bool, error) {
	to := filepath.Join(r.dir, e.Name)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return false, err
	}
	overlay, err := canaries.Overlay(r.root, to, r.off, *e)
	if err != nil {
		return false, err
	}
	all := true
	if len(e.Explorer) > 0 {
		binary := filepath.Join(to, "explore")
		if out, _, err := r.command(ctx, "go", "build", "-overlay", overlay, "-o", binary, "./test/explore/cmd/explore"); err != nil {
			return false, fmt.Errorf("build the explorer with %s: %w\n%s", e.Name, err, out)
		}
		for _, config := range e.Explorer {
			name, set, _ := strings.Cut(config, ":")
			out, status, err := r.command(ctx, binary, "-config", name, "-set", set)
			caught := err != nil && status == 3
			r.row(e, "explorer", config+": "+explored(out), caught, out)
			all = all && caught
		}
	}
	if len(e.Simulator) > 0 {
		arguments := append([]string{"test", "-overlay", overlay, "./test/sim", "-count", "1"}, e.Simulator...)
		out, status, err := r.command(ctx, "go", arguments...)
		caught := err != nil && status == 1 && strings.Contains(out, "--- FAIL")
		r.row(e, "simulator", strings.Join(e.Simulator, " "), caught, out)
		all = all && caught
	}
	return all, nil
}

// command runs a program in the root of the tree.
func (r *runner) command(ctx context.Context, name string, arguments ...string) (out string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = r.root
	data, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		status = exit.ExitCode()
	}
	return string(data), status, err
}

func (r *runner) row(e *canaries.Edit, by, how string, caught bool, out string) {
	if !caught {
		by = "NOBODY"
	}
	fmt.Printf("%4d %-28s %-9s %-44s %s\n", e.Rule, e.Name, by, how, e.Breaks)
	if r.verbose || !caught {
		fmt.Println(out)
	}
}

var (
	steps = regexp.MustCompile(`(?m)^in (\d+) steps`)
	total = regexp.MustCompile(`(?m)^\S+ +(\d+) +(\d+) .* BROKEN$`)
)

// explored is what the explorer says of its work.
func explored(out string) string {
	s, t := steps.FindStringSubmatch(out), total.FindStringSubmatch(out)
	if s == nil || t == nil {
		return "nothing found"
	}
	return fmt.Sprintf("%s steps, %s transitions", s[1], t[2])
}
