package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag     = flag.Uint64("sim.seed", 0, "run this one seed; 0 runs many")
	stepsFlag    = flag.Int("sim.steps", DefaultSteps, "events of each run before everything is healed")
	durationFlag = flag.Duration("sim.duration", 2*time.Minute, "how long TestSim goes on with new seeds")
	eventsFlag   = flag.Int("sim.events", 0, "how many events TestSim plays, however long it takes; 0 goes by the duration")
	workersFlag  = flag.Int("sim.workers", 1, "how many seeds TestSim runs at once")
	firstFlag    = flag.Uint64("sim.first", 1, "the seed that TestSim begins with")
	runsFlag     = flag.Int("sim.runs", 0, "the number of seeds that TestSim runs, however long it takes; 0 goes by the duration")
	traceFlag    = flag.String("sim.trace", "", "a file for the whole trace of a single seed")
)

// run runs a world and fails the test with what reproduces it.
func run(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Violation != nil {
		t.Fatal(r.Report(o))
	}
	return r
}

// TestSim runs seeds for a bounded time, or until so many events were played, or
// the one seed asked for. A set of runs that never took an expected path fails.
func TestSim(t *testing.T) {
	t.Parallel()
	if *huntFlag > 0 {
		hunt(t, *firstFlag, *huntFlag, *stepsFlag)
		return
	}
	if *seedFlag != 0 {
		total := NewTally()
		r := runTraced(t, SeedOptions(*seedFlag, *stepsFlag))
		total.Add(r)
		t.Logf("seed %d: trace %016x\n%v", *seedFlag, r.Hash, total)
		return
	}
	b := &batch{begin: time.Now(), next: *firstFlag, total: NewTally(), logf: t.Logf}
	var workers sync.WaitGroup
	for range max(*workersFlag, 1) {
		workers.Go(b.work)
	}
	workers.Wait()
	if b.failure != "" {
		t.Fatal(b.failure)
	}
	t.Logf("seeds %d to %d: %v", *firstFlag, b.next-1, b.total)
	t.Log(b.total.Totals(time.Since(b.begin)))
	// Fewer runs may miss a rare path by chance.
	const enough = 400
	if missing := b.total.Missing(); len(missing) > 0 && b.total.Runs >= enough {
		t.Errorf("never taken in %d runs: %s", b.total.Runs, strings.Join(missing, ", "))
	}
}

// batch is a set of runs that some workers share.
type batch struct {
	begin time.Time
	logf  func(format string, args ...any)

	mu      sync.Mutex
	next    uint64
	total   *Tally
	failure string
}

// take gives a worker its next seed; false when there is nothing more to do.
func (b *batch) take() (seed uint64, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failure != "":
	case *runsFlag > 0:
		more = b.next < *firstFlag+uint64(*runsFlag)
	case *eventsFlag > 0:
		more = b.total.Steps < *eventsFlag
	default:
		more = time.Since(b.begin) < *durationFlag
	}
	seed = b.next
	if more {
		b.next++
	}
	return seed, more
}

// milestone is after how many events a long batch says how far it is.
const milestone = 10_000_000

// work runs seeds until there are none left.
func (b *batch) work() {
	for seed, more := b.take(); more; seed, more = b.take() {
		o := SeedOptions(seed, *stepsFlag)
		r, err := Run(o)
		b.mu.Lock()
		switch {
		case err != nil:
			b.failure = err.Error()
		case r.Violation != nil:
			b.failure = r.Report(o)
		default:
			before := b.total.Steps
			if b.total.Add(r); before/milestone != b.total.Steps/milestone {
				b.logf("%s", b.total.Totals(time.Since(b.begin)))
			}
		}
		b.mu.Unlock()
	}
}

// runTraced runs one seed and writes its trace to the file asked for.
func runTraced(t *testing.T, o Options) *Result {
	t.Helper()
	if *traceFlag != "" {
		f, err := os.Create(*traceFlag)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		o.Trace = f
	}
	return run(t, o)
}

// TestSameSeedSameTrace holds the simulator to its word: within a process, and in
// another one.
func TestSameSeedSameTrace(t *testing.T) {
	const steps = 3000
	for _, seed := range []uint64{3, 4, 5} {
		a, b := run(t, SeedOptions(seed, steps)), run(t, SeedOptions(seed, steps))
		if a.Hash != b.Hash || a.Steps != b.Steps {
			t.Errorf("seed %d: trace %016x in %d steps, then %016x in %d", seed, a.Hash, a.Steps, b.Hash, b.Steps)
		}
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSim$", "-test.v",
			fmt.Sprintf("-sim.seed=%d", seed), fmt.Sprintf("-sim.steps=%d", steps))
		out, err := again.CombinedOutput()
		if want := fmt.Appendf(nil, "trace %016x", a.Hash); err != nil || !bytes.Contains(out, want) {
			t.Errorf("seed %d in another process: %v, want %s in:\n%s", seed, err, want, out)
		}
	}
	if a, b := run(t, SeedOptions(6, steps)), run(t, SeedOptions(7, steps)); a.Hash == b.Hash {
		t.Error("two seeds gave one trace")
	}
}
