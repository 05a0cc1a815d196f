package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// TestScrubTrack: a scrub that ended, or that stands, is not one that runs.
func TestScrubTrack(t *testing.T) {
	for _, c := range []struct {
		looks []int64
		want  int64
		why   string
	}{
		{[]int64{0, 1 << 20, 3 << 20}, 3 << 20, ""},
		{[]int64{1 << 20, -1, 2 << 20}, 0, "2 of 3 looks"},
		{[]int64{1 << 20, 2 << 20, -1}, 0, "2 of 3 looks"},
		{[]int64{5, 5, 5}, 0, "stood at byte 5"},
		{[]int64{5 << 20, 1 << 20}, 0, "stood"},
	} {
		var track scrubTrack
		for _, at := range c.looks {
			track.look(at)
		}
		got, err := track.verdict()
		if got != c.want || (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%v: %d (%v)", c.looks, got, err)
		}
	}
}

// measuredScrub makes up two rounds, with ratios of 2.5 and 1.5.
func measuredScrub() scrubReport {
	r := scrubReport{
		Host: hostFacts{
			Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "0123456789", CPU: "A CPU", CPUs: 2,
			MemoryBytes: 8 << 30, Kernel: "6.1", FileSystem: "ext4", Disk: "vda 100 GiB", Fio: "fio-3.33",
		},
		Workload: workloads()[4], Rounds: 2, RuntimeSeconds: 5, SizeBytes: 2 << 30, Full: 10001, Rate: 5000,
	}
	var all []scrubbed
	for round, beside := range []time.Duration{2500 * time.Microsecond, 1500 * time.Microsecond} {
		for i, p99 := range []time.Duration{time.Millisecond, beside} {
			all = append(all, scrubbed{Beside: i == 1, Verified: int64(i) * 300 << 20, measurement: measurement{
				Round: round, Elapsed: 5 * time.Second, load: load{Rate: 5000, P50: 400 * time.Microsecond, P99: p99},
			}})
		}
	}
	r.condense(all)
	return r
}

// TestScrubVerdict: the target is noticed when it is missed, as is a load that was less
// than half.
func TestScrubVerdict(t *testing.T) {
	r := measuredScrub()
	if err := r.judge(); err != nil || r.Ratio != (spread{2, 1.5, 2.5}) {
		t.Errorf("%+v (%v)", r.Ratio, err)
	}
	r.Ratio.Median = 2.01
	if err := r.judge(); err == nil || !strings.Contains(err.Error(), "2.01 times") {
		t.Errorf("the target is missed: %v", err)
	}
	r = measuredScrub()
	r.Beside.Rate.Median = 4000
	if err := r.judge(); err == nil || !strings.Contains(err.Error(), "of 5000 writes") {
		t.Errorf("less than half the load: %v", err)
	}
}

func TestScrubSheet(t *testing.T) {
	var got bytes.Buffer
	r := measuredScrub()
	if err := writeReport(&got, outputTable, r, r.sheet()); err != nil {
		t.Fatal(err)
	}
	golden(t, "scrub.txt", got.Bytes())
}

func TestScrubFlags(t *testing.T) {
	o, err := parseScrubFlags([]string{"-rounds", "2", "-only", "randwrite-1"})
	if err != nil || o.Rounds != 2 || len(o.Workloads) != 1 || o.Workloads[0].Depth != 1 {
		t.Errorf("%+v (%v)", o, err)
	}
	for _, flags := range []string{"-only randread-16", "-only flush", "-only randwrite-1,randwrite-16", "-only none", "-rounds 0", "more"} {
		if _, err := parseScrubFlags(strings.Fields(flags)); err == nil {
			t.Errorf("%s is taken", flags)
		}
	}
}

// TestScrubRun measures once on each side; a scrub that is over before the load is makes
// a measurement void.
func TestScrubRun(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	o, err := parseScrubFlags([]string{"-rounds", "1", "-runtime", "1s", "-size", "256", "-only", "randwrite-1", "-dir", dir})
	if err != nil {
		t.Fatal(err)
	}
	volumes, err := newVolumeStage(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &scrubStage{volumeStage: volumes}
	r, err := s.measure(ctx, newProgress(os.Stderr), hostFacts{CPUs: 1})
	if err != nil || r.Beside.Scrubbed.Median <= 0 || r.Ratio.Median <= 0 {
		t.Errorf("%+v (%v)", r, err)
	}
	if err := s.outlastScrub(ctx); err == nil || !strings.Contains(err.Error(), "void") {
		t.Errorf("the scrub has ended before its watch: %v", err)
	}
	if err := s.strike(t.Context()); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)
}

// outlastScrub watches a scrub to its end and past it, and returns what the watch says.
func (s *scrubStage) outlastScrub(ctx context.Context) error {
	if err := s.awaitNoScrub(ctx); err != nil {
		return err
	}
	if err := s.beginScrub(ctx); err != nil {
		return err
	}
	watch := s.watchScrub(ctx)
	err := s.awaitNoScrub(ctx)
	// A new watch looks at once, where there is none any more.
	_, late := s.watchScrub(ctx)()
	_, ended := watch()
	return errors.Join(err, late, ended)
}
