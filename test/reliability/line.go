package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// line is one measurement, which gives one row of the table or several.
type line struct {
	name string
	// samples is how many are enough.
	samples int
	measure func(ctx context.Context, r *runner) ([]row, error)
}

// lines are all measurements, in the order of the table.
func lines() []line {
	return []line{
		{"replica-dies", 100, replicaDies},
		{"leader-dies", 100, leaderDies},
		{"replica-vanishes", 100, replicaVanishes},
		{"leader-vanishes", 100, leaderVanishes},
		{"attach", 100, attachElsewhere},
		{"engine-restart", 100, engineRestarts},
		{"busy", 1, busy},
		{"outage", 3, outage},
		{"resync", 5, resync},
		{"foreground", 3, foreground},
		{"snapshot", 100, snapshots},
		{"snapshot-delete", 10, snapshotDelete},
		{"create", 20, createLarge},
	}
}

func names() []string {
	var all []string
	for _, l := range lines() {
		all = append(all, l.name)
	}
	return all
}

// choose finds lines by their names, separated by commas; none means all.
func choose(only string) ([]line, error) {
	if only == "" {
		return lines(), nil
	}
	var chosen []line
	for _, name := range strings.Split(only, ",") {
		i := slices.Index(names(), name)
		if i < 0 {
			return nil, fmt.Errorf("line %q: %w", name, block.ErrNotFound)
		}
		chosen = append(chosen, lines()[i])
	}
	return chosen, nil
}
