package sim

import (
	"fmt"
	"slices"
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
func (t *Tally) Missing() []string {
	var missing []string
	for _, name := range expectedPaths() {
		if t.paths.counts[name] == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// columns is the number of columns of each part of the table.
const columns = 3

// String is a table of how often each fault and each path was taken.
func (t *Tally) String() string {
	var faults, taken []string
	guards := make(map[string]bool)
	for _, r := range rules() {
		for _, name := range r.paths {
			guards[name] = true
		}
	}
	for name := range t.paths.counts {
		if guards[name] {
			continue
		}
		if strings.HasPrefix(name, faultPrefix) {
			faults = append(faults, name)
		} else {
			taken = append(taken, name)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs, %d events, %d requests", t.Runs, t.Steps, t.Operations)
	if t.GaveUp > 0 {
		fmt.Fprintf(&b, " (%d sectors had too many possible histories to be judged to the end)", t.GaveUp)
	}
	b.WriteString("\n\nfaults\n")
	t.part(&b, faults)
	b.WriteString("\nguards of the rules\n")
	t.rules(&b)
	b.WriteString("\nother paths\n")
	t.part(&b, taken)
	return b.String()
}

// rules prints how often the guards of each rule decided something.
func (t *Tally) rules(b *strings.Builder) {
	for _, r := range rules() {
		fmt.Fprintf(b, "%5d  ", r.rule)
		for i, name := range r.paths {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(b, "%s %d", name, t.paths.counts[name])
		}
		b.WriteByte('\n')
	}
}

// part prints names with their counts, in columns that are read downwards.
func (t *Tally) part(b *strings.Builder, names []string) {
	slices.Sort(names)
	rows := (len(names) + columns - 1) / columns
	for row := range rows {
		for at := row; at < len(names); at += rows {
			name := strings.TrimPrefix(names[at], faultPrefix)
			fmt.Fprintf(b, "%9d  %-36s", t.paths.counts[names[at]], name)
		}
		b.WriteByte('\n')
	}
}
