package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// measuredIdle is a run that meets both targets to the last bit.
func measuredIdle() idled {
	return idled{
		Host: hostFacts{
			Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "0123456789", CPU: "A CPU", CPUs: 2,
			MemoryBytes: 8 << 30, Kernel: "6.1",
		},
		Volumes: 500, Seconds: 30,
		Without: idleState{Cores: 0.03, Others: 0.01, Resident: 150 << 20, Proportional: 120 << 20, Heap: 30 << 20, Stacks: 3 << 20, Goroutines: 300},
		With:    idleState{Cores: 0.08, Others: 0.02, Resident: 650 << 20, Proportional: 620 << 20, Heap: 280 << 20, Stacks: 33 << 20, Goroutines: 9300},
	}
}

// TestIdleVerdict: each target is noticed when it is missed, and neither when it is met.
func TestIdleVerdict(t *testing.T) {
	if err := measuredIdle().judge(); err != nil {
		t.Errorf("both met: %v", err)
	}
	for why, spoil := range map[string]func(*idled){
		"core": func(r *idled) { r.With.Cores += 0.001 },
		"MiB":  func(r *idled) { r.With.Proportional += 1 << 20 },
	} {
		r := measuredIdle()
		spoil(&r)
		if err := r.judge(); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	few := measuredIdle()
	few.Volumes = 50
	if err := few.judge(); err == nil || !strings.Contains(err.Error(), "0.005") {
		t.Errorf("fifty volumes may cost as much as five hundred: %v", err)
	}
}

func TestIdleSheet(t *testing.T) {
	var got bytes.Buffer
	r := measuredIdle()
	if err := writeReport(&got, outputTable, r, r.sheet()); err != nil {
		t.Fatal(err)
	}
	golden(t, "idle.txt", got.Bytes())
}

func TestIdleFlags(t *testing.T) {
	o, err := parseIdleFlags([]string{"-volumes", "7", "-runtime", "4s", "-profiles", "/p"})
	if err != nil || o.volumes != 7 || o.Runtime != 4*time.Second || o.profiles != "/p" {
		t.Errorf("%+v (%v)", o, err)
	}
	for flags, why := range map[string]string{"-volumes 0": "-volumes", "-runtime 0s": "whole seconds", "-o xml": "json", "more": "unexpected"} {
		if _, err := parseIdleFlags(strings.Fields(flags)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

// TestIdleRun attaches a few volumes and watches them for a moment. A replica that is lost
// is noticed, and all is gone afterwards.
func TestIdleRun(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	o, err := parseIdleFlags([]string{"-volumes", "3", "-runtime", "1s", "-dir", dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newIdleStage(o)
	if err != nil {
		t.Fatal(err)
	}
	err = runSteps(ctx, newProgress(os.Stderr), []step{
		{"starting", s.startCluster}, {"attaching", s.attachAll}, {"checking", s.checkAll},
	})
	if err != nil {
		t.Error(err)
	} else if state, err := s.watch(ctx); err != nil || state.Cores <= 0 || state.Heap <= 0 || state.Stacks <= 0 || state.Proportional <= state.Heap {
		t.Errorf("%+v (%v)", state, err)
	}
	s.idle.volumes++
	if err := s.checkAll(ctx); err == nil || !strings.Contains(err.Error(), "3 of 4") {
		t.Errorf("a volume that is not there: %v", err)
	}
	if err := s.strike(t.Context()); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)
}
