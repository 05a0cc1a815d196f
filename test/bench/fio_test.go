package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func output(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestParseLoad reads what fio 3.33 said; that of the nbd engine begins with a
// message.
func TestParseLoad(t *testing.T) {
	write := workload{Pattern: "randwrite"}
	flush := workload{Pattern: "randwrite", Flush: true}
	read := workload{Pattern: "randread"}
	for _, c := range []struct {
		file string
		workload
		want load
	}{
		{"libaio.json", write, load{Operations: 1005, Rate: 1001.994018, P50: 80384, P99: 3686400, ClientCPU: 82 * time.Millisecond}},
		{"libaio.json", flush, load{Operations: 1005, Rate: 1001.994018, P50: 80384 + 288768, P99: 3686400 + 10158080, ClientCPU: 82 * time.Millisecond}},
		{"nbd.json", read, load{Operations: 50586, Rate: 50535.464535, P50: 7456, P99: 201728, ClientCPU: 233 * time.Millisecond}},
	} {
		got, err := parseLoad([]byte(output(t, c.file)), c.workload)
		if err != nil || got.Operations != c.want.Operations || math.Abs(got.Rate-c.want.Rate) > 1e-6 ||
			got.P50 != c.want.P50 || got.P99 != c.want.P99 || got.ClientCPU.Round(time.Millisecond) != c.want.ClientCPU {
			t.Errorf("%s: %+v (%v), want %+v", c.file, got, err, c.want)
		}
	}
}

// TestParseLoadRefuses: a run that measured nothing is no figure.
func TestParseLoadRefuses(t *testing.T) {
	good := output(t, "libaio.json")
	for name, c := range map[string]struct {
		text string
		workload
		why string
	}{
		"nothing":        {"", workload{Pattern: "randwrite"}, "no JSON"},
		"messages only":  {"fio: connection refused {\n", workload{Pattern: "randwrite"}, "no JSON"},
		"cut off":        {good[:len(good)/2], workload{Pattern: "randwrite"}, "JSON"},
		"the other side": {good, workload{Pattern: "randread"}, "no operation"},
		"an error":       {strings.Replace(good, `"error" : 0`, `"error" : 5`, 1), workload{Pattern: "randwrite"}, "error 5"},
		"no job":         {`{"jobs": []}`, workload{Pattern: "randwrite"}, "0 jobs"},
		"no percentiles": {strings.ReplaceAll(good, "99.000000", "98.000000"), workload{Pattern: "randwrite"}, "percentiles"},
		"no run time":    {strings.Replace(good, "job_runtime", "runtime", 1), workload{Pattern: "randwrite"}, "run time"},
	} {
		if l, err := parseLoad([]byte(c.text), c.workload); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

func FuzzParseLoad(f *testing.F) {
	for _, name := range []string{"libaio.json", "nbd.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("\n{")
	f.Fuzz(func(t *testing.T, text string) {
		for _, w := range []workload{{Pattern: "read"}, {Pattern: "write", Flush: true}} {
			if l, err := parseLoad([]byte(text), w); err == nil && (l.Operations == 0 || l.Rate <= 0) {
				t.Errorf("%+v", l)
			}
		}
	})
}

// TestArguments: what makes the contenders comparable is the same for all; a flush
// is the lightest that the engine has.
func TestArguments(t *testing.T) {
	all := workloads()
	flush := all[slices.IndexFunc(all, func(w workload) bool { return w.Flush })]
	j := job{workload: flush, SizeBytes: 1 << 30, Runtime: 3 * time.Second, Seed: 7}
	file, nbd := j.args(fileTarget("/f")), j.args(nbdTarget("nbd+unix:///?socket=/s"))
	for _, args := range [][]string{file, nbd} {
		for _, want := range []string{"--rw=randwrite", "--bs=4096", "--iodepth=1", "--size=1073741824", "--runtime=3", "--randseed=7", "--time_based"} {
			if !slices.Contains(args, want) {
				t.Errorf("%s is missing in %v", want, args)
			}
		}
	}
	if !slices.Contains(file, "--direct=1") || !slices.Contains(file, "--fdatasync=1") || !slices.Contains(file, "--filename=/f") {
		t.Error(file)
	}
	if !slices.Contains(nbd, "--fsync=1") || !slices.Contains(nbd, "--uri=nbd+unix:///?socket=/s") {
		t.Error(nbd)
	}
	fill := job{workload: workload{Pattern: "write", BlockBytes: 1 << 20, Depth: 4}, SizeBytes: 1 << 30}.args(fileTarget("/f"))
	if slices.Contains(fill, "--time_based") || !slices.Contains(fill, "--end_fsync=1") {
		t.Error(fill)
	}
}
