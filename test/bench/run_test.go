package main

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"
)

// runLimit bounds the tests of whole runs, the build included.
const runLimit = 5 * time.Minute

// TestRun measures one workload for a second: every contender comes up, is measured
// and has gone without a trace. What the figures are is nobody's promise.
func TestRun(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	o, err := parseFlags([]string{"-rounds", "1", "-runtime", "1s", "-size", "64", "-only", "flush", "-dir", dir})
	if err != nil {
		t.Fatal(err)
	}
	results, err := measure(ctx, o, newProgress(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	var measured []string
	for _, m := range results {
		measured = append(measured, m.Contender)
		if m.Operations == 0 || m.P50 <= 0 || (m.Contender != rawFile && m.ServerCPU <= 0) {
			t.Errorf("%+v", m)
		}
	}
	if !slices.Equal(measured, []string{rawFile, qemuNBD, holdfast1, holdfast3}) {
		t.Errorf("measured were %v", measured)
	}
	wantEmpty(t, dir)

	// Interrupted in the middle, it cleans up as well.
	ctx, cancel = context.WithCancel(ctx)
	s, err := newStage(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.set(ctx, newProgress(os.Stderr)); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := schedule(o.Workloads, s.contenders, 1)[3].measure(ctx, s.fio, o); err == nil {
		t.Error("it was not interrupted")
	}
	if err := s.strike(t.Context()); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestNoSpaceAndNoDirectory(t *testing.T) {
	if _, err := newStage(options{Dir: t.TempDir(), SizeBytes: 1 << 50}); err == nil {
		t.Error("a petabyte is free")
	}
	if _, err := newStage(options{Dir: "/nonexistent", SizeBytes: 1}); err == nil {
		t.Error("a directory that is not there will do")
	}
}
