package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSchedule: in each round every workload meets every contender once, one
// workload at a time, and who begins changes.
func TestSchedule(t *testing.T) {
	contenders := []contender{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	turns := schedule(workloads()[:2], contenders, 3)
	if len(turns) != 3*2*3 {
		t.Fatalf("%d turns", len(turns))
	}
	seen := map[string]bool{}
	first := map[string]int{}
	for i, turn := range turns {
		if turn.Round != i/6 || turn.Workload.Name != workloads()[i/3%2].Name {
			t.Errorf("turn %d is %s in round %d", i, turn.Workload.Name, turn.Round)
		}
		seen[string(rune('0'+turn.Round))+turn.Workload.Name+turn.Contender.Name] = true
		if i%3 == 0 {
			first[turn.Contender.Name]++
		}
	}
	if len(seen) != len(turns) {
		t.Errorf("%d different turns of %d", len(seen), len(turns))
	}
	if len(first) != 3 || first["a"] != 2 || first["b"] != 2 {
		t.Errorf("who begins: %v", first)
	}
}

// summarized are a workload told in operations, one in bytes, and one with flushes.
func summarized() []workload {
	var some []workload
	for _, w := range workloads() {
		if slices.Contains([]string{"randread-1", "flush-16", "seqwrite"}, w.Name) {
			some = append(some, w)
		}
	}
	return some
}

// measured makes up a run of two rounds in which the machine was half as fast in
// the second.
func measured() []measurement {
	var all []measurement
	for round, speed := range []float64{1, 0.5} {
		for _, w := range summarized() {
			for i, c := range titles {
				rate := speed * 40000 / math.Pow(2, float64(i)) * 4096 / float64(w.BlockBytes)
				all = append(all, measurement{
					Round: round, Workload: w, Contender: c.name,
					load: load{
						Operations: int64(3 * rate), Rate: rate,
						P50: time.Duration(i+1) * 50 * time.Microsecond, P99: time.Duration(i+1) * 200 * time.Microsecond,
						ClientCPU: time.Duration(3 * rate * 10 * float64(time.Microsecond)), Allocations: float64(i) / 8,
					},
					ServerCPU: time.Duration(3 * rate * float64(i) * 20 * float64(time.Microsecond)),
					Elapsed:   3 * time.Second, Syncs: 3 * rate / 8,
				})
			}
		}
	}
	return all
}

func TestSummary(t *testing.T) {
	o := options{Rounds: 2, Runtime: 3 * time.Second, SizeBytes: 1 << 30, Workloads: summarized()}
	r := summarize(hostFacts{
		Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "0123456789", Go: "go1.26", CPU: "A CPU", CPUs: 2,
		MemoryBytes: 8 << 30, Kernel: "6.1", FileSystem: "ext4", Disk: "vda 100 GiB", Fio: "fio-3.33", Qemu: "qemu-nbd 7.2",
	}, o, measured())
	if len(r.Results) != 3*len(titles) {
		t.Fatalf("%d results", len(r.Results))
	}
	last := r.Results[len(titles)-1]
	// The rounds differ twofold; the ratios within them do not.
	if last.Contender != holdfast3 || last.Rate.percent() < 60 || last.Against[rawFile] != (spread{0.0625, 0.0625, 0.0625}) ||
		last.Against[holdfast1].Median != 0.25 || math.Abs(last.ServerCPU.Median-80) > 0.1 || last.P50.Median != 250 {
		t.Errorf("%+v", last)
	}
	if last.P50Against[rawFile].Median != 5 {
		t.Errorf("median latency against the raw file: %+v", last.P50Against)
	}
	if merged := r.Results[2*len(titles)-1].FlushesPerSync; merged == nil || math.Abs(merged.Median-8) > 0.1 || last.FlushesPerSync != nil {
		t.Errorf("flushes for each sync: %+v; of reads %+v", merged, last.FlushesPerSync)
	}
	if first := r.Results[0]; len(first.Against) != 0 {
		t.Errorf("the raw file is compared with %v", first.Against)
	}
	for form, file := range map[string]string{outputTable: "report.txt", outputMarkdown: "report.md", outputJSON: "report.json"} {
		var got bytes.Buffer
		if err := r.write(&got, form); err != nil {
			t.Fatal(err)
		}
		golden(t, file, got.Bytes())
	}
	var read report
	var text bytes.Buffer
	if err := r.write(&text, outputJSON); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text.Bytes(), &read); err != nil || len(read.Results) != len(r.Results) {
		t.Errorf("the JSON does not read back: %v", err)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew; %v):\n%s", path, err, got)
	}
}

// TestRatiosNeedTheSameRound: what was measured in another round is no yardstick.
func TestRatiosNeedTheSameRound(t *testing.T) {
	of := []measurement{{Round: 0, load: load{Rate: 10}}, {Round: 1, load: load{Rate: 30}}, {Round: 2, load: load{Rate: 5}}}
	yardstick := []measurement{{Round: 1, load: load{Rate: 60}}, {Round: 0, load: load{Rate: 10}}}
	if got := ratiosOf(of, yardstick, rateOf); !slices.Equal(got, []float64{1, 0.5}) {
		t.Error(got)
	}
}

func TestOthersAreTold(t *testing.T) {
	if got := others(spread{Median: 40, Max: 90}); got != "40% of the machine (0 to 90%): it was NOT quiet" {
		t.Error(got)
	}
	if got := others(spread{Median: 3, Min: 1, Max: 12}); got != "3% of the machine (1 to 12%)" {
		t.Error(got)
	}
}
