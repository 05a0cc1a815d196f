//go:build robust

package robustness

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

var (
	rounds   = flag.Int("robust.rounds", 2, "number of rounds")
	seed     = flag.Uint64("robust.seed", 0, "seed of the first round; 0 draws one by the clock")
	length   = flag.Duration("robust.length", 40*time.Second, "how long faults are made in a round")
	only     = flag.String("robust.only", "", "make only faults of these names, separated by commas")
	evidence = flag.String("robust.evidence", filepath.Join(os.TempDir(), "holdfast-robustness"), "folder for what explains a failure")
)

// binariesFor builds the daemons.
func binariesFor(t *testing.T) harness.Binaries {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces and mounts need root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	binaries, err := harness.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return binaries
}

func show(format string, args ...any) { fmt.Printf(format, args...) }

// TestRounds is the long test.
func TestRounds(t *testing.T) {
	binaries := binariesFor(t)
	chosen, err := chooseFaults(*only)
	if err != nil {
		t.Fatal(err)
	}
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano()) % 1_000_000
	}
	pauses := &table{}
	failed := 0
	for i := range *rounds {
		seed := first + uint64(i)
		show("round %d of %d: seed %d\n", i+1, *rounds, seed)
		err := runRound(t.Context(), options{
			seed: seed, length: *length, binaries: binaries, faults: chosen,
			dir:   filepath.Join("/var/tmp", fmt.Sprintf("holdfast-r%d-%d", os.Getpid(), i)),
			keep:  filepath.Join(*evidence, fmt.Sprintf("seed-%d", seed)),
			table: pauses, printf: show,
		})
		if err != nil {
			failed++
			t.Errorf("seed %d: %v", seed, err)
			show("round %d FAILED: seed %d: %.2000v\n", i+1, seed, err)
		}
	}
	show("\n%v\n%d of %d rounds failed\n", pauses, failed, *rounds)
}
