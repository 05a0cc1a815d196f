package main

import (
	"fmt"
	"io"
)

// frontendReport is what a run of the frontend's benchmark came to; its JSON is for
// scripts.
type frontendReport struct{ report }

// summarizeFrontend condenses the measurements of all rounds.
func summarizeFrontend(host hostFacts, o options, all []measurement) frontendReport {
	r := frontendReport{newReport(host, o, all)}
	for _, w := range o.Workloads {
		for _, c := range frontendTitles {
			of := filter(all, w.Name, c.name)
			if len(of) == 0 {
				continue
			}
			one := condense(w, c, of)
			if c.name == frontendMemory {
				one.compare(of, nbdkitMemory, filter(all, w.Name, nbdkitMemory))
				one.Allocations = allocations(of)
			}
			r.Results = append(r.Results, one)
		}
	}
	return r
}

// write writes the report in one of its forms.
func (r frontendReport) write(w io.Writer, form string) error {
	return writeReport(w, form, r, r.sheet())
}

// frontendColumns head the figures of a row.
var frontendColumns = [...]string{"rate", "spread", "/ nbdkit", "target", "p50 us", "p99 us", "CPU us/op", "fio us/op", "allocs/op"}

const frontendLegend = `rate: operations each second, the median of the rounds; spread: between the slowest and
the fastest round, of the median; / nbdkit: ratio within a round, median; CPU: of the
server's process, fio's own apart; us: microseconds; allocs: of the server's heap.
`

func (r frontendReport) sheet() sheet {
	h := r.Host
	t := sheet{legend: frontendLegend, columns: frontendColumns[:], facts: []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("%s; %s; %s", h.Fio, h.Nbdkit, h.Go),
		r.extent(),
	}}
	for _, one := range r.Results {
		t.rows = append(t.rows, sheetRow{group: one.Workload.Title, title: one.Title, cells: one.frontendCells()})
	}
	return t
}

// frontendCells are the figures of a row, in the order of frontendColumns.
func (r result) frontendCells() []string {
	cells := []string{rate(r.Workload, r.Rate), fmt.Sprintf("%.0f%%", r.Rate.percent()), ratioCell(r.Against, nbdkitMemory), ""}
	if cells[2] != "" {
		cells[3] = fmt.Sprintf("%.2f", r.Workload.Target)
	}
	return append(cells, fmt.Sprintf("%.0f", r.P50.Median), fmt.Sprintf("%.0f", r.P99.Median),
		fmt.Sprintf("%.1f", r.ServerCPU.Median), fmt.Sprintf("%.1f", r.ClientCPU.Median), spreadCell(r.Allocations, "%.3f"))
}
