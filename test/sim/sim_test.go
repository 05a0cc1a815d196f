package sim

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag     = flag.Uint64("sim.seed", 0, "run this one seed; 0 runs many")
	stepsFlag    = flag.Int("sim.steps", DefaultSteps, "events of each run before everything is healed")
	durationFlag = flag.Duration("sim.duration", 30*time.Second, "how long TestSim goes on with new seeds")
	firstFlag    = flag.Uint64("sim.first", 1, "the seed that TestSim begins with")
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
	if *seedFlag != 0 {
		o := SeedOptions(*seedFlag, *stepsFlag)
		if *traceFlag != "" {
			f, err := os.Create(*traceFlag)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			o.Trace = f
		}
		r := run(t, o)
		t.Logf("seed %d: %d steps, %d requests, trace %016x", o.Seed, r.Steps, r.Operations, r.Hash)
		return
	}
	total := NewTally()
	for begin := time.Now(); time.Since(begin) < *durationFlag; {
		total.Add(run(t, SeedOptions(*firstFlag+uint64(total.Runs), *stepsFlag)))
	}
	t.Logf("\n%v", total)
	const enough = 20
	if missing := total.Missing(); len(missing) > 0 && total.Runs >= enough {
		t.Errorf("never taken in %d runs: %s", total.Runs, strings.Join(missing, ", "))
	}
}

// TestSameSeedSameTrace holds the simulator to its word.
func TestSameSeedSameTrace(t *testing.T) {
	for _, seed := range []uint64{3, 4, 5} {
		a, b := run(t, SeedOptions(seed, 4000)), run(t, SeedOptions(seed, 4000))
		if a.Hash != b.Hash || a.Steps != b.Steps {
			t.Errorf("seed %d: trace %016x in %d steps, then %016x in %d", seed, a.Hash, a.Steps, b.Hash, b.Steps)
		}
	}
	if a, b := run(t, SeedOptions(6, 2000)), run(t, SeedOptions(7, 2000)); a.Hash == b.Hash {
		t.Error("two seeds gave one trace")
	}
}
