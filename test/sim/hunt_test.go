package sim

import (
	"flag"
	"testing"
)

var huntFlag = flag.Int("sim.hunt", 0, "let TestSim try that many seeds, with faults close together, until an outside checker finds something")

// huntOptions are those of a seed with trouble closer together, in runs that are
// short: what is hunted is a planted bug (test/canaries).
func huntOptions(seed uint64, steps int) Options {
	o := SeedOptions(seed, steps)
	o.FaultInterval, o.FaultLength, o.Temptation = 150*millisecond, 15, 10
	if seed%2 == 0 {
		o.Shape = DefaultShape()
	}
	return o
}

// hunt runs seed after seed until a checker finds something, and fails with it.
// An assertion of the code under test sees a bug from within; this is about those
// who look from outside.
func hunt(t *testing.T, first uint64, runs, steps int) {
	t.Helper()
	events := 0
	for n := range runs {
		o := huntOptions(first+uint64(n), steps)
		r, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		events += r.Steps
		if found := r.Violation; found != nil && found.Checker != assertion {
			t.Fatalf("caught by %s: seed %d, %d events, %d in all %d runs\n%v", found.Checker, o.Seed, r.Steps, events, n+1, found)
		}
	}
	t.Logf("not caught: %d events in %d runs", events, runs)
}
