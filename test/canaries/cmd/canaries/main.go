// Command canaries plants each bug of test/canaries in turn and shows that those
// who must catch it do, and after how much work. It is started in the root of the
// tree. It fails if a bug is not caught by one who must, or does not fit the code
// any more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/test/canaries"
)

type options struct {
	dir, run string
	verbose  bool
	parallel int
	limit    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "test/canaries", "the folder of the edits")
	flag.StringVar(&o.run, "run", "", "only the edits whose name matches this `pattern`")
	flag.BoolVar(&o.verbose, "v", false, "print what the checkers say")
	flag.IntVar(&o.parallel, "parallel", max(runtime.NumCPU(), 1), "how many bugs are shown at once")
	flag.DurationVar(&o.limit, "limit", 4*time.Minute, "how long one checker may take for one bug")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := runAll(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "canaries:", err)
		os.Exit(1)
	}
}

// shown is what came of one edit.
type shown struct {
	catches []canaries.Catch
	err     error
}

func runAll(ctx context.Context, o *options) (err error) {
	wanted, err := regexp.Compile(o.run)
	if err != nil {
		return fmt.Errorf("choose among the edits: %w", err)
	}
	all, err := canaries.Load(o.dir)
	if err != nil {
		return err
	}
	root, err := filepath.Abs(".")
	if err != nil {
		return fmt.Errorf("find the tree: %w", err)
	}
	r, edits, err := canaries.NewRunner(root, all, o.limit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	edits = slices.DeleteFunc(edits, func(e canaries.Edit) bool { return !wanted.MatchString(e.Name) })
	began, missed := time.Now(), 0
	fmt.Printf("%-4s  %-30s  %-16s  %-19s  %8s  %5s  %5s  %6s  %s\n", "rule", "canary", "caught by", "checker", "events", "runs",
		"seed", "s", "what it breaks")
	for i, s := range show(ctx, r, edits, o.parallel) {
		if !printRow(&edits[i], s, o.verbose) {
			missed++
		}
	}
	fmt.Printf("%d planted bugs in %.0f s\n", len(edits), time.Since(began).Seconds())
	if missed > 0 {
		return fmt.Errorf("%d planted bugs were not caught", missed)
	}
	return ctx.Err()
}

// show shows the edits, several at once, and yields what came of them in their
// order.
func show(ctx context.Context, r *canaries.Runner, edits []canaries.Edit, parallel int) func(yield func(int, shown) bool) {
	return func(yield func(int, shown) bool) {
		ctx, cancel := context.WithCancel(ctx)
		next := make(chan int)
		results := make([]chan shown, len(edits))
		for i := range results {
			results[i] = make(chan shown, 1)
		}
		var workers sync.WaitGroup
		defer workers.Wait()
		defer cancel()
		for range parallel {
			workers.Go(func() {
				for i := range next {
					catches, err := r.Show(ctx, &edits[i])
					results[i] <- shown{catches, err}
				}
			})
		}
		workers.Go(func() {
			defer close(next)
			for i := range edits {
				select {
				case next <- i:
				case <-ctx.Done():
					return
				}
			}
		})
		for i := range edits {
			select {
			case s := <-results[i]:
				if !yield(i, s) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// print prints the rows of an edit and reports whether everybody caught it who
// must.
func printRow(e *canaries.Edit, s shown, verbose bool) bool {
	ok := s.err == nil && len(s.catches) > 0
	for _, c := range s.catches {
		checker := c.Checker
		if !c.Caught {
			ok, checker = false, "NOT CAUGHT"
		}
		fmt.Printf("%4d  %-30s  %-16s  %-19s  %8s  %5s  %5s  %6.1f  %s\n", e.Rule, e.Name, c.By, checker, number(c.Events),
			number(c.Runs), number(c.Seed), c.Took.Seconds(), e.Breaks)
		if verbose || !c.Caught {
			fmt.Println(c.Output)
		}
	}
	if s.err != nil {
		fmt.Printf("%4d  %-30s  %v\n", e.Rule, e.Name, s.err)
	}
	return ok
}

// number leaves out what does not apply.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
