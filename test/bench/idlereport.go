package main

import (
	"errors"
	"fmt"
)

// cores is what the volumes cost together, and bytes what each holds.
func (r idled) cores() float64 { return r.With.Cores - r.Without.Cores }

func (r idled) bytes() float64 {
	return (r.With.Proportional - r.Without.Proportional) / float64(r.Volumes)
}

// coresAllowed is the target for as many volumes as there are.
func (r idled) coresAllowed() float64 { return idleCores * float64(r.Volumes) / 500 }

// judge reports targets that are missed.
func (r idled) judge() error {
	var errs []error
	if got, want := r.cores(), r.coresAllowed(); got > want {
		errs = append(errs, fmt.Errorf("%d idle volumes take %.3f of a core, more than %.3f", r.Volumes, got, want))
	}
	if got := r.bytes(); got > idleBytes {
		errs = append(errs, fmt.Errorf("an idle volume holds %.2f MiB, more than %d", got/(1<<20), idleBytes>>20))
	}
	return errors.Join(errs...)
}

// idleColumns head the figures of a row.
var idleColumns = [...]string{"without", "with", "more", "for each", "target"}

const idleLegend = `All daemons together, before there are volumes and with them; for each: of what is
more. PSS is resident memory, what is shared counted in parts; heap is what is alive
in Go's heaps after a collection.
`

func (r idled) sheet() sheet {
	h := r.Host
	t := sheet{legend: idleLegend, columns: idleColumns[:], facts: []string{
		fmt.Sprintf("Holdfast %s, %s", h.Commit, h.Taken.Format("2006-01-02 15:04 MST")),
		fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s", h.CPU, h.CPUs, h.MemoryBytes>>30, h.Kernel),
		fmt.Sprintf("watched for %.0f s; CPU used by others: %s", r.Seconds, others(spreadOf([]float64{
			100 * r.Without.Others / float64(h.CPUs), 100 * r.With.Others / float64(h.CPUs),
		}))),
	}}
	group := fmt.Sprintf("idle volumes with three replicas, attached and connected: %d", r.Volumes)
	row := func(title, form, eachForm string, without, with, unit, eachUnit float64, target string) {
		more := with - without
		t.rows = append(t.rows, sheetRow{group: group, title: title, cells: []string{
			fmt.Sprintf(form, without/unit), fmt.Sprintf(form, with/unit), fmt.Sprintf(form, more/unit),
			fmt.Sprintf(eachForm, more/float64(r.Volumes)/eachUnit), target,
		}})
	}
	const mib, kib = 1 << 20, 1 << 10
	row("CPU", "%.3f cores", "%.0f us/s", r.Without.Cores, r.With.Cores, 1, 1e-6, fmt.Sprintf("%.3f cores in all", r.coresAllowed()))
	row("PSS", "%.0f MiB", "%.0f KiB", r.Without.Proportional, r.With.Proportional, mib, kib, fmt.Sprintf("%d KiB for each", idleBytes/kib))
	row("resident", "%.0f MiB", "%.0f KiB", r.Without.Resident, r.With.Resident, mib, kib, "")
	row("heap", "%.0f MiB", "%.0f KiB", r.Without.Heap, r.With.Heap, mib, kib, "")
	row("stacks", "%.0f MiB", "%.0f KiB", r.Without.Stacks, r.With.Stacks, mib, kib, "")
	row("goroutines", "%.0f", "%.1f", r.Without.Goroutines, r.With.Goroutines, 1, 1, "")
	return t
}
