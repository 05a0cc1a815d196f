package main

import (
	"context"
	"fmt"
	"time"
)

// turn is one workload on one contender.
type turn struct {
	Round     int
	Workload  workload
	Contender contender
}

// schedule lets the contenders take turns; who begins changes each time, so that
// nobody always has the machine as the same other one left it.
func schedule(workloads []workload, contenders []contender, rounds int) []turn {
	var turns []turn
	for round := range rounds {
		for i, w := range workloads {
			for j := range contenders {
				c := contenders[(round+i+j)%len(contenders)]
				turns = append(turns, turn{Round: round, Workload: w, Contender: c})
			}
		}
	}
	return turns
}

// measurement is what a turn came to.
type measurement struct {
	Round     int
	Workload  workload
	Contender string
	load
	// ServerCPU is that of all processes behind the contender, OthersCPU what
	// nobody here used, over Elapsed.
	ServerCPU, OthersCPU, Elapsed time.Duration
}

// measure runs the turn.
func (t turn) measure(ctx context.Context) (measurement, error) {
	fail := func(err error) (measurement, error) {
		return measurement{}, fmt.Errorf("round %d, %s, %s: %w", t.Round+1, t.Workload.Title, t.Contender.Title, err)
	}
	if t.Contender.ready != nil {
		if err := t.Contender.ready(ctx); err != nil {
			return fail(err)
		}
	}
	allocated, err := t.Contender.allocated(ctx)
	if err != nil {
		return fail(err)
	}
	before, err := t.Contender.cpu()
	if err != nil {
		return fail(err)
	}
	machineBefore, err := machineCPU()
	if err != nil {
		return fail(err)
	}
	began := time.Now()
	l, err := t.Contender.load(ctx, t.Workload, t.Round)
	elapsed := time.Since(began)
	if err != nil {
		return fail(err)
	}
	machineAfter, err := machineCPU()
	if err != nil {
		return fail(err)
	}
	after, err := t.Contender.cpu()
	if err != nil {
		return fail(err)
	}
	allocations, err := allocated(ctx)
	if err != nil {
		return fail(err)
	}
	if err := t.Contender.check(ctx); err != nil {
		return fail(err)
	}
	l.Allocations += allocations / float64(l.Operations)
	m := measurement{
		Round: t.Round, Workload: t.Workload, Contender: t.Contender.Name, load: l,
		ServerCPU: after - before, Elapsed: elapsed,
	}
	m.OthersCPU = max(0, machineAfter-machineBefore-m.ServerCPU-l.ProcessCPU)
	return m, nil
}
