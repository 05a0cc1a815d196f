//go:build robust

package robustness

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestWeather is a round of bad weather, for a guest: test/e2e runs it there.
func TestWeather(t *testing.T) {
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(cpus, []byte("User Mode Linux")) {
		t.Skip("it turns the clock of the whole machine: make e2e runs it in a guest")
	}
	chosen, err := chooseFaults(weathers, *only)
	if err != nil {
		t.Fatal(err)
	}
	pauses := &table{}
	err = runRound(t.Context(), options{
		stageOptions: stageOptions{binaries: binariesFor(t), dir: roundDir(0), nodes: replicas, guest: true},
		seed:         firstSeed(), faults: chosen,
		keep: filepath.Join(*evidence, "weather"), table: pauses, printf: show,
	})
	if err != nil {
		t.Error(err)
	}
	show("\n%v", pauses)
}
