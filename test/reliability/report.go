package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// row is one promise and what was measured of it.
type row struct {
	Name string `json:"name"`
	What string `json:"what"`
	// Limit is the most that is allowed, in Unit.
	Limit float64 `json:"limit"`
	Unit  string  `json:"unit"`
	// Samples are in the order in which they were taken.
	Samples []float64 `json:"samples"`
	// Notes are what else is worth knowing.
	Notes []string `json:"notes,omitempty"`
	// Error is why the measurement could not be finished.
	Error string `json:"error,omitempty"`
}

// judged is the figure that is held against the limit, and its name.
func (r row) judged() (value float64, name string) {
	if len(r.Samples) >= soundSamples {
		return percentile(r.Samples, 99), "p99"
	}
	return percentile(r.Samples, 100), "max"
}

// kept reports whether the promise was kept.
func (r row) kept() bool {
	if r.Error != "" || len(r.Samples) == 0 {
		return false
	}
	value, _ := r.judged()
	return value <= r.Limit
}

// report is a run.
type report struct {
	// Version is that of this form.
	Version int       `json:"version"`
	Taken   time.Time `json:"taken"`
	Host    host      `json:"host"`
	Rows    []row     `json:"rows"`
}

// errShort: a promise was not kept.
var errShort = errors.New("a limit is missed")

func (r report) check() error {
	var short []string
	for _, row := range r.Rows {
		if !row.kept() {
			short = append(short, row.Name)
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("%w: %s", errShort, strings.Join(short, ", "))
	}
	return nil
}

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
		text = r.render(func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" }, "- ", true)
	default:
		text = r.render(nil, "  ", false)
	}
	_, err := io.WriteString(w, text)
	return err
}

// cells are a row of the table, after its heading.
func (r row) cells() []string {
	verdict := "ok"
	if !r.kept() {
		verdict = "SHORT"
	}
	if len(r.Samples) == 0 {
		return []string{r.What, figure(r.Limit, r.Unit), "", "", "0", verdict}
	}
	value, name := r.judged()
	return []string{
		r.What, figure(r.Limit, r.Unit), figure(percentile(r.Samples, 50), r.Unit),
		name + " " + figure(value, r.Unit), fmt.Sprint(len(r.Samples)), verdict,
	}
}

// figure is a value for people.
func figure(v float64, unit string) string {
	switch {
	case unit == "":
		return fmt.Sprintf("%.0f", v)
	case unit == "x":
		return fmt.Sprintf("%.2f x", v)
	case unit == "s":
		return fmt.Sprintf("%.2f s", v)
	default:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
}

var heading = []string{"what", "limit", "median", "measured", "n", ""}

// render makes the table: by line, or in columns if that is nil.
func (r report) render(line func([]string) string, bullet string, ruled bool) string {
	rows := [][]string{heading}
	if ruled {
		rows = append(rows, []string{"---", "---:", "---:", "---:", "---:", "---"})
	}
	for _, row := range r.Rows {
		rows = append(rows, row.cells())
	}
	if line == nil {
		line = columns(rows)
	}
	var text strings.Builder
	for _, fact := range r.Host.facts(r.Taken) {
		text.WriteString(bullet + fact + "\n")
	}
	text.WriteString("\n")
	for _, cells := range rows {
		text.WriteString(strings.TrimRight(line(cells), " ") + "\n")
	}
	text.WriteString("\n")
	for _, row := range r.Rows {
		for _, note := range row.Notes {
			fmt.Fprintf(&text, "%s%s: %s\n", bullet, row.Name, note)
		}
		if row.Error != "" {
			fmt.Fprintf(&text, "%s%s FAILED: %s\n", bullet, row.Name, row.Error)
		}
	}
	return text.String()
}

// columns lays cells out: the first one to the left, figures to the right.
func columns(rows [][]string) func([]string) string {
	widths := make([]int, len(heading))
	for _, cells := range rows {
		for i, cell := range cells {
			widths[i] = max(widths[i], len(cell))
		}
	}
	return func(cells []string) string {
		text := fmt.Sprintf("%-*s", widths[0], cells[0])
		for i, cell := range cells[1:] {
			if i == len(cells)-2 {
				text += "  " + cell
				continue
			}
			text += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		return text
	}
}
