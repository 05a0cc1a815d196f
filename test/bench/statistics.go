package main

import (
	"math"
	"slices"
)

// spread is what several values of one thing come to.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf is the spread of at least one value; of none it is zero.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	median := sorted[n/2]
	if n%2 == 0 {
		median = (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return spread{Median: median, Min: sorted[0], Max: sorted[n-1]}
}

// percent is how far the extremes lie apart, in percent of the median.
func (s spread) percent() float64 {
	if s.Median == 0 {
		return 0
	}
	return 100 * (s.Max - s.Min) / math.Abs(s.Median)
}
