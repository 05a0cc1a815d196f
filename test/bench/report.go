package main

import (
	"slices"
	"time"
)

// report is what a run came to; its JSON is for scripts.
type report struct {
	// Version is that of this form.
	Version int       `json:"version"`
	Host    hostFacts `json:"host"`
	Rounds  int       `json:"rounds"`
	// RuntimeSeconds is the length of one measurement.
	RuntimeSeconds float64 `json:"runtimeSeconds"`
	SizeBytes      int64   `json:"sizeBytes"`
	// TLS says that Holdfast's nodes spoke it with each other.
	TLS bool `json:"tls,omitempty"`
	// OthersPercent is the CPU that nobody in the run used, in percent of the
	// machine: the kernel's own threads, and whatever else ran.
	OthersPercent spread   `json:"othersCPUPercent"`
	Results       []result `json:"results"`
}

// result is one workload on one contender over all rounds.
type result struct {
	Workload  workload `json:"workload"`
	Contender string   `json:"contender"`
	Title     string   `json:"title"`
	// Rate is in operations each second.
	Rate spread `json:"operationsPerSecond"`
	// Against are the ratios of the rate to that of other contenders, by name.
	Against map[string]spread `json:"against"`
	P50     spread            `json:"p50Microseconds"`
	P99     spread            `json:"p99Microseconds"`
	// P50Against are the ratios of the median latency, by the same names.
	P50Against map[string]spread `json:"p50Against,omitempty"`
	// ServerCPU and ClientCPU are for one operation.
	ServerCPU spread `json:"serverCPUMicroseconds"`
	ClientCPU spread `json:"clientCPUMicroseconds"`
	// Allocations are those of the daemons for one operation; nil for who is no daemon.
	Allocations *spread `json:"allocations,omitempty"`
	// FlushesPerSync is how many flushes of clients one sync of the disk has answered;
	// nil without flushes, and where it is not known.
	FlushesPerSync *spread `json:"flushesPerSync,omitempty"`
}

// titled is a contender by its name for scripts and its title for people.
type titled struct{ name, title string }

// yardsticks are whom the others are compared with.
var yardsticks = [...]string{rawFile, qemuNBD, holdfast1}

// titles are the contenders in the order of the report.
var titles = [...]titled{
	{rawFile, "raw file"},
	{qemuNBD, "qemu-nbd, cache=none"},
	{holdfast1, "Holdfast, 1 replica"},
	{holdfastRemote, "Holdfast, 1, other node"},
	{holdfast3, "Holdfast, 3 replicas"},
}

// newReport is a report without results.
func newReport(host hostFacts, o options, all []measurement) report {
	return report{
		Version: 1, Host: host, Rounds: o.Rounds,
		RuntimeSeconds: o.Runtime.Seconds(), SizeBytes: o.SizeBytes, TLS: o.TLS,
		OthersPercent: othersPercent(host, all),
	}
}

// summarize condenses the measurements of all rounds.
func summarize(host hostFacts, o options, all []measurement) report {
	r := newReport(host, o, all)
	for _, w := range o.Workloads {
		for _, c := range titles {
			of := filter(all, w.Name, c.name)
			if len(of) == 0 {
				continue
			}
			one := condense(w, c, of)
			for _, yardstick := range yardsticks {
				if yardstick == c.name {
					break // a contender is compared with those before it
				}
				one.compare(of, yardstick, filter(all, w.Name, yardstick))
			}
			if c.name != rawFile && c.name != qemuNBD {
				one.Allocations, one.FlushesPerSync = allocations(of), flushesPerSync(w, of)
			}
			r.Results = append(r.Results, one)
		}
	}
	return r
}

// othersPercent is the CPU that nobody in the run used, in percent of the machine.
func othersPercent(host hostFacts, all []measurement) spread {
	return spreadOf(values(all, func(m measurement) float64 {
		return 100 * m.OthersCPU.Seconds() / m.Elapsed.Seconds() / float64(host.CPUs)
	}))
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// condense summarizes the measurements of one workload on one contender.
func condense(w workload, c titled, of []measurement) result {
	return result{
		Workload: w, Contender: c.name, Title: c.title, Against: map[string]spread{}, P50Against: map[string]spread{},
		Rate: spreadOf(values(of, rateOf)),
		P50:  spreadOf(values(of, func(m measurement) float64 { return microseconds(m.P50) })),
		P99:  spreadOf(values(of, func(m measurement) float64 { return microseconds(m.P99) })),
		ServerCPU: spreadOf(values(of, func(m measurement) float64 {
			return microseconds(m.ServerCPU) / float64(m.Operations)
		})),
		ClientCPU: spreadOf(values(of, func(m measurement) float64 {
			return microseconds(m.ClientCPU) / float64(m.Operations)
		})),
	}
}

// compare adds the ratios to a yardstick, if both were measured in one round.
func (r *result) compare(of []measurement, name string, yardstick []measurement) {
	if ratios := ratiosOf(of, yardstick, rateOf); len(ratios) > 0 {
		r.Against[name] = spreadOf(ratios)
	}
	if ratios := ratiosOf(of, yardstick, func(m measurement) float64 { return microseconds(m.P50) }); len(ratios) > 0 {
		r.P50Against[name] = spreadOf(ratios)
	}
}

func allocations(of []measurement) *spread {
	s := spreadOf(values(of, func(m measurement) float64 { return m.Allocations }))
	return &s
}

// flushesPerSync is nil for a workload without flushes.
func flushesPerSync(w workload, of []measurement) *spread {
	if !w.Flush {
		return nil
	}
	var merged []float64
	for _, m := range of {
		if m.Syncs > 0 {
			merged = append(merged, float64(m.Operations)/m.Syncs)
		}
	}
	if len(merged) == 0 {
		return nil
	}
	s := spreadOf(merged)
	return &s
}

func rateOf(m measurement) float64 { return m.Rate }

// ratiosOf are the ratios of a value, round by round.
func ratiosOf(of, yardstick []measurement, value func(measurement) float64) []float64 {
	var ratios []float64
	for _, m := range of {
		i := slices.IndexFunc(yardstick, func(y measurement) bool { return y.Round == m.Round })
		if i >= 0 && value(yardstick[i]) > 0 {
			ratios = append(ratios, value(m)/value(yardstick[i]))
		}
	}
	return ratios
}

func filter(all []measurement, workload, contender string) []measurement {
	var some []measurement
	for _, m := range all {
		if m.Workload.Name == workload && m.Contender == contender {
			some = append(some, m)
		}
	}
	return some
}

func values(all []measurement, value func(measurement) float64) []float64 {
	list := make([]float64, 0, len(all))
	for _, m := range all {
		list = append(list, value(m))
	}
	return list
}
