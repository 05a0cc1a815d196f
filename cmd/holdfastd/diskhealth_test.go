package main

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/replica/store"
)

func TestJudgeSpace(t *testing.T) {
	for _, c := range []struct {
		free int64
		want verdict
		says string
	}{
		{100, works, ""}, {11, works, ""}, {10, nearlyFull, "nearly full: 10% is free"}, {3, nearlyFull, "nearly full: 3%"},
		{2, full, "full: 2.0% is free"}, {0, full, "full: 0.0%"},
	} {
		got, why := judgeSpace(store.Space{Capacity: 100, Free: c.free})
		if got != c.want || !strings.HasPrefix(why, c.says) {
			t.Errorf("%d of 100 free: %s, %q", c.free, got, why)
		}
	}
	if got, _ := judgeSpace(store.Space{}); got != full {
		t.Errorf("a disk without capacity is %s", got)
	}
}

// TestDiskSyncs: a flush is seen in the count of syncs, as the one in which a replica is made.
func TestDiskSyncs(t *testing.T) {
	d, id, path := newTestDisks(t)
	if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path}); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(d)
	syncs := d.at(diskPlace(path)).store.Syncs()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "holdfast_disk_flush_syncs_total" && f.GetMetric()[0].GetCounter().GetValue() == float64(syncs) {
			return
		}
	}
	t.Errorf("%d syncs are not shown", syncs)
}

// TestDiskMemory: what a disk holds in memory is shown by part, with its bound.
func TestDiskMemory(t *testing.T) {
	d, id, path := newTestDisks(t)
	d.memory = 96 << 20
	if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path}); err != nil {
		t.Fatal(err)
	}
	disk := d.at(diskPlace(path))
	disk.measure()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(d)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values, sum := map[string]float64{}, 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values[f.GetName()] = m.GetGauge().GetValue()
			if f.GetName() == "holdfast_disk_memory_bytes" {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	if limit := values["holdfast_disk_memory_limit_bytes"]; limit != 96<<20 {
		t.Errorf("the bound is shown as %g", limit)
	}
	if held := disk.store.Memory().Total(); held <= 0 || sum < float64(held)/2 || sum > float64(held)*2 {
		t.Errorf("%g bytes are shown, %d are held", sum, held)
	}
}
