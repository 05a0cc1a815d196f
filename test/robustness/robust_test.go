//go:build robust

package robustness

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

var (
	rounds   = flag.Int("robust.rounds", 2, "number of rounds")
	seed     = flag.Uint64("robust.seed", 0, "seed of the first round; 0 draws one by the clock")
	length   = flag.Duration("robust.length", 35*time.Second, "how long faults are made in a round")
	nodes    = flag.Int("robust.nodes", 0, "number of nodes, 3 to 5; 0 draws it for each round")
	built    = flag.String("robust.binaries", "", "folder with built daemons; empty builds them")
	only     = flag.String("robust.only", "", "make only faults of these names, separated by commas")
	evidence = flag.String("robust.evidence", filepath.Join(os.TempDir(), "holdfast-robustness"), "folder for what explains a failure")
)

// binariesFor builds the daemons, with these flags of go build.
func binariesFor(t *testing.T, flags ...string) harness.Binaries {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces and mounts need root")
	}
	if *built != "" && len(flags) == 0 {
		return harness.BinariesIn(*built)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	binaries, err := harness.Build(ctx, t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return binaries
}

func show(format string, args ...any) { fmt.Printf(format, args...) }

// TestRounds is the long test.
func TestRounds(t *testing.T) {
	binaries := binariesFor(t)
	chosen, err := chooseFaults(faults, *only)
	if err != nil {
		t.Fatal(err)
	}
	first, began := firstSeed(), time.Now()
	ctx := untilInterrupted(t)
	pauses := &table{}
	failed := 0
	for i := range *rounds {
		if ctx.Err() != nil {
			t.Fatal("interrupted")
		}
		seed := first + uint64(i)
		show("round %d of %d: seed %d\n", i+1, *rounds, seed)
		err := runRound(ctx, options{
			stageOptions: stageOptions{binaries: binaries, dir: roundDir(i), nodes: *nodes},
			seed:         seed, length: *length, faults: chosen,
			keep: evidenceDir(seed), table: pauses, printf: show,
		})
		if err != nil {
			failed++
			t.Errorf("seed %d: %v", seed, err)
			show("round %d FAILED: seed %d: %.2000v\n", i+1, seed, err)
		}
	}
	show("\n%v%-50s %8d\n%-50s %8d\n%-50s %8.0f\n", pauses, "rounds", *rounds, "rounds that failed", failed,
		"seconds for all of it", time.Since(began).Seconds())
}

// untilInterrupted lets a round that is interrupted clean up.
func untilInterrupted(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	return ctx
}

// firstSeed is the one asked for, or one that the clock draws.
func firstSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(time.Now().UnixNano()) % 1_000_000
}

// roundDir is on a disk, and of a name that no other test has.
func roundDir(i int) string {
	return filepath.Join("/var/tmp", fmt.Sprintf("holdfast-r%d-%d", os.Getpid(), i))
}

func evidenceDir(seed uint64) string { return filepath.Join(*evidence, fmt.Sprintf("seed-%d", seed)) }
