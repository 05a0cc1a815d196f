package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// samples is what perf script prints for four samples.
const samples = `
	ffffffff8225fd19 pvm_irq_enable
	ffffffff813ae292 finish_task_switch.isra.0
	ffffffff82265c84 __schedule
	ffffffff82266833 schedule
	ffffffff81b88d1b io_cqring_wait
	            e98e internal/runtime/syscall/linux.Syscall6
	          851a6d github.com/holdfast-io/holdfast/internal/vfs.(*ring).enter

	ffffffff81000000 iowrite16
	ffffffff81000001 vp_notify
	ffffffff81000002 io_submit_sqes
	          851a6d github.com/holdfast-io/holdfast/internal/vfs.(*ring).enter

	          400000 runtime.memmove
	          400001 github.com/holdfast-io/holdfast/internal/wire.appendRequest
	          400002 github.com/holdfast-io/holdfast/engine.(*Engine).EndTurn

	          400000 [unknown]

`

func TestStages(t *testing.T) {
	t.Parallel()
	counts := newStackCounts()
	if err := readStacks(strings.NewReader(samples), counts.add); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"threads: futex, epoll, switches, Go's scheduler": 1,
		"the disk: file system, block layer, doorbell":    1,
		"frames between engine and replica":               1,
		otherCode:                                         1,
	}
	if counts.total != 4 || len(counts.stages) != len(want) {
		t.Fatalf("%d samples, stages %v", counts.total, counts.stages)
	}
	for title, n := range want {
		if counts.stages[title] != n {
			t.Errorf("%d samples of %q, want %d", counts.stages[title], title, n)
		}
	}
}

// TestFlames: pprof reads what is written, and finds the functions of each stack.
func TestFlames(t *testing.T) {
	t.Parallel()
	counts := newStackCounts()
	if err := readStacks(strings.NewReader(samples), counts.add); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := counts.profile().Write(&file); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&file)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != 4 || len(p.Function) != 14 {
		t.Fatalf("%d samples of %d functions", len(p.Sample), len(p.Function))
	}
}
