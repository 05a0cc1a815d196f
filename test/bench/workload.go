package main

import (
	"fmt"
	"slices"
	"strings"
)

// workload is one kind of load.
type workload struct {
	// Name is for flags and scripts, Title for people.
	Name  string `json:"name"`
	Title string `json:"title"`
	// Pattern is fio's name for it.
	Pattern    string `json:"pattern"`
	BlockBytes int64  `json:"blockBytes"`
	Depth      int    `json:"depth"`
	// Flush: each write is followed by a flush. Depth is then the number of writers,
	// each of which does one thing at a time.
	Flush bool `json:"flush,omitempty"`
	// Durable: each write is durable when it is answered (FUA).
	Durable bool `json:"durable,omitempty"`
	// First: blocks of a fresh volume are written, each once. Files are overwritten.
	First bool `json:"first,omitempty"`
	// ColdMap: a tenth of the volume's map fits into memory.
	ColdMap bool `json:"coldMap,omitempty"`
	// Target is the ratio that is promised; 0 if none is.
	Target float64 `json:"target,omitempty"`
}

// writes reports whether the workload writes rather than reads.
func (w workload) writes() bool { return strings.HasSuffix(w.Pattern, "write") }

// inBytes reports whether its rate is told in bytes rather than in operations.
func (w workload) inBytes() bool { return w.BlockBytes >= 1<<20 }

// workloads are all there are, in the order in which they are measured.
func workloads() []workload {
	var all []workload
	for _, pattern := range []string{"read", "write"} {
		for _, depth := range []int{1, 16, 64} {
			all = append(all, workload{
				Name:    fmt.Sprintf("rand%s-%d", pattern, depth),
				Title:   fmt.Sprintf("4 KiB random %s, depth %d", pattern, depth),
				Pattern: "rand" + pattern, BlockBytes: 4 << 10, Depth: depth,
			})
		}
	}
	return append(all,
		workload{Name: "flush", Title: "4 KiB random write + flush, depth 1", Pattern: "randwrite", BlockBytes: 4 << 10, Depth: 1, Flush: true},
		workload{Name: "flush-16", Title: "4 KiB random write + flush, writers: 16", Pattern: "randwrite", BlockBytes: 4 << 10, Depth: 16, Flush: true},
		workload{Name: "fua", Title: "4 KiB random durable write (FUA), depth 1", Pattern: "randwrite", BlockBytes: 4 << 10, Depth: 1, Durable: true},
		workload{Name: "seqread", Title: "1 MiB sequential read, depth 4", Pattern: "read", BlockBytes: 1 << 20, Depth: 4},
		workload{Name: "seqwrite", Title: "1 MiB sequential write, depth 4", Pattern: "write", BlockBytes: 1 << 20, Depth: 4},
	)
}

func names(all []workload) []string {
	list := make([]string, 0, len(all))
	for _, w := range all {
		list = append(list, w.Name)
	}
	return list
}

// choose picks workloads by name, "" all of them.
func choose(all []workload, only string) ([]workload, error) {
	if only == "" {
		return all, nil
	}
	var chosen []workload
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(w workload) bool { return w.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %q: there are %s", name, strings.Join(names(all), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
