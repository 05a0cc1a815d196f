package engine

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// scrubTruth plans walks as the record in the state says, and by hand.
type scrubTruth struct {
	*truth

	mu   sync.Mutex
	due  bool // a walk is due that nobody asked for
	off  bool
	rate int64
	// refuse is how many records are refused before one is taken.
	refuse  int
	reports []ScrubReport
	clock   int64
}

func (r *scrubTruth) change(what func(r *scrubTruth)) {
	r.mu.Lock()
	what(r)
	r.mu.Unlock()
	// So that everybody looks again.
	r.apply(state.EndAttachment{})
}

func (r *scrubTruth) tick() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	return r.clock
}

func (r *scrubTruth) ask(id block.VolumeID) {
	r.must(state.RequestScrub{Volume: id, At: r.tick()})
}

func (r *scrubTruth) ScrubPlan(id block.VolumeID, _ time.Duration) ScrubPlan {
	record := r.now().Scrub(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	plan := ScrubPlan{Rate: r.rate, Asked: record.Asked != 0 || record.Wanted, Walk: record.Began, From: record.Offset, Covered: record.Covered, Found: Found(record.Found)}
	if plan.Walk == 0 {
		plan.Walk = max(r.clock, record.Ended+1)
		plan.Never = !plan.Asked && (!r.due || record.Ended != 0)
	}
	plan.Never = plan.Never || r.off
	return plan
}

func (r *scrubTruth) ScrubDetached(_ time.Duration, asked bool, skip func(block.VolumeID) bool) (block.VolumeID, time.Duration) {
	for v := range r.now().Volumes() {
		if !v.Published.IsZero() || !v.View.Attachment.IsZero() || skip(v.ID) {
			continue
		}
		if plan := r.ScrubPlan(v.ID, 0); !plan.Never && plan.Asked == asked {
			return v.ID, 0
		}
	}
	return block.VolumeID{}, 0
}

func (r *scrubTruth) RecordScrub(_ context.Context, report ScrubReport) error {
	at := r.tick()
	r.mu.Lock()
	if r.refuse > 0 {
		r.refuse--
		r.mu.Unlock()
		return block.ErrUnavailable
	}
	r.reports = append(r.reports, report)
	r.mu.Unlock()
	c := state.RecordScrub{
		Volume: report.Volume, Epoch: report.Epoch, At: at, Began: report.Walk, Offset: report.Scrubbed.Offset,
		Covered: report.Scrubbed.Covered, Ended: report.Scrubbed.Done, Found: state.Found(report.Found),
	}
	for _, f := range report.Findings {
		c.Findings = append(c.Findings, state.Finding{
			Kind: state.FindingKind(f.Kind), At: at, Replica: f.Replica, Disk: f.Disk, Snapshot: f.Snapshot, Offset: f.Span.Offset, Bytes: f.Span.Length,
		})
	}
	return r.apply(c).Err
}

// ended waits for the end of a walk.
func (r *scrubTruth) ended(id block.VolumeID) state.Scrub {
	r.t.Helper()
	r.wait(func(s *state.State) bool {
		record := s.Scrub(id)
		return record.Ended != 0 && record.Began == 0 && record.Asked == 0
	}, "a scrub to end")
	return r.now().Scrub(id)
}

// scrubbingDaemon is a daemon that verifies volumes.
func (w *world) scrubbingDaemon(m *machine, change ...func(*HostConfig)) (*daemon, *scrubTruth) {
	r := &scrubTruth{truth: w.truth, clock: 1}
	d := w.startDaemon(m, append(change, func(c *HostConfig) { c.Scrubs = r })...)
	return d, r
}

func (w *world) filled(m *machine, d *daemon, id block.VolumeID) []byte {
	w.t.Helper()
	if _, _, err := d.Stage(within(w.t), id); err != nil {
		w.t.Fatal(err)
	}
	data := noise(w.t, volumeSize)
	client := m.the(id).client
	if _, err := client.WriteAt(data, 0); err != nil {
		w.t.Fatal(err)
	}
	if err := client.Flush(); err != nil {
		w.t.Fatal(err)
	}
	return data
}

// TestScrub: blocks have rotted on every disk, none of which anybody reads. A scrub
// that is asked for finds and repairs them all, and what it has found is recorded,
// counted by disk, and told with the place.
func TestScrub(t *testing.T) {
	w, m, registry := newWorld(t, 3), newMachine(t), prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	id := w.volume(volumeSize)
	d, truth := w.scrubbingDaemon(m, func(c *HostConfig) { c.Metrics = metrics })
	data := w.filled(m, d, id)
	type place struct {
		disk   block.DiskID
		offset int64
	}
	var want []place
	for i, offset := range []int64{5 * block.BlockSize, 1<<20 + 3*block.BlockSize, volumeSize - block.BlockSize} {
		n := w.nodes[i]
		n.rot(data[offset : offset+block.BlockSize])
		want = append(want, place{n.disk, offset})
	}
	truth.ask(id)
	record := truth.ended(id)
	if record.Verified != record.Ended || record.Found != (state.Found{Repaired: 3 * block.BlockSize}) {
		t.Errorf("recorded %+v", record)
	}
	eventually(t, "all findings to be recorded", func() bool { return len(truth.now().Scrub(id).Findings) == 3 })
	var got []place
	for _, f := range truth.now().Scrub(id).Findings {
		got = append(got, place{f.Disk, f.Offset})
		if f.Bytes != block.BlockSize || core.NoticeKind(f.Kind) != core.NoticeRepaired {
			t.Errorf("finding %+v", f)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	w.wantEqual(id, data)
	if n := counted(t, registry, "scrubbed_bytes_total"); n != volumeSize {
		t.Errorf("%v bytes were counted as scrubbed", n)
	}
	for _, n := range w.nodes {
		if got := damagedBlocks(t, registry, n.disk, "repaired"); got != 1 {
			t.Errorf("%v damaged blocks of a disk were counted", got)
		}
	}
}

// damagedBlocks are those that were counted for a disk.
func damagedBlocks(t *testing.T, registry *prometheus.Registry, disk block.DiskID, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "holdfast_disk_damaged_blocks_total" {
			continue
		}
		for _, sample := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range sample.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["disk"] == disk.String() && labels["outcome"] == outcome {
				return sample.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestScrubGoesOn: the walk of an earlier engine is taken up where it was, with what it
// had found.
func TestScrubGoesOn(t *testing.T) {
	w, m, registry := newWorld(t, 2), newMachine(t), prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	id := w.volume(volumeSize)
	first := w.startDaemon(m)
	if _, _, err := first.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	view := w.view(id)
	w.truth.must(state.RecordScrub{Volume: id, Epoch: view.Epoch, At: 1, Began: 1, Offset: volumeSize / 2,
		Covered: []block.ReplicaID{view.Replicas[0].ID}, Found: state.Found{Lost: 512}})
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	_, truth := w.scrubbingDaemon(m, func(c *HostConfig) { c.Metrics = metrics })
	record := truth.ended(id)
	if record.Verified != 0 || record.Found.Lost != 512 {
		t.Errorf("a walk that covered one replica of two is recorded as %+v", record)
	}
	if n := counted(t, registry, "scrubbed_bytes_total"); n != volumeSize/2 {
		t.Errorf("%v bytes were scrubbed, want the other half", n)
	}
}

// TestScrubsTakeTurns: on one node, volumes that are due are verified one after the
// other; one that is asked for does not wait.
func TestScrubsTakeTurns(t *testing.T) {
	w, m := newWorld(t, 1), newMachine(t)
	due, later, asked := w.volume(volumeSize), w.volume(volumeSize), w.volume(volumeSize)
	d, truth := w.scrubbingDaemon(m)
	for _, id := range []block.VolumeID{due, later, asked} {
		w.filled(m, d, id)
	}
	active := func(id block.VolumeID) bool {
		s, _, err := d.Status(within(t), id)
		if err != nil {
			t.Fatal(err)
		}
		return s.Scrub.Active
	}
	truth.change(func(r *scrubTruth) { r.due, r.rate = true, 1 })
	eventually(t, "a scrub to begin", func() bool { return active(due) || active(later) || active(asked) })
	for _, id := range []block.VolumeID{due, later, asked} {
		if !active(id) {
			truth.ask(id)
			eventually(t, "the one that was asked for", func() bool { return active(id) })
			break
		}
	}
	n := 0
	for _, id := range []block.VolumeID{due, later, asked} {
		if active(id) {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d volumes are scrubbed, want one that is due and one that was asked for", n)
	}
	truth.change(func(r *scrubTruth) { r.rate = 0 })
	for _, id := range []block.VolumeID{due, later, asked} {
		truth.ended(id)
	}
}

// TestScrubIsCalledOff: what is under way ends when it is not wanted any more. A record
// that was refused is tried again.
func TestScrubIsCalledOff(t *testing.T) {
	w, m := newWorld(t, 1), newMachine(t)
	id := w.volume(volumeSize)
	d, truth := w.scrubbingDaemon(m)
	data := w.filled(m, d, id)
	truth.change(func(r *scrubTruth) { r.due, r.rate = true, 1 })
	active := func() bool {
		s, _, err := d.Status(within(t), id)
		return err == nil && s.Scrub.Active
	}
	eventually(t, "a scrub to begin", active)
	truth.change(func(r *scrubTruth) { r.off = true })
	eventually(t, "the scrub to end", func() bool { return !active() })
	truth.change(func(r *scrubTruth) { r.off, r.rate, r.refuse = false, 0, 2 })
	truth.ended(id)
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	if got := w.nodes[0].content(id); !bytes.Equal(got, data) {
		t.Error("the volume changed")
	}
}

// TestFindingsNameTheSnapshot: what was found in a snapshot is told with it.
func TestFindingsNameTheSnapshot(t *testing.T) {
	snapshot := block.SnapshotID{ID: block.ID{5}}
	for _, kind := range []core.NoticeKind{core.NoticeRepaired, core.NoticeUnreadable} {
		f, ok := findingOf(core.Notice{Kind: kind, Snapshot: snapshot, Offset: 4096, Bytes: 8192, Err: block.ErrChecksum})
		if !ok || f.Snapshot != snapshot || f.Span != (block.Span{Offset: 4096, Length: 8192}) {
			t.Errorf("%d: %+v, %v", kind, f, ok)
		}
	}
}
