//go:build robust

package robustness

import (
	"errors"
	"flag"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/canaries"
)

var (
	canary       = flag.String("robust.canary", "r09-early-ack", "bug of test/canaries that TestCanary plants in the daemons")
	canaryRounds = flag.Int("robust.canary-rounds", 10, "number of rounds in which TestCanary must notice it")
)

// TestCanary runs rounds against daemons with a planted bug, and with their own
// assertions off, until a check of what clients saw or of what is on the disks
// notices. Anything else that fails is no proof.
func TestCanary(t *testing.T) {
	binaries := binariesFor(t, "-overlay", overlayOf(t, *canary))
	chosen, err := chooseFaults(faults, *only)
	if err != nil {
		t.Fatal(err)
	}
	first, began := firstSeed(), time.Now()
	ctx := untilInterrupted(t)
	pauses := &table{}
	for i := range *canaryRounds {
		seed := first + uint64(i)
		show("%s, round %d: seed %d\n", *canary, i+1, seed)
		err := runRound(ctx, options{
			stageOptions: stageOptions{binaries: binaries, dir: roundDir(i), nodes: *nodes},
			seed:         seed, length: *length, faults: chosen,
			keep: evidenceDir(seed), table: pauses, printf: show,
		})
		switch {
		case ctx.Err() != nil:
			t.Fatalf("interrupted: %v", err)
		case errors.Is(err, errLost), errors.Is(err, errDiffers), errors.Is(err, block.ErrCorrupt):
			show("%s was caught in round %d, after %d faults and %.0f s: %.400v\n",
				*canary, i+1, pauses.counted(countFaults), time.Since(began).Seconds(), err)
			return
		case err != nil:
			t.Logf("seed %d failed without a proof: %v", seed, err)
		}
	}
	t.Errorf("%s was not caught in %d rounds", *canary, *canaryRounds)
}

// overlayOf writes the planted bug where go build finds it.
func overlayOf(t *testing.T, name string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all, err := canaries.Load(filepath.Join(root, "test", "canaries"))
	if err != nil {
		t.Fatal(err)
	}
	var chosen []canaries.Edit
	for _, e := range all {
		if e.Name == name || e.Name == canaries.AssertionsOff {
			chosen = append(chosen, e)
		}
	}
	if len(chosen) != 2 {
		t.Fatalf("bug %q is not in test/canaries", name)
	}
	path, err := canaries.Overlay(root, t.TempDir(), chosen...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
