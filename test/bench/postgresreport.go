package main

import (
	"fmt"
	"io"
	"time"
)

// postgresReport is what a run of the benchmark of PostgreSQL came to; its JSON is for
// scripts.
type postgresReport struct {
	// Version is that of this form.
	Version    int       `json:"version"`
	Host       hostFacts `json:"host"`
	PostgreSQL string    `json:"postgresql"`
	// Device is what shows the volumes, and the file that they are compared with.
	Device         string           `json:"device"`
	DiskIO         string           `json:"diskIO"`
	Rounds         int              `json:"rounds"`
	RuntimeSeconds float64          `json:"runtimeSeconds"`
	SizeBytes      int64            `json:"sizeBytes"`
	Workload       workload         `json:"workload"`
	OthersPercent  spread           `json:"othersCPUPercent"`
	Results        []postgresResult `json:"results"`
}

// postgresResult is one contender over all rounds.
type postgresResult struct {
	Contender string `json:"contender"`
	Title     string `json:"title"`
	// Rate is in transactions each second.
	Rate spread `json:"transactionsPerSecond"`
	// Against are the ratios of the rate to that of the contenders above, by name.
	Against map[string]spread `json:"against"`
	// Latency is the average of a transaction.
	Latency spread `json:"latencyAverageMilliseconds"`
	// ServerCPU is that of the processes behind the device for a transaction, ClientCPU
	// that of PostgreSQL and pgbench.
	ServerCPU spread `json:"serverCPUMicroseconds"`
	ClientCPU spread `json:"clientCPUMicroseconds"`
}

// postgresYardsticks are whom the others are compared with.
var postgresYardsticks = [...]string{fileUnderLoop, fileBehindFrontend, holdfast1}

// summarizePostgres condenses the measurements of all rounds.
func summarizePostgres(host hostFacts, s *postgresStage, all []measurement) postgresReport {
	o := s.options
	r := postgresReport{
		Version: 1, Host: host, PostgreSQL: s.version, Device: s.device, DiskIO: string(o.Engine), Rounds: o.Rounds,
		RuntimeSeconds: o.Runtime.Seconds(), SizeBytes: o.SizeBytes, Workload: o.workload(), OthersPercent: othersPercent(host, all),
	}
	for _, c := range postgresTitles {
		of := filter(all, r.Workload.Name, c.name)
		if len(of) == 0 {
			continue
		}
		result := condensePostgres(of)
		result.Contender, result.Title = c.name, c.title
		for _, yardstick := range postgresYardsticks {
			if yardstick == c.name {
				break // a contender is compared with those before it
			}
			if ratios := ratiosOf(of, filter(all, r.Workload.Name, yardstick), rateOf); len(ratios) > 0 {
				result.Against[yardstick] = spreadOf(ratios)
			}
		}
		r.Results = append(r.Results, result)
	}
	return r
}

func condensePostgres(of []measurement) postgresResult {
	each := func(cpu func(m measurement) time.Duration) spread {
		return spreadOf(values(of, func(m measurement) float64 {
			return float64(cpu(m)) / float64(time.Microsecond) / float64(m.Operations)
		}))
	}
	return postgresResult{
		Against:   map[string]spread{},
		Rate:      spreadOf(values(of, rateOf)),
		Latency:   spreadOf(values(of, func(m measurement) float64 { return float64(m.Average) / float64(time.Millisecond) })),
		ServerCPU: each(func(m measurement) time.Duration { return m.ServerCPU }),
		ClientCPU: each(func(m measurement) time.Duration { return m.ClientCPU }),
	}
}

// write writes the report in one of its forms.
func (r postgresReport) write(w io.Writer, form string) error {
	return writeReport(w, form, r, r.sheet())
}

// postgresColumns head the figures of a row.
var postgresColumns = [...]string{"tps", "spread", "/ loop", "/ device", "target", "/ 1 replica", "latency ms", "servers us/tx", "clients us/tx"}

const postgresLegend = `tps: transactions each second, the median of the rounds; spread: between the slowest and
the fastest round, of the median; /: ratio within a round, median, to the file under a
loop device, to the file behind a device like a volume's, to one replica; latency: the
average; servers: CPU of all processes behind the device, for a transaction; clients: that
of PostgreSQL and pgbench. What the kernel's own threads use is that of others.
`

func (r postgresReport) sheet() sheet {
	h := r.Host
	t := sheet{legend: postgresLegend, columns: postgresColumns[:], facts: []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("%s on %s; %s; device: %s; disk I/O: %s", h.FileSystem, h.Disk, r.PostgreSQL, r.Device, r.DiskIO),
		fmt.Sprintf("%d x %.0f s for each contender, %d MiB; CPU used by others: %s",
			r.Rounds, r.RuntimeSeconds, r.SizeBytes>>20, others(r.OthersPercent)),
	}}
	for _, result := range r.Results {
		t.rows = append(t.rows, sheetRow{group: r.Workload.Title, title: result.Title, cells: r.cells(result)})
	}
	return t
}

// cells are the figures of a row, in the order of postgresColumns.
func (r postgresReport) cells(of postgresResult) []string {
	ratio := func(yardstick string) string {
		against, ok := of.Against[yardstick]
		if !ok {
			return ""
		}
		return fmt.Sprintf("%.2f", against.Median)
	}
	target, servers := "", ""
	if of.Contender == holdfast3 {
		target = fmt.Sprintf("%.2f", r.Workload.Target)
	}
	if of.Contender != fileUnderLoop { // only the kernel is behind that
		servers = fmt.Sprintf("%.0f", of.ServerCPU.Median)
	}
	return []string{
		fmt.Sprintf("%.0f", of.Rate.Median), fmt.Sprintf("%.0f%%", of.Rate.percent()),
		ratio(fileUnderLoop), ratio(fileBehindFrontend), target, ratio(holdfast1),
		fmt.Sprintf("%.2f", of.Latency.Median), servers, fmt.Sprintf("%.0f", of.ClientCPU.Median),
	}
}
