package sim

import (
	"fmt"
	"strings"
)

// Tally sums up a set of runs.
type Tally struct {
	Runs, Steps, GaveUp int
	Operations          uint64
	paths               *paths
}

// NewTally is a tally of no runs.
func NewTally() *Tally { return &Tally{paths: newPaths()} }

// Add counts a run.
func (t *Tally) Add(r *Result) {
	t.Runs++
	t.Steps += r.Steps
	t.Operations += r.Operations
	t.GaveUp += r.GaveUp
	t.paths.add(r.paths)
}

// Missing lists the faults and paths that the runs should have taken and none
// did.
func (t *Tally) Missing() []string { return t.paths.missing(expectedPaths()) }

// String is a table of how often each fault and each path was taken.
func (t *Tally) String() string {
	var b strings.Builder
	t.paths.print(&b)
	fmt.Fprintf(&b, "%d runs, %d steps, %d requests, %d sectors not judged to the end\n", t.Runs, t.Steps, t.Operations,
		t.GaveUp)
	return b.String()
}
