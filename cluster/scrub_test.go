package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// TestPlanScrub: when a volume is verified, and where a walk goes on.
func TestPlanScrub(t *testing.T) {
	const day = 24 * time.Hour
	now := time.UnixMilli(1_700_000_000_000)
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMilli() }
	whole := block.View{Replicas: []block.Member{{InSync: true}, {InSync: true}}}
	degraded := block.View{Replicas: []block.Member{{InSync: true}, {}}}
	fortnight := state.DefaultSettings()
	off := state.Settings{ScrubRate: 5}
	for name, c := range map[string]struct {
		view     block.View
		record   state.Scrub
		settings state.Settings
		served   time.Duration
		want     ScrubPlan
	}{
		"never yet, new":     {whole, state.Scrub{}, fortnight, 0, ScrubPlan{Wait: 12 * time.Hour}},
		"never yet, at last": {whole, state.Scrub{}, fortnight, 12 * time.Hour, ScrubPlan{}},
		"a week ago":         {whole, state.Scrub{Verified: ago(7 * day), Ended: ago(7 * day)}, fortnight, day, ScrubPlan{Wait: 7 * day}},
		"long ago":           {whole, state.Scrub{Verified: ago(20 * day), Ended: ago(20 * day)}, fortnight, 0, ScrubPlan{}},
		"incomplete":         {whole, state.Scrub{Verified: ago(9 * day), Ended: ago(day / 2)}, fortnight, 0, ScrubPlan{Wait: day / 2}},
		"still degraded":     {degraded, state.Scrub{Ended: ago(2 * day)}, fortnight, 0, ScrubPlan{Wait: 12 * day}},
		"off":                {whole, state.Scrub{Ended: ago(100 * day)}, off, day, ScrubPlan{Never: true}},
		"off, asked for":     {whole, state.Scrub{Asked: ago(0)}, off, 0, ScrubPlan{Asked: true}},
		"off, under way":     {whole, state.Scrub{Began: 77, Offset: 1 << 20}, off, 0, ScrubPlan{Never: true, Walk: 77, Offset: 1 << 20}},
		"off, wanted":        {whole, state.Scrub{Began: 77, Wanted: true}, off, 0, ScrubPlan{Asked: true, Walk: 77}},
		"asked for":          {whole, state.Scrub{Asked: ago(0), Ended: ago(0)}, fortnight, 0, ScrubPlan{Asked: true, Walk: now.UnixMilli() + 1}},
	} {
		t.Run(name, func(t *testing.T) {
			v := state.Volume{View: c.view}
			got := planScrub(&v, &c.record, c.settings, now, c.served)
			if c.want.Walk == 0 {
				c.want.Walk = now.UnixMilli()
			}
			if got.Rate != c.settings.ScrubRate {
				t.Errorf("rate %d", got.Rate)
			}
			if got.Never != c.want.Never || got.Wait != c.want.Wait || got.Asked != c.want.Asked || got.Walk != c.want.Walk || got.Offset != c.want.Offset {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// Volumes of which nothing is known do not all begin at once.
func TestFirstScrubsAreSpread(t *testing.T) {
	settings := state.DefaultSettings()
	seen := map[time.Duration]bool{}
	for n := range 256 {
		v := state.Volume{ID: block.VolumeID{ID: block.ID{byte(n)}}}
		p := planScrub(&v, &state.Scrub{}, settings, time.UnixMilli(1), 0)
		if p.Wait < 12*time.Hour || p.Wait > 24*time.Hour {
			t.Fatalf("the first scrub after %v", p.Wait)
		}
		seen[p.Wait] = true
	}
	if len(seen) < 200 {
		t.Errorf("%d different times", len(seen))
	}
}

// TestScrubVolume: a scrub is asked for through the API, told by the engine's node,
// and shown; settings are those of the cluster.
func TestScrubVolume(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	created, err := g[0].volumes().CreateVolume(ctx, createRequest("data", 1))
	if err != nil {
		t.Fatal(err)
	}
	ask := &holdfastv1.ScrubVolumeRequest{Id: created.GetId()}
	none := func(block.VolumeID) bool { return false }
	if due, wait := g[0].ScrubDetached(time.Hour, false, none); due.String() != created.GetId() || wait <= 0 || wait > 24*time.Hour {
		t.Errorf("volume %s is due in %v", due, wait)
	}
	if _, err := g[0].volumes().ScrubVolume(ctx, ask); err != nil {
		t.Errorf("scrub of a volume that is not in use: %v", err)
	}
	if due, wait := g[0].ScrubDetached(0, true, none); due.String() != created.GetId() || wait != 0 {
		t.Errorf("volume %s was asked for, in %v", due, wait)
	}
	for name, due := range map[string]func() (block.VolumeID, time.Duration){
		"not asked for": func() (block.VolumeID, time.Duration) { return g[0].ScrubDetached(0, false, none) },
		"left out": func() (block.VolumeID, time.Duration) {
			return g[0].ScrubDetached(0, true, func(id block.VolumeID) bool { return id.String() == created.GetId() })
		},
	} {
		if id, _ := due(); !id.IsZero() {
			t.Errorf("%s: volume %s is due", name, id)
		}
	}
	v := g[0].attach(ctx, created.GetId())
	if id, _ := g[0].ScrubDetached(0, true, none); !id.IsZero() {
		t.Errorf("volume %s is attached, and due as a detached one", id)
	}
	asked, err := g[0].volumes().ScrubVolume(ctx, ask)
	if err != nil || asked.GetScrub().GetAskedAt() == nil || asked.GetScrub().GetVerifiedAt() != nil {
		t.Fatalf("asked for: %v, %v", asked, err)
	}
	plan := g[0].ScrubPlan(v.ID, 0)
	if !plan.Asked || plan.Wait != 0 || plan.Rate != state.DefaultSettings().ScrubRate {
		t.Fatalf("plan %+v", plan)
	}
	finding := state.Finding{Kind: state.DataLost, Replica: v.View.Replicas[0].ID, Disk: v.View.Replicas[0].Disk,
		Snapshot: block.SnapshotID{ID: block.ID{7}}, Offset: 8192, Bytes: 4096}
	report := state.RecordScrub{Volume: v.ID, Epoch: v.View.Epoch, Began: plan.Walk, Offset: 1 << 30, Ended: true,
		Covered: []block.ReplicaID{v.View.Replicas[0].ID}, Found: state.Found{Lost: 4096}, Findings: []state.Finding{finding}}
	if err := g[0].RecordScrub(ctx, report); err != nil {
		t.Fatal(err)
	}
	report.Epoch--
	if err := g[0].RecordScrub(ctx, report); !errors.Is(err, block.ErrStaleEpoch) {
		t.Errorf("record of an older engine: %v", err)
	}
	shown, err := g[0].volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	got := shown.GetScrub()
	if got.GetVerifiedAt() == nil || time.Since(got.GetVerifiedAt().AsTime()).Abs() > time.Minute || got.GetAskedAt() != nil || got.GetLostBytes() != 4096 {
		t.Errorf("shown %v", got)
	}
	if f := got.GetFindings(); len(f) != 1 || f[0].GetKind() != holdfastv1.ScrubFinding_DATA_LOST || f[0].GetDiskId() != finding.Disk.String() || f[0].GetOffsetBytes() != 8192 ||
		f[0].GetSnapshotId() != finding.Snapshot.String() {
		t.Errorf("findings %v", f)
	}
}

func TestSettings(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	before, err := g[0].nodes().GetSettings(ctx, &holdfastv1.GetSettingsRequest{})
	if err != nil || before.GetScrubIntervalSeconds() != 14*24*3600 || before.GetScrubBytesPerSecond() == 0 {
		t.Fatalf("%v, %v", before, err)
	}
	off := int64(0)
	after, err := g[0].nodes().SetSettings(ctx, &holdfastv1.SetSettingsRequest{ScrubIntervalSeconds: &off})
	if err != nil || after.GetScrubIntervalSeconds() != 0 || after.GetScrubBytesPerSecond() != before.GetScrubBytesPerSecond() {
		t.Fatalf("%v, %v", after, err)
	}
	bad := int64(-1)
	for _, req := range []*holdfastv1.SetSettingsRequest{{}, {ScrubBytesPerSecond: &bad}} {
		if _, err := g[0].nodes().SetSettings(ctx, req); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%v: %v", req, err)
		}
	}
}
