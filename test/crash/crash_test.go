package crash

import (
	"flag"
	"testing"
	"time"
)

// The defaults are for every day; `make crash` tries what the package comment says.
var (
	few     = flag.Int("crash.few", 3, "up to how many lossy things all subsets are tried")
	samples = flag.Int("crash.samples", 4, "how many random subsets are tried of more")
	each    = flag.Int("crash.each", 3, "how many of more are lost, or kept, alone; 0: all")
	seed    = flag.Uint64("crash.seed", 1, "the first seed of requests by chance")
	seeds   = flag.Int("crash.seeds", 1, "how many seeds of requests by chance")
	torn    = flag.Bool("crash.torn", false, "tear every single write, too")
)

// TestEverySync cuts the power at every sync of the scenario.
func TestEverySync(t *testing.T) {
	began := time.Now()
	r, err := Run(Bounds{Few: *few, Samples: *samples, Each: *each, Torn: *torn}, func() Faults { return Faults{} })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d syncs %v, %d crash states, %.0f s", r.Points(), r.Moments, r.States, time.Since(began).Seconds())
	if r.Failure != nil {
		t.Fatalf("crash state %d: %v", r.States, r.Failure)
	}
	for _, kind := range []string{"data file", ".log", ".sst", "MANIFEST", "disk", "meta"} {
		if r.Moments[kind] == 0 {
			t.Errorf("no sync of %s", kind)
		}
	}
}

// TestWander cuts the power at every sync of requests by chance.
func TestWander(t *testing.T) {
	states := 0
	for n := range uint64(*seeds) {
		r, err := Wander(*seed+n, 150, Bounds{Few: 2, Samples: 4, Each: 2})
		if err != nil {
			t.Fatalf("seed %d: %v", *seed+n, err)
		}
		if states += r.States; r.Failure != nil {
			t.Fatalf("seed %d, crash state %d: %v", *seed+n, states, r.Failure)
		}
	}
	t.Logf("%d seeds, %d crash states", *seeds, states)
}
