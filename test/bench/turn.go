package main

import (
	"context"
	"errors"
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
	// Syncs is how often flushes have synced the contender's disk, where that is known.
	Syncs float64
}

// measure runs the turn.
func (t turn) measure(ctx context.Context) (measurement, error) {
	m, err := t.measured(ctx)
	if err != nil {
		return measurement{}, fmt.Errorf("round %d, %s, %s: %w", t.Round+1, t.Workload.Title, t.Contender.Title, err)
	}
	return m, nil
}

func (t turn) measured(ctx context.Context) (measurement, error) {
	m := measurement{Round: t.Round, Workload: t.Workload, Contender: t.Contender.Name}
	if t.Contender.ready != nil {
		if err := t.Contender.ready(ctx); err != nil {
			return m, err
		}
	}
	syncsBefore, err := t.Contender.synced(ctx)
	if err != nil {
		return m, err
	}
	allocated, err := t.Contender.allocated(ctx)
	if err != nil {
		return m, err
	}
	if err := t.measureCPU(ctx, &m); err != nil {
		return m, err
	}
	allocations, err := allocated(ctx)
	if err != nil {
		return m, err
	}
	m.Allocations += allocations / float64(m.Operations)
	syncsAfter, err := t.Contender.synced(ctx)
	m.Syncs = syncsAfter - syncsBefore
	return m, errors.Join(err, t.Contender.check(ctx))
}

// measureCPU puts the load on, between two looks at who has used how much of the machine.
func (t turn) measureCPU(ctx context.Context, m *measurement) error {
	before, err := t.Contender.cpu()
	if err != nil {
		return err
	}
	machineBefore, err := machineCPU()
	if err != nil {
		return err
	}
	began := time.Now()
	m.load, err = t.Contender.load(ctx, t.Workload, t.Round)
	m.Elapsed = time.Since(began)
	if err != nil {
		return err
	}
	machineAfter, err := machineCPU()
	if err != nil {
		return err
	}
	after, err := t.Contender.cpu()
	if err != nil {
		return err
	}
	m.ServerCPU = after - before
	m.OthersCPU = max(0, machineAfter-machineBefore-m.ServerCPU-m.ProcessCPU)
	return nil
}
