package main

import (
	"errors"
	"fmt"
	"time"
)

// scrubReport is what a run of bench scrub came to.
type scrubReport struct {
	Host           hostFacts `json:"host"`
	Workload       workload  `json:"workload"`
	Rounds         int       `json:"rounds"`
	RuntimeSeconds float64   `json:"runtimeSeconds"`
	SizeBytes      int64     `json:"sizeBytes"`
	// Full is what the volume reaches, Rate what was put on it, operations each second.
	Full          float64   `json:"fullOperationsPerSecond"`
	Rate          int       `json:"operationsPerSecond"`
	OthersPercent spread    `json:"othersCPUPercent"`
	Without       scrubSide `json:"without"`
	Beside        scrubSide `json:"beside"`
	// Ratio is that of the 99th percentiles within a round.
	Ratio spread `json:"ratio"`
}

// scrubSide is one side of the comparison over all rounds.
type scrubSide struct {
	Rate spread `json:"operationsPerSecond"`
	P50  spread `json:"p50Microseconds"`
	P99  spread `json:"p99Microseconds"`
	// Scrubbed is how fast the volume was verified, bytes each second.
	Scrubbed spread `json:"scrubbedBytesPerSecond"`
}

// condense summarizes the measurements of all rounds.
func (r *scrubReport) condense(all []scrubbed) {
	var plain []measurement
	var sides [2][]scrubbed
	for _, m := range all {
		plain = append(plain, m.measurement)
		i := 0
		if m.Beside {
			i = 1
		}
		sides[i] = append(sides[i], m)
	}
	r.OthersPercent = othersPercent(r.Host, plain)
	r.Without, r.Beside = condenseScrub(sides[0]), condenseScrub(sides[1])
	var ratios []float64
	for _, without := range sides[0] {
		for _, beside := range sides[1] {
			if without.Round == beside.Round {
				ratios = append(ratios, float64(beside.P99)/float64(without.P99))
			}
		}
	}
	r.Ratio = spreadOf(ratios)
}

func condenseScrub(of []scrubbed) scrubSide {
	each := func(value func(scrubbed) float64) spread {
		var list []float64
		for _, m := range of {
			list = append(list, value(m))
		}
		return spreadOf(list)
	}
	microseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return scrubSide{
		Rate:     each(func(m scrubbed) float64 { return m.Rate }),
		P50:      each(func(m scrubbed) float64 { return microseconds(m.P50) }),
		P99:      each(func(m scrubbed) float64 { return microseconds(m.P99) }),
		Scrubbed: each(func(m scrubbed) float64 { return float64(m.Verified) / m.Elapsed.Seconds() }),
	}
}

// judge reports the target if it is missed, and a load that was not the one promised.
func (r scrubReport) judge() error {
	var errs []error
	if r.Ratio.Median > scrubTarget {
		errs = append(errs, fmt.Errorf("the 99th percentile beside a scrub is %.2f times that without, more than %.0f", r.Ratio.Median, scrubTarget))
	}
	for _, side := range []scrubSide{r.Without, r.Beside} {
		if side.Rate.Median < 0.95*float64(r.Rate) {
			errs = append(errs, fmt.Errorf("of %d writes a second %.0f were done: latency says little", r.Rate, side.Rate.Median))
		}
	}
	return errors.Join(errs...)
}

// scrubColumns head the figures of a row.
var scrubColumns = [...]string{"rate", "p50 us", "p99 us", "p99 spread", "scrub MiB/s", "/ without", "ratios", "target"}

const scrubLegend = `Half the rate that the volume reaches, without and beside a scrub that was seen to run
all the while. Medians of the rounds; spread: between the lowest and the highest, of
the median; / without: ratio of the 99th percentiles of a round.
`

func (r scrubReport) sheet() sheet {
	h := r.Host
	t := sheet{legend: scrubLegend, columns: scrubColumns[:], facts: []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("%s on %s; %s", h.FileSystem, h.Disk, h.Fio),
		fmt.Sprintf("%d x %.0f s for each measurement, %d MiB, %d of %.0f writes a second; CPU used by others: %s",
			r.Rounds, r.RuntimeSeconds, r.SizeBytes>>20, r.Rate, r.Full, others(r.OthersPercent)),
	}}
	cells := func(s scrubSide) []string {
		return []string{
			fmt.Sprintf("%.0f", s.Rate.Median), fmt.Sprintf("%.0f", s.P50.Median), fmt.Sprintf("%.0f", s.P99.Median), fmt.Sprintf("%.0f%%", s.P99.percent()),
		}
	}
	group := r.Workload.Title + ", half load, 3 replicas"
	t.rows = []sheetRow{
		{group: group, title: "without a scrub", cells: append(cells(r.Without), "", "", "", "")},
		{group: group, title: "beside a scrub", cells: append(cells(r.Beside),
			fmt.Sprintf("%.0f", r.Beside.Scrubbed.Median/(1<<20)), fmt.Sprintf("%.2f", r.Ratio.Median),
			fmt.Sprintf("%.2f to %.2f", r.Ratio.Min, r.Ratio.Max), fmt.Sprintf("%.2f", scrubTarget))},
	}
	return t
}
