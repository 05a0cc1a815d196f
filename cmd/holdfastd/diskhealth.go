package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/replica/store"
)

// watchInterval is how often the disks are looked at.
const watchInterval = time.Second

const (
	// nearlyFullShare and fullShare of the capacity being free are worth a warning.
	nearlyFullShare = 0.10
	fullShare       = 0.02
	// slowTicks is how many looks an operation may take before it is worth a warning;
	// what the store does not wait for any more fails the disk.
	slowTicks = 2
	// stallTicks is at how many the disk has failed. An engine gives a replica up
	// before that.
	stallTicks = 10
)

// diskHealth is what the watch knows of a disk.
type diskHealth struct {
	mu sync.Mutex
	// measuring: the disk was asked for its space and memory and has not answered.
	measuring bool
	measured  error
	memory    store.Memory
	// oldestTicks is the age of the oldest operation that runs.
	oldestTicks int
	// said is what was logged last.
	said verdict
}

// verdict is how a disk is, in the order of trouble.
type verdict uint8

const (
	works verdict = iota
	nearlyFull
	full
	slow
	failed
)

func (v verdict) String() string {
	return [...]string{"works", "nearly full", "full", "slow", "failed"}[v]
}

// watch looks at the disks until close.
func (d *disks) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-d.stop:
			return
		}
		d.mu.Lock()
		open := slices.Collect(maps.Values(d.stores))
		d.mu.Unlock()
		for _, disk := range open {
			disk.look(d)
		}
	}
}

// look asks a disk how it is, without waiting for it, and logs what has changed.
func (k *openDisk) look(d *disks) {
	oldest := k.store.Tick(stallTicks)
	k.health.mu.Lock()
	k.health.oldestTicks = oldest
	ask := !k.health.measuring
	k.health.measuring = true
	k.health.mu.Unlock()
	if ask {
		k.executor.Go(k.measure)
	}
	now, why := k.judge()
	if k.store.Failed() != nil {
		k.noted.Do(func() { d.noting.Go(func() { d.noteFailure(k) }) })
	}
	k.health.mu.Lock()
	before := k.health.said
	k.health.said = now
	k.health.mu.Unlock()
	if now == before {
		return
	}
	log := d.log.Info
	if now > before {
		log = d.log.Warn
	}
	log("a disk is in another state", "state", now.String(), "disk", k.store.Identity().Disk.String(), "path", k.path, "why", why)
}

// measure asks the file system for space, and the store for its memory. It blocks on
// the disk.
func (k *openDisk) measure() {
	err := k.store.MeasureSpace()
	memory := k.store.Memory()
	k.health.mu.Lock()
	defer k.health.mu.Unlock()
	k.health.measuring, k.health.measured, k.health.memory = false, err, memory
}

// judge says how the disk is, and why.
func (k *openDisk) judge() (verdict, string) {
	k.health.mu.Lock()
	measured, oldest := k.health.measured, k.health.oldestTicks
	k.health.mu.Unlock()
	if err := cmp.Or(k.store.Failed(), measured); err != nil {
		return failed, err.Error()
	}
	if oldest >= slowTicks {
		return slow, fmt.Sprintf("slow: an operation has taken %s so far", time.Duration(oldest)*watchInterval)
	}
	return judgeSpace(k.store.Space())
}

func judgeSpace(space store.Space) (verdict, string) {
	share := float64(space.Free) / float64(max(space.Capacity, 1))
	switch {
	case share <= fullShare:
		return full, fmt.Sprintf("full: %.1f%% is free, writes to new places wait or fail", 100*share)
	case share <= nearlyFullShare:
		return nearlyFull, fmt.Sprintf("nearly full: %.0f%% is free", 100*share)
	default:
		return works, ""
	}
}

// report is what the cluster is told of the disk.
func (k *openDisk) report() cluster.DiskReport {
	space := k.store.Space()
	r := cluster.DiskReport{ID: k.store.Identity().Disk, Capacity: space.Capacity, Free: space.Free, Device: k.device}
	switch how, why := k.judge(); how {
	case works:
	case failed:
		r.Failure = why
	default:
		r.Warning = why
	}
	return r
}

