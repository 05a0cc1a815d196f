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
	// ServerCPU and ClientCPU are for one operation.
	ServerCPU spread `json:"serverCPUMicroseconds"`
	ClientCPU spread `json:"clientCPUMicroseconds"`
	// Allocations are those of the daemons for one operation; nil for who is no daemon.
	Allocations *spread `json:"allocations,omitempty"`
}

// yardsticks are whom the others are compared with.
var yardsticks = [...]string{rawFile, qemuNBD, holdfast1}

// titles are the contenders in the order of the report.
var titles = [...]struct{ name, title string }{
	{rawFile, "raw file"},
	{qemuNBD, "qemu-nbd, cache=none"},
	{holdfast1, "Holdfast, 1 replica"},
	{holdfastRemote, "Holdfast, 1, other node"},
	{holdfast3, "Holdfast, 3 replicas"},
}

// summarize condenses the measurements of all rounds.
func summarize(host hostFacts, o options, all []measurement) report {
	r := report{
		Version: 1, Host: host, Rounds: o.Rounds,
		RuntimeSeconds: o.Runtime.Seconds(), SizeBytes: o.SizeBytes, TLS: o.TLS,
		OthersPercent: othersPercent(host, all),
	}
	for _, w := range o.Workloads {
		for _, c := range titles {
			of := filter(all, w.Name, c.name)
			if len(of) > 0 {
				r.Results = append(r.Results, condense(w, c.name, c.title, of, all))
			}
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

// condense summarizes the measurements of one workload on one contender.
func condense(w workload, name, title string, of, all []measurement) result {
	microseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	r := result{
		Workload: w, Contender: name, Title: title, Against: map[string]spread{},
		Rate: spreadOf(values(of, func(m measurement) float64 { return m.Rate })),
		P50:  spreadOf(values(of, func(m measurement) float64 { return microseconds(m.P50) })),
		P99:  spreadOf(values(of, func(m measurement) float64 { return microseconds(m.P99) })),
		ServerCPU: spreadOf(values(of, func(m measurement) float64 {
			return microseconds(m.ServerCPU) / float64(m.Operations)
		})),
		ClientCPU: spreadOf(values(of, func(m measurement) float64 {
			return microseconds(m.ClientCPU) / float64(m.Operations)
		})),
	}
	if name == holdfast1 || name == holdfastRemote || name == holdfast3 {
		allocations := spreadOf(values(of, func(m measurement) float64 { return m.Allocations }))
		r.Allocations = &allocations
	}
	for _, yardstick := range yardsticks {
		if yardstick == name {
			break // a contender is compared with those before it
		}
		if ratios := ratiosOf(of, filter(all, w.Name, yardstick)); len(ratios) > 0 {
			r.Against[yardstick] = spreadOf(ratios)
		}
	}
	return r
}

// ratiosOf are the ratios of the rates, round by round.
func ratiosOf(of, yardstick []measurement) []float64 {
	var ratios []float64
	for _, m := range of {
		i := slices.IndexFunc(yardstick, func(y measurement) bool { return y.Round == m.Round })
		if i >= 0 && yardstick[i].Rate > 0 {
			ratios = append(ratios, m.Rate/yardstick[i].Rate)
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
