package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

func TestHistogram(t *testing.T) {
	var h, other histogram
	for i := range 1000 {
		h.count(time.Duration(i+1) * time.Microsecond)
	}
	other.add(&h)
	for q, want := range map[float64]time.Duration{0: time.Microsecond, 0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := other.quantile(q); got > want || got < want-want/histogramSteps {
			t.Errorf("quantile %v is %v, want %v at most a sixteenth less", q, got, want)
		}
	}
	h = histogram{}
	h.count(0)
	h.count(1 << 62)
	if h.quantile(0.9) != 1<<62 || new(histogram).quantile(0.5) != 0 {
		t.Error("the ends")
	}
}

// TestFirstWritesEachBlockOnce, and then ends; a lottery stays within the volume.
func TestFirstWritesEachBlockOnce(t *testing.T) {
	const blocks = 96
	d := vfs.NewMemDevice(vfs.NewGoExecutor(2), blocks*block.BlockSize)
	if err := d.Grow(blocks * block.BlockSize); err != nil {
		t.Fatal(err)
	}
	w := workload{Pattern: "randwrite", BlockBytes: block.BlockSize, Depth: 5, First: true}
	l, err := newGenerator(w, blocks*block.BlockSize, 1, toDevice(d, 0)).run(time.Hour)
	if err != nil || l.Operations != blocks || l.P50 <= 0 || l.Rate <= 0 {
		t.Fatalf("%+v (%v)", l, err)
	}
	var seen []int64
	for _, u := range d.Unsynced() {
		seen = append(seen, u.Offset/block.BlockSize)
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != blocks {
		t.Errorf("written were %v", seen)
	}
	w.First, w.Flush = false, true
	if l, err = newGenerator(w, blocks*block.BlockSize, 1, toDevice(d, 0)).run(10 * time.Millisecond); err != nil || d.Syncs() < int(l.Operations) {
		t.Errorf("%d flushes for %d writes (%v)", d.Syncs(), l.Operations, err)
	}
	d.Inject(func(io *vfs.IO) error { return block.ErrDiskFailed })
	if _, err = newGenerator(w, blocks*block.BlockSize, 1, toDevice(d, 0)).run(time.Hour); !errors.Is(err, block.ErrDiskFailed) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// measuredStore makes up a run of two rounds: in the first fio is the better one.
func measuredStore(w workload) []measurement {
	var all []measurement
	for round, rates := range [][]float64{{40000, 20000, 20000}, {10000, 20000, 15000}} {
		for i, c := range storeTitles {
			all = append(all, measurement{
				Round: round, Workload: w, Contender: c.name, Elapsed: 3 * time.Second,
				load: load{
					Operations: int64(3 * rates[i]), Rate: rates[i], P50: 100 * time.Microsecond, P99: time.Millisecond,
					Allocations: float64(i) / 8, ProcessCPU: time.Duration(3 * rates[i] * 10 * float64(time.Microsecond)),
				},
			})
		}
	}
	return all
}

func TestStoreSummary(t *testing.T) {
	w := storeWorkloads()[1]
	o := options{Rounds: 2, Runtime: 3 * time.Second, SizeBytes: 1 << 30, Workloads: []workload{w}, Engine: vfs.EngineAuto}
	r := summarizeStore(hostFacts{
		Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "0123456789", CPU: "A CPU", CPUs: 2,
		MemoryBytes: 8 << 30, Kernel: "6.1", FileSystem: "ext4", Disk: "vda 100 GiB", Fio: "fio-3.33",
	}, o, measuredStore(w))
	if len(r.Results) != 3 || r.Results[0].Ratio != nil || r.Results[2].Ratio == nil || *r.Results[2].Ratio != (spread{0.625, 0.5, 0.75}) {
		t.Errorf("%+v", r)
	}
	for form, file := range map[string]string{outputTable: "store.txt", outputMarkdown: "store.md", outputJSON: "store.json"} {
		var got bytes.Buffer
		if err := r.write(&got, form); err != nil {
			t.Fatal(err)
		}
		golden(t, file, got.Bytes())
	}
}

// TestStoreTargets are what is promised.
func TestStoreTargets(t *testing.T) {
	want := map[string]float64{
		"overwrite-1": 0.9, "overwrite-16": 0.9, "overwrite-64": 0.9, "flush-1": 0.8, "flush-16": 0.9, "flush-64": 0.9, "first-16": 0.6,
		"seqread": 0.95, "seqwrite": 0.95, "randread-1": 0.95, "randread-16": 0.95, "randread-64": 0.95, "coldmap-16": 0.7,
	}
	all := storeWorkloads()
	for _, w := range all {
		if w.Target == 0 || w.Target != want[w.Name] {
			t.Errorf("%s has target %v", w.Name, w.Target)
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d workloads", len(all))
	}
}

// TestStoreRun measures for a second what changes the store's state most: a new
// volume, flushes, and a store opened with little memory. All is gone afterwards.
func TestStoreRun(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	args := []string{"-rounds", "2", "-runtime", "1s", "-size", "64", "-only", "flush-16,first-16,coldmap-16", "-dir", dir}
	o, err := parseFlags(args, storeWorkloads())
	if err != nil {
		t.Fatal(err)
	}
	results, err := measure(ctx, o, storeSetting, newProgress(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2*3*3 {
		t.Errorf("%d measurements", len(results))
	}
	for _, m := range results {
		if m.Operations == 0 || m.P50 <= 0 || m.ProcessCPU <= 0 {
			t.Errorf("%+v", m)
		}
	}
	wantEmpty(t, dir)
	if _, err := storeSetting(options{Dir: dir, SizeBytes: 1 << 50}); err == nil || !strings.Contains(err.Error(), "are free") {
		t.Errorf("a petabyte: %v", err)
	}
	if _, err := parseFlags([]string{"-disk-io", "aio"}, storeWorkloads()); !errors.Is(err, block.ErrInvalid) {
		t.Errorf("an engine that is none: %v", err)
	}
}
