package main

import (
	"strings"
	"testing"
	"time"
)

func TestNodeTable(t *testing.T) {
	views := []nodeView{
		{ID: "i1", Name: "n1", Alive: true, Leader: true, Voter: true, ControlAddress: "a:1", DataAddress: "a:2", RaftAddress: "a:3"},
		{ID: "i2", Name: "node-2", Voter: true, ControlAddress: "b:1", Tags: []string{"rack-2", "fast"}},
	}
	want := `NAME     STATE   RAFT     ADDRESS   TAGS
n1       alive   leader   a:1       -
node-2   down    voter    b:1       rack-2,fast
`
	if got := nodeTable(views).text(false); got != want {
		t.Errorf("the table is\n%s", got)
	}
	if got := nodeTable(views).text(true); !strings.Contains(got, "RAFT-ADDRESS") || !strings.Contains(got, "a:3") {
		t.Errorf("the wide table is\n%s", got)
	}
	if got := nodeTable(nil).text(false); got != "The cluster has no nodes.\n" {
		t.Errorf("the empty table is %q", got)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"10GiB": 10 << 30, "10Gi": 10 << 30, "10GB": 10e9, "1.5TiB": 3 << 39, "512": 512, "512B": 512, "4 KiB": 4096,
	} {
		var s size
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%q is read as %d, %v; want %d", text, int64(s), err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1GiB", "0", "1e30TiB", "10 gigs", "NaN", "Inf", "0.3B", "1.00001KiB"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is read as %d", text, int64(s))
		}
	}
	for n, want := range map[int64]string{
		0: "0B", 512: "512B", 4096: "4KiB", 10 << 30: "10GiB", 3 << 39: "1.5TiB", 1<<30 + 1<<29: "1.5GiB", 1 << 60: "1024PiB",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("%d is shown as %s, want %s", n, got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	f.Add("10GiB")
	f.Add("1e3MB")
	f.Fuzz(func(t *testing.T, text string) {
		var s size
		if err := s.Set(text); err == nil && s <= 0 {
			t.Errorf("%q is read as %d", text, int64(s))
		}
	})
}

func TestProgressLine(t *testing.T) {
	begun := time.Unix(0, 0)
	p := &progress{label: "resync of db", begun: begun, first: 16 << 20, firstSeen: begun.Add(time.Second)}
	got := p.line(64<<20, 256<<20, "2 of 3 in sync", begun.Add(5*time.Second))
	const want = "resync of db [######..................]  25%  64MiB of 256MiB  12MiB/s  16s left  2 of 3 in sync"
	if got != want {
		t.Errorf("the line is\n%s\nwant\n%s", got, want)
	}
	if got := p.line(0, 0, "please wait", begun.Add(3*time.Second)); !strings.HasSuffix(got, "resync of db, please wait, 3s") {
		t.Errorf("without a measure the line is %q", got)
	}
}

// TestNoBarsOffTerminals: scripts read what they asked for, and nothing else.
func TestNoBarsOffTerminals(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b, "resync")
	p.begun = p.begun.Add(-time.Minute)
	p.show(1, 2, "")
	p.end()
	if b.Len() > 0 {
		t.Errorf("written: %q", b.String())
	}
}
