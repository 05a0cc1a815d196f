package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag     = flag.Uint64("sim.seed", 0, "run this one seed; 0 runs many")
	stepsFlag    = flag.Int("sim.steps", DefaultSteps, "events of each run before everything is healed")
	durationFlag = flag.Duration("sim.duration", 10*time.Second, "how long TestSim goes on with new seeds")
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

// TestSim runs one seed after the other for a bounded time, or the one asked
// for. A set of runs that never took an expected path fails.
func TestSim(t *testing.T) {
	if *huntFlag > 0 {
		hunt(t, *firstFlag, *huntFlag, *stepsFlag)
		return
	}
	total := NewTally()
	if *seedFlag != 0 {
		r := runTraced(t, SeedOptions(*seedFlag, *stepsFlag))
		total.Add(r)
		t.Logf("seed %d: trace %016x\n%v", *seedFlag, r.Hash, total)
		return
	}
	more := func(begin time.Time) bool { return time.Since(begin) < *durationFlag }
	if *runsFlag > 0 {
		more = func(time.Time) bool { return total.Runs < *runsFlag }
	}
	for begin := time.Now(); more(begin); {
		total.Add(run(t, SeedOptions(*firstFlag+uint64(total.Runs), *stepsFlag)))
	}
	t.Logf("seeds %d to %d: %v", *firstFlag, *firstFlag+uint64(total.Runs)-1, total)
	// Fewer runs may miss a rare path by chance.
	const enough = 200
	if missing := total.Missing(); len(missing) > 0 && total.Runs >= enough {
		t.Errorf("never taken in %d runs: %s", total.Runs, strings.Join(missing, ", "))
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
