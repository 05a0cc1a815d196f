package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var values []float64
	for i := range 100 {
		values = append(values, float64(100-i))
	}
	for _, c := range []struct{ percent, want float64 }{{50, 50}, {99, 99}, {100, 100}, {0, 1}} {
		if got := percentile(values, c.percent); got != c.want {
			t.Errorf("percentile %v is %v, want %v", c.percent, got, c.want)
		}
	}
	if got := percentile([]float64{3}, 99); got != 3 {
		t.Errorf("of one value it is %v", got)
	}
}

// TestVerdict: with few samples the maximum counts, with many one may be above.
func TestVerdict(t *testing.T) {
	many := append(slices.Repeat([]float64{1}, soundSamples-1), 9)
	for _, c := range []struct {
		row  row
		kept bool
	}{
		{row{Limit: 2, Samples: many}, true},
		{row{Limit: 2, Samples: many[1:]}, false},
		{row{Limit: 9, Samples: many[1:]}, true},
		{row{Limit: 0, Samples: []float64{0}}, true},
		{row{Limit: 2}, false},
		{row{Limit: 2, Samples: many, Error: "broken off"}, false},
	} {
		if got := c.row.kept(); got != c.kept {
			t.Errorf("%d samples up to 9, limit %v, error %q: kept is %v", len(c.row.Samples), c.row.Limit, c.row.Error, got)
		}
	}
}

func TestReport(t *testing.T) {
	r := report{Taken: time.Unix(0, 0).UTC(), Rows: []row{
		{Name: "a", What: "pause", Limit: 100, Unit: "ms", Samples: []float64{1, 2, 3}, Notes: []string{"noted"}},
		{Name: "b", What: "ratio", Limit: 1.2, Unit: "x", Samples: []float64{1.5}},
		{Name: "c", What: "c was not finished", Error: "no disk"},
	}}
	if err := r.check(); !errors.Is(err, errShort) || !strings.HasSuffix(err.Error(), ": b, c") {
		t.Errorf("the verdict is %v", err)
	}
	for form, want := range map[string][]string{
		outputTable:    {"pause               100 ms    2 ms    max 3 ms  3  ok", "max 1.50 x  1  SHORT", "a: noted", "c FAILED: no disk"},
		outputMarkdown: {"| ---: |", "| pause | 100 ms | 2 ms | max 3 ms | 3 | ok |"},
		outputJSON:     {`"name": "a"`, `"error": "no disk"`},
	} {
		var text strings.Builder
		if err := r.write(&text, form); err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(text.String(), line) {
				t.Errorf("%s: %q is not in\n%s", form, line, text.String())
			}
		}
	}
}

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"-only", "busy,resync", "-samples", "2"})
	if err != nil || len(o.Lines) != 2 || o.Lines[1].name != "resync" || o.Samples != 2 {
		t.Errorf("flags give %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-only", "nothing"}, {"-samples", "-1"}, {"-duration", "1ms"}, {"-o", "csv"}, {"more"}} {
		if _, err := parseFlags(bad); err == nil {
			t.Errorf("flags %v are taken", bad)
		}
	}
}
