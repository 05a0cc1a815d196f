package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// sheet is a table of figures in groups of rows, with what must be known to read it.
type sheet struct {
	facts   []string
	legend  string
	columns []string
	rows    []sheetRow
}

type sheetRow struct {
	// group is the title of the rows it is common to.
	group, title string
	cells        []string
}

// writeReport writes a report in one of its forms: raw is for JSON.
func writeReport(w io.Writer, form string, raw any, t sheet) error {
	var text string
	switch form {
	case outputJSON:
		encoded, err := json.MarshalIndent(raw, "", "  ")
		if err != nil {
			return err
		}
		text = string(encoded) + "\n"
	case outputMarkdown:
		text = t.markdown()
	default:
		text = t.text()
	}
	_, err := io.WriteString(w, text)
	return err
}

// begins reports whether row i is the first of its group.
func (t sheet) begins(i int) bool { return i == 0 || t.rows[i-1].group != t.rows[i].group }

// text is for people at a terminal.
func (t sheet) text() string {
	widths := make([]int, len(t.columns))
	first := 0
	for _, row := range t.rows {
		first = max(first, utf8.RuneCountInString(row.title))
		for j, cell := range row.cells {
			widths[j] = max(widths[j], len(t.columns[j]), utf8.RuneCountInString(cell))
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
	b.WriteString(strings.Join(t.facts, "\n") + "\n\n" + t.legend)
	for i, row := range t.rows {
		if t.begins(i) {
			b.WriteString("\n" + row.group + "\n")
			line(&b, "", t.columns)
		}
		line(&b, row.title, row.cells)
	}
	return b.String()
}

// markdown is for docs/performance.md.
func (t sheet) markdown() string {
	var b strings.Builder
	for _, fact := range t.facts {
		b.WriteString("- " + fact + "\n")
	}
	b.WriteString("\n| workload | contender | " + strings.Join(t.columns, " | ") + " |\n")
	b.WriteString("| --- | --- |" + strings.Repeat(" ---: |", len(t.columns)) + "\n")
	for i, row := range t.rows {
		group := ""
		if t.begins(i) {
			group = row.group
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", group, row.title, strings.Join(row.cells, " | "))
	}
	return b.String()
}
