package main

import (
	"math"
	"slices"
)

// soundSamples is how many samples a 99th percentile takes. Of fewer, it would be the
// maximum under another name.
const soundSamples = 100

// percentile is the nearest rank: the least value that so many percent of all values
// do not exceed. There is at least one.
func percentile(values []float64, percent float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
