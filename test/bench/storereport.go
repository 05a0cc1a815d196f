package main

import (
	"fmt"
	"io"
)

// storeReport is what a run of the store's benchmark came to; its JSON is for
// scripts.
type storeReport struct {
	// Version is that of this form.
	Version        int           `json:"version"`
	Host           hostFacts     `json:"host"`
	DiskIO         string        `json:"diskIO"`
	Rounds         int           `json:"rounds"`
	RuntimeSeconds float64       `json:"runtimeSeconds"`
	SizeBytes      int64         `json:"sizeBytes"`
	OthersPercent  spread        `json:"othersCPUPercent"`
	Results        []storeResult `json:"results"`
}

// storeResult is one workload on one contender over all rounds.
type storeResult struct {
	Workload  workload `json:"workload"`
	Contender string   `json:"contender"`
	Title     string   `json:"title"`
	// Rate is in operations each second.
	Rate spread `json:"operationsPerSecond"`
	// Ratio is that of the store's rate to the better of the file's in the same
	// round; nil for the file.
	Ratio *spread `json:"ratio,omitempty"`
	P50   spread  `json:"p50Microseconds"`
	P99   spread  `json:"p99Microseconds"`
	// CPU is that of the whole process, load included, for one operation.
	CPU spread `json:"cpuMicroseconds"`
	// Allocations are for one operation; nil for fio.
	Allocations *spread `json:"allocations,omitempty"`
}

// summarizeStore condenses the measurements of all rounds.
func summarizeStore(host hostFacts, o options, all []measurement) storeReport {
	r := storeReport{
		Version: 1, Host: host, DiskIO: string(o.Engine), Rounds: o.Rounds,
		RuntimeSeconds: o.Runtime.Seconds(), SizeBytes: o.SizeBytes, OthersPercent: othersPercent(host, all),
	}
	for _, w := range o.Workloads {
		for _, c := range storeTitles {
			of := filter(all, w.Name, c.name)
			if len(of) == 0 {
				continue
			}
			result := condenseStore(w, of)
			result.Contender, result.Title = c.name, c.title
			if c.name != fioFile {
				result.Allocations = allocations(of)
			}
			file := best(filter(all, w.Name, fioFile), filter(all, w.Name, deviceFile))
			ratios := ratiosOf(of, file, rateOf)
			if c.name == ofStore && len(ratios) > 0 {
				ratio := spreadOf(ratios)
				result.Ratio = &ratio
			}
			r.Results = append(r.Results, result)
		}
	}
	return r
}

func condenseStore(w workload, of []measurement) storeResult {
	return storeResult{
		Workload: w,
		Rate:     spreadOf(values(of, rateOf)),
		P50:      spreadOf(values(of, func(m measurement) float64 { return microseconds(m.P50) })),
		P99:      spreadOf(values(of, func(m measurement) float64 { return microseconds(m.P99) })),
		CPU: spreadOf(values(of, func(m measurement) float64 {
			return microseconds(m.ProcessCPU) / float64(m.Operations)
		})),
	}
}

// best has, of each round that both have, the measurement with the higher rate.
func best(a, b []measurement) []measurement {
	var list []measurement
	for _, x := range a {
		for _, y := range b {
			switch {
			case x.Round != y.Round:
			case x.Rate > y.Rate:
				list = append(list, x)
			default:
				list = append(list, y)
			}
		}
	}
	return list
}

// write writes the report in one of its forms.
func (r storeReport) write(w io.Writer, form string) error {
	return writeReport(w, form, r, r.sheet())
}

// storeColumns head the figures of a row.
var storeColumns = [...]string{"rate", "spread", "/ file", "target", "p50 us", "p99 us", "CPU us/op", "allocs/op"}

const storeLegend = `rate: operations or MiB each second, the median of the rounds; spread: between the
slowest and the fastest round, of the median; / file: ratio to the better of the two
above in the same round, median; CPU: of the process, its load included; us:
microseconds.
`

func (r storeReport) sheet() sheet {
	h := r.Host
	t := sheet{legend: storeLegend, columns: storeColumns[:], facts: []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("%s on %s; %s; disk I/O: %s", h.FileSystem, h.Disk, h.Fio, r.DiskIO),
		fmt.Sprintf("%d x %.0f s for each measurement, %d MiB; CPU used by others: %s",
			r.Rounds, r.RuntimeSeconds, r.SizeBytes>>20, others(r.OthersPercent)),
	}}
	for _, result := range r.Results {
		t.rows = append(t.rows, sheetRow{group: result.Workload.Title, title: result.Title, cells: result.cells()})
	}
	return t
}

// cells are the figures of a row, in the order of storeColumns.
func (r storeResult) cells() []string {
	cells := []string{rate(r.Workload, r.Rate), fmt.Sprintf("%.0f%%", r.Rate.percent()), "", ""}
	if r.Ratio != nil {
		cells[2], cells[3] = fmt.Sprintf("%.2f", r.Ratio.Median), fmt.Sprintf("%.2f", r.Workload.Target)
	}
	return append(cells, fmt.Sprintf("%.0f", r.P50.Median), fmt.Sprintf("%.0f", r.P99.Median),
		fmt.Sprintf("%.1f", r.CPU.Median), spreadCell(r.Allocations, "%.3f"))
}