// Disks implements cluster.DiskHost.
func (d *disks) Disks() []cluster.DiskReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	reports := make([]cluster.DiskReport, 0, len(d.stores))
	for _, disk := range d.stores {
		report := disk.report()
		report.Warning = d.nameTrash(disk, report.Warning)
		reports = append(reports, report)
	}
	if len(d.failed) == 0 || d.member == nil {
		return reports
	}
	// What cannot be opened is known by its path alone.
	for known := range d.member.State().Disks() {
		if err := d.failed[known.Path]; err != nil && known.Node == d.member.NodeID() && d.stores[known.ID] == nil {
			reports = append(reports, cluster.DiskReport{ID: known.ID, Capacity: known.Capacity, Failure: err.Error()})
		}
	}
	return reports
}

// diskMetrics are what is shown of each open disk.
var diskMetrics = []struct {
	desc  *prometheus.Desc
	value func(r *cluster.DiskReport, oldestTicks int) float64
}{
	{diskDesc("capacity_bytes", "What the replicas on the disk may take."), func(r *cluster.DiskReport, _ int) float64 { return float64(r.Capacity) }},
	{diskDesc("free_bytes", "What is left of the capacity."), func(r *cluster.DiskReport, _ int) float64 { return float64(r.Free) }},
	{diskDesc("failed", "1 if the disk has failed."), func(r *cluster.DiskReport, _ int) float64 { return oneIf(r.Failure != "") }},
	{diskDesc("warning", "1 if the disk is nearly full or slow."), func(r *cluster.DiskReport, _ int) float64 { return oneIf(r.Warning != "") }},
	{diskDesc("oldest_operation_seconds", "The age of the oldest operation that the disk has not answered."), func(_ *cluster.DiskReport, oldest int) float64 {
		return (time.Duration(oldest) * watchInterval).Seconds()
	}},
}

// The memory of each open disk, as of the last measurement.
var (
	diskMemory      = diskDesc("memory_bytes", "What the disk's store holds in memory.", "part")
	diskMemoryLimit = diskDesc("memory_limit_bytes", "The bound of all parts of memory_bytes together; maps make room for the others.")
)

// diskSyncs grows slower than the flushes of clients where one sync answers several.
var diskSyncs = diskDesc("flush_syncs_total", "How often the disk was synced since it was opened, each time for all flushes that waited.")

// memoryParts are the parts of the memory.
var memoryParts = []struct {
	name  string
	value func(m *store.Memory) int64
}{
	{"maps", func(m *store.Memory) int64 { return m.Maps }},
	{"allocation", func(m *store.Memory) int64 { return m.Allocation }},
	{"replicas", func(m *store.Memory) int64 { return m.Replicas }},
	{"changes", func(m *store.Memory) int64 { return m.Changes }},
	{"database", func(m *store.Memory) int64 { return m.Database }},
}

func diskDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("holdfast_disk_"+name, help, append([]string{"disk", "path"}, more...), nil)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (d *disks) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range diskMetrics {
		ch <- m.desc
	}
	ch <- diskMemory
	ch <- diskMemoryLimit
	ch <- diskSyncs
}

// Collect implements prometheus.Collector.
func (d *disks) Collect(ch chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, disk := range d.stores {
		r := disk.report()
		disk.health.mu.Lock()
		oldest, memory := disk.health.oldestTicks, disk.health.memory
		disk.health.mu.Unlock()
		for _, m := range diskMetrics {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.value(&r, oldest), id.String(), disk.path)
		}
		for _, part := range memoryParts {
			ch <- prometheus.MustNewConstMetric(diskMemory, prometheus.GaugeValue, float64(part.value(&memory)), id.String(), disk.path, part.name)
		}
		ch <- prometheus.MustNewConstMetric(diskMemoryLimit, prometheus.GaugeValue, float64(memory.Limit), id.String(), disk.path)
		ch <- prometheus.MustNewConstMetric(diskSyncs, prometheus.CounterValue, float64(disk.store.Syncs()), id.String(), disk.path)
	}
}

var _ prometheus.Collector = (*disks)(nil)
