package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain is the server of bench frontend too: a benchmark that starts itself anew starts
// this.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == memoryWord {
		if err := run(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// TestFrontend measures both servers for a second; afterwards nothing is left.
func TestFrontend(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	o, err := parseFlags([]string{"-rounds", "1", "-runtime", "1s", "-size", "64", "-only", "randwrite-16", "-dir", dir}, frontendWorkloads())
	if err != nil {
		t.Fatal(err)
	}
	results, err := measure(ctx, o, frontendSetting, newProgress(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	r := summarizeFrontend(hostFacts{CPUs: 1}, o, results)
	if len(r.Results) != 2 || r.Results[1].Against[nbdkitMemory].Median <= 0 || r.Results[1].ServerCPU.Median <= 0 ||
		r.Results[1].Allocations == nil || r.Results[0].Allocations != nil {
		t.Errorf("%+v", r.Results)
	}
	wantEmpty(t, dir)
}

// TestFrontendWorkloads: each has the target that is promised.
func TestFrontendWorkloads(t *testing.T) {
	want := map[string]float64{
		"randread-1": 0.5, "randread-16": 1, "randread-64": 1, "randwrite-1": 0.5, "randwrite-16": 1, "randwrite-64": 1,
	}
	all := frontendWorkloads()
	for _, w := range all {
		if want[w.Name] != w.Target {
			t.Errorf("%s: target %g, want %g", w.Name, w.Target, want[w.Name])
		}
	}
	if len(all) != len(want) {
		t.Errorf("workloads %v", names(all))
	}
}

// TestFrontendReport: the ratio is that of the round, beside its target.
func TestFrontendReport(t *testing.T) {
	w := frontendWorkloads()[0]
	var all []measurement
	for round, speed := range []float64{1, 0.5} {
		for i, c := range frontendTitles {
			rate := speed * 40000 / float64(i+1)
			all = append(all, measurement{
				Round: round, Workload: w, Contender: c.name, Elapsed: time.Second, ServerCPU: time.Duration(rate) * 20 * time.Microsecond,
				load: load{Operations: int64(rate), Rate: rate, P50: 25 * time.Microsecond, P99: 90 * time.Microsecond, Allocations: 0.25},
			})
		}
	}
	r := summarizeFrontend(hostFacts{CPUs: 2, Nbdkit: "nbdkit 1.32"}, options{Rounds: 2, Runtime: time.Second, SizeBytes: 1 << 30, Workloads: []workload{w}}, all)
	var got bytes.Buffer
	if err := r.write(&got, outputMarkdown); err != nil {
		t.Fatal(err)
	}
	const row = "|  | Holdfast's NBD server | 15000 | 67% | 0.50 | 0.50 | 25 | 90 | 20.0 | 0.0 | 0.250 |\n"
	if !strings.Contains(got.String(), row) {
		t.Errorf("%s lacks %s", got.String(), row)
	}
}

// TestAllocationsAreAsked: who asks hears of what was allocated since.
func TestAllocationsAreAsked(t *testing.T) {
	questions, asked := io.Pipe()
	answers, answered := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- answerAllocations(questions, answered) }()
	lines := bufio.NewReader(answers)
	before, err := askAllocations(asked, lines)
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	var kept [][]byte
	for range n {
		kept = append(kept, make([]byte, 64))
	}
	after, err := askAllocations(asked, lines)
	if err != nil || after-before < float64(len(kept)) {
		t.Errorf("%g allocations were %d at least (%v)", after-before, n, err)
	}
	if err := asked.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestServeMemoryRefuses: what is wrong is said.
func TestServeMemoryRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"/s"}, {"/s", "many"}, {"/s", "-1"}, {"/nonexistent/s", "4096"}} {
		if err := serveMemory(t.Context(), args, strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%q is served", args)
		}
	}
}
