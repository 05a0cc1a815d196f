package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The output formats. The names of JSON fields are an interface: they do not
// change once released.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
)

func checkOutput(format string) error {
	switch format {
	case formatTable, formatWide, formatJSON:
		return nil
	default:
		return usageError{fmt.Errorf("--output %s: want table, wide or json", format)}
	}
}

// forPeople is a value laid out as text. wide asks for everything there is.
type forPeople interface {
	text(wide bool) string
}

// print writes v as JSON, or as it is laid out for people.
func (a *app) print(v any, people forPeople) error {
	if a.output == formatJSON {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(v)
	}
	_, err := fmt.Fprint(a.stdout, people.text(a.output == formatWide))
	return err
}

// column is one column of a table; a wide one is shown only with -o wide.
type column struct {
	title string
	wide  bool
}

// table is a list for people.
type table struct {
	columns []column
	rows    [][]string
	// empty is said instead of a table without rows.
	empty string
}

func (t table) text(wide bool) string {
	if len(t.rows) == 0 {
		return t.empty + "\n"
	}
	var titles []string
	for _, c := range t.columns {
		titles = append(titles, c.title)
	}
	var lines []string
	for _, row := range append([][]string{titles}, t.rows...) {
		var cells []string
		for i, cell := range row {
			if wide || !t.columns[i].wide {
				cells = append(cells, orDash(cell))
			}
		}
		lines = append(lines, strings.Join(cells, "\t"))
	}
	return align(lines, 3)
}

// details is one thing for people: a title and a value on each line.
type details [][2]string

func (d details) text(bool) string {
	var lines []string
	for _, line := range d {
		lines = append(lines, line[0]+":\t"+orDash(line[1]))
	}
	return align(lines, 2)
}

// sections are several pieces, one after the other.
type sections []forPeople

func (s sections) text(wide bool) string {
	var parts []string
	for _, part := range s {
		parts = append(parts, part.text(wide))
	}
	return strings.Join(parts, "\n")
}

// sentence is a line for people.
type sentence string

func (s sentence) text(bool) string { return string(s) + "\n" }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// align puts cells, separated by tabs, under each other, at least gap apart.
func align(lines []string, gap int) string {
	var widths []int
	for _, line := range lines {
		for i, cell := range strings.Split(line, "\t") {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		var padded strings.Builder
		for i, cell := range strings.Split(line, "\t") {
			padded.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
		}
		b.WriteString(strings.TrimRight(padded.String(), " ") + "\n")
	}
	return b.String()
}
