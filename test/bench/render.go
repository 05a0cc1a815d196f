package main

import (
	"fmt"
	"io"
)

// write writes the report in one of its forms.
func (r report) write(w io.Writer, form string) error { return writeReport(w, form, r, r.sheet()) }

// columns head the figures of a row.
var columns = [...]string{"rate", "spread", "/ raw", "/ qemu-nbd", "/ 1 replica", "p50 us", "p50 / raw", "p99 us", "CPU us/op", "load us/op", "allocs/op", "flushes/sync"}

// legend explains the columns to people.
const legend = `rate: operations or MiB each second, the median of the rounds; spread: between the
slowest and the fastest round, of the median; /: ratio within a round, median, of the
rate or of the median latency (p50); CPU: of all server processes, that of the load (fio)
apart; us: microseconds; allocs: of the heaps of all daemons, without those of as long a
time without load; flushes/sync: flushes answered by one sync of a disk.
`

// cells are the figures of a row, in the order of columns.
func (r result) cells() []string {
	cells := []string{rate(r.Workload, r.Rate), fmt.Sprintf("%.0f%%", r.Rate.percent())}
	for _, yardstick := range yardsticks {
		cells = append(cells, ratioCell(r.Against, yardstick))
	}
	cells = append(cells, fmt.Sprintf("%.0f", r.P50.Median), ratioCell(r.P50Against, rawFile), fmt.Sprintf("%.0f", r.P99.Median))
	if r.Contender == rawFile {
		cells = append(cells, "") // nobody stands between the load and the file
	} else {
		cells = append(cells, fmt.Sprintf("%.1f", r.ServerCPU.Median))
	}
	return append(cells, fmt.Sprintf("%.1f", r.ClientCPU.Median), spreadCell(r.Allocations, "%.3f"), spreadCell(r.FlushesPerSync, "%.1f"))
}

// ratioCell is empty where nothing was compared.
func ratioCell(against map[string]spread, yardstick string) string {
	ratio, ok := against[yardstick]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f", ratio.Median)
}

// spreadCell is empty for what is not known.
func spreadCell(s *spread, format string) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf(format, s.Median)
}

func rate(w workload, rate spread) string {
	if w.inBytes() {
		return fmt.Sprintf("%.0f MiB/s", rate.Median*float64(w.BlockBytes)/(1<<20))
	}
	return fmt.Sprintf("%.0f", rate.Median)
}

// facts are the lines above the figures.
func (r report) facts() []string {
	h := r.Host
	return []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("%s on %s; %s; %s", h.FileSystem, h.Disk, h.Fio, h.Qemu),
		r.extent(),
	}
}

// extent says how much was measured, and whether the machine was quiet.
func (r report) extent() string {
	return fmt.Sprintf("%d x %.0f s for each measurement, %d MiB; CPU used by others: %s",
		r.Rounds, r.RuntimeSeconds, r.SizeBytes>>20, others(r.OthersPercent))
}

// quietPercent is the CPU that the kernel's own threads account for.
const quietPercent = 10

// others says whether the machine was quiet.
func others(s spread) string {
	text := fmt.Sprintf("%.0f%% of the machine (%.0f to %.0f%%)", s.Median, s.Min, s.Max)
	if s.Median > quietPercent {
		text += ": it was NOT quiet"
	}
	return text
}

// sheet is the report's table.
func (r report) sheet() sheet {
	t := sheet{facts: r.facts(), legend: legend, columns: columns[:]}
	for _, result := range r.Results {
		t.rows = append(t.rows, sheetRow{group: result.Workload.Title, title: result.Title, cells: result.cells()})
	}
	return t
}
