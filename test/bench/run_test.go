package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"testing"
	"time"
)

// runLimit bounds the tests of whole runs, the build included.
const runLimit = 5 * time.Minute

// TestRun measures two workloads for a second, by fio with a connection for each of 16
// writers and by our own client: every contender comes up and is measured, what is interrupted ends at once, and all is gone without a trace. What
// the figures are is nobody's promise.
func TestRun(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	o, err := parseFlags([]string{"-rounds", "1", "-runtime", "1s", "-size", "64", "-only", "flush-16,fua", "-dir", dir}, workloads())
	if err != nil {
		t.Fatal(err)
	}
	s, err := newVolumeStage(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.set(ctx, newProgress(os.Stderr)); err != nil {
		t.Fatal(errors.Join(err, s.strike(t.Context())))
	}
	measured := map[string]int{}
	turns := schedule(o.Workloads, s.contenders, o.Rounds)
	for _, turn := range turns {
		m, err := turn.measure(ctx)
		if err != nil {
			t.Error(err)
			break
		}
		measured[m.Contender]++
		if m.Operations == 0 || m.P50 <= 0 || (m.Contender != rawFile && m.ServerCPU <= 0) {
			t.Errorf("%+v", m)
		}
		if flushes := m.Workload.Flush && turn.Contender.syncs != nil; flushes && (m.Syncs <= 0 || m.Syncs >= float64(m.Operations)) {
			t.Errorf("%s: %g syncs for the flushes of 16 writers, %d", m.Contender, m.Syncs, m.Operations)
		}
	}
	if !maps.Equal(measured, map[string]int{rawFile: 2, qemuNBD: 2, holdfast1: 2, holdfastRemote: 2, holdfast3: 2}) {
		t.Errorf("measured were %v", measured)
	}
	cancel()
	if _, err := turns[len(turns)-1].measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := s.strike(t.Context()); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)
}

// TestInterruptedBeforeItBegan: what was prepared by then is cleaned up.
func TestInterruptedBeforeItBegan(t *testing.T) {
	o := options{Rounds: 1, Runtime: time.Second, SizeBytes: 64 << 20, Dir: t.TempDir(), Workloads: workloads()}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, o, volumeSetting, newProgress(os.Stderr)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	wantEmpty(t, o.Dir)
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestNoSpaceAndNoDirectory(t *testing.T) {
	if _, err := newVolumeStage(options{Dir: t.TempDir(), SizeBytes: 1 << 50}); err == nil {
		t.Error("a petabyte is free")
	}
	if _, err := newVolumeStage(options{Dir: "/nonexistent", SizeBytes: 1}); err == nil {
		t.Error("a directory that is not there will do")
	}
}
