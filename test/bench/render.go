package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// write writes the report in one of its forms.
func (r report) write(w io.Writer, form string) error {
	var text string
	switch form {
	case outputJSON:
		raw, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		text = string(raw) + "\n"
	case outputMarkdown:
		text = r.markdown()
	default:
		text = r.table()
	}
	_, err := io.WriteString(w, text)
	return err
}

// columns head the figures of a row.
var columns = [...]string{"rate", "spread", "/ raw", "/ qemu-nbd", "/ 1 replica", "p50 us", "p99 us", "CPU us/op", "fio us/op"}

// legend explains the columns to people.
const legend = `rate: operations or MiB each second, the median of the rounds; spread: between the
slowest and the fastest round, of the median; /: ratio within a round, median;
CPU: of all server processes, fio's own apart; us: microseconds.
`

// cells are the figures of a row, in the order of columns.
func (r result) cells() []string {
	cells := []string{r.rate(), fmt.Sprintf("%.0f%%", r.Rate.percent())}
	for _, yardstick := range yardsticks {
		ratio, ok := r.Against[yardstick]
		if !ok {
			cells = append(cells, "")
			continue
		}
		cells = append(cells, fmt.Sprintf("%.2f", ratio.Median))
	}
	cells = append(cells, fmt.Sprintf("%.0f", r.P50.Median), fmt.Sprintf("%.0f", r.P99.Median))
	if r.Contender == rawFile {
		cells = append(cells, "") // nobody stands between fio and the file
	} else {
		cells = append(cells, fmt.Sprintf("%.1f", r.ServerCPU.Median))
	}
	return append(cells, fmt.Sprintf("%.1f", r.ClientCPU.Median))
}

func (r result) rate() string {
	if r.Workload.inBytes() {
		return fmt.Sprintf("%.0f MiB/s", r.Rate.Median*float64(r.Workload.BlockBytes)/(1<<20))
	}
	return fmt.Sprintf("%.0f", r.Rate.Median)
}

// facts are the lines above the figures.
func (r report) facts() []string {
	h := r.Host
	return []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("%s on %s; %s; %s", h.FileSystem, h.Disk, h.Fio, h.Qemu),
		fmt.Sprintf("%d x %.0f s for each measurement, %d MiB; CPU used by others: %s",
			r.Rounds, r.RuntimeSeconds, r.SizeBytes>>20, r.others()),
	}
}

// quietPercent is the CPU that the kernel's own threads account for.
const quietPercent = 10

// others says whether the machine was quiet.
func (r report) others() string {
	text := fmt.Sprintf("%.0f%% of the machine (%.0f to %.0f%%)", r.OthersPercent.Median, r.OthersPercent.Min, r.OthersPercent.Max)
	if r.OthersPercent.Median > quietPercent {
		text += ": it was NOT quiet"
	}
	return text
}

// table is for people at a terminal.
func (r report) table() string {
	widths := make([]int, len(columns))
	rows := make([][]string, len(r.Results))
	first := 0
	for i, result := range r.Results {
		rows[i] = result.cells()
		first = max(first, utf8.RuneCountInString(result.Title))
		for j, cell := range rows[i] {
			widths[j] = max(widths[j], len(columns[j]), utf8.RuneCountInString(cell))
		}
	}
	line := func(b *strings.Builder, name string, cells []string) {
		text := fmt.Sprintf("  %-*s", first, name)
		for j, cell := range cells {
			text += fmt.Sprintf("  %*s", widths[j], cell)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	var b strings.Builder
	b.WriteString(strings.Join(r.facts(), "\n") + "\n\n" + legend)
	for i, result := range r.Results {
		if i == 0 || r.Results[i-1].Workload != result.Workload {
			b.WriteString("\n" + result.Workload.Title + "\n")
			line(&b, "", columns[:])
		}
		line(&b, result.Title, rows[i])
	}
	return b.String()
}

// markdown is for docs/performance.md.
func (r report) markdown() string {
	var b strings.Builder
	for _, fact := range r.facts() {
		b.WriteString("- " + fact + "\n")
	}
	b.WriteString("\n| workload | contender | " + strings.Join(columns[:], " | ") + " |\n")
	b.WriteString("| --- | --- |" + strings.Repeat(" ---: |", len(columns)) + "\n")
	for i, result := range r.Results {
		title := ""
		if i == 0 || r.Results[i-1].Workload != result.Workload {
			title = result.Workload.Title
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", title, result.Title, strings.Join(result.cells(), " | "))
	}
	return b.String()
}
