package main

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// tick is another time of the canned cluster, always the same from run to run.
func (c *cannedCluster) tick() *timestamppb.Timestamp {
	c.now++
	return timestamppb.New(time.Unix(1_800_000_000+60*c.now, 0))
}

func (d *cannedDaemon) ScrubVolume(_ context.Context, req *holdfastv1.ScrubVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.Id)
	if err != nil {
		return nil, err
	}
	if v.AttachmentId == "" {
		return nil, status.Error(codes.FailedPrecondition, "not in use")
	}
	if v.Scrub == nil {
		v.Scrub = &holdfastv1.ScrubStatus{}
	}
	v.Scrub.AskedAt = d.tick()
	asked := &holdfastv1.Volume{Id: v.Id, Name: v.Name, SizeBytes: v.SizeBytes, AttachmentId: v.AttachmentId,
		Scrub: &holdfastv1.ScrubStatus{AskedAt: v.Scrub.AskedAt, EndedAt: v.Scrub.EndedAt}}
	if d.instant != "" {
		d.finish(v, d.instant)
	}
	return asked, nil
}

func (d *cannedDaemon) GetSettings(context.Context, *holdfastv1.GetSettingsRequest) (*holdfastv1.Settings, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settings == nil {
		d.settings = &holdfastv1.Settings{ScrubIntervalSeconds: 14 * 86400, ScrubBytesPerSecond: 64 << 20, MaxMoves: 4}
	}
	return d.settings, nil
}

func (d *cannedDaemon) SetSettings(ctx context.Context, req *holdfastv1.SetSettingsRequest) (*holdfastv1.Settings, error) {
	settings, _ := d.GetSettings(ctx, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.ScrubIntervalSeconds != nil {
		settings.ScrubIntervalSeconds = *req.ScrubIntervalSeconds
	}
	if req.ScrubBytesPerSecond != nil {
		settings.ScrubBytesPerSecond = *req.ScrubBytesPerSecond
	}
	if req.MaxMoves != nil {
		settings.MaxMoves = *req.MaxMoves
	}
	if req.TrashKeepSeconds != nil {
		settings.TrashKeepSeconds = *req.TrashKeepSeconds
	}
	return settings, nil
}

// scrubs lets a scrub that was asked for begin and come to a quarter.
func (c *cannedCluster) scrubs(name string) {
	c.change(name, func(v *holdfastv1.Volume) {
		v.Scrub.AskedAt, v.Scrub.BeganAt = nil, c.tick()
		v.Scrub.OffsetBytes = v.SizeBytes / 8
		v.Engine.Scrub = &holdfastv1.ScrubProgress{OffsetBytes: v.SizeBytes / 4, EndBytes: v.SizeBytes}
	})
}

// scrubbed makes every scrub end at once, with an outcome, and the one under way.
func (c *cannedCluster) scrubbed(name, outcome string) {
	c.instant = outcome
	c.change(name, func(v *holdfastv1.Volume) {
		if v.Scrub.GetBeganAt() != nil || v.Scrub.GetAskedAt() != nil {
			c.finish(v, outcome)
		}
	})
}

// finish ends a scrub of a volume.
func (c *cannedCluster) finish(v *holdfastv1.Volume, outcome string) {
	s := v.Scrub
	s.AskedAt, s.BeganAt, s.OffsetBytes, v.Engine.Scrub = nil, nil, 0, nil
	s.EndedAt = c.tick()
	if outcome != "partly" {
		s.VerifiedAt = s.EndedAt
	}
	if outcome == "damaged" {
		s.RepairedBytes, s.LostBytes = 8192, 4096
		s.Findings = []*holdfastv1.ScrubFinding{
			{Kind: holdfastv1.ScrubFinding_DAMAGE_REPAIRED, FoundAt: s.EndedAt, ReplicaId: v.Replicas[1].Id, DiskId: v.Replicas[1].DiskId, OffsetBytes: 1 << 20, LengthBytes: 8192},
			{Kind: holdfastv1.ScrubFinding_DATA_LOST, FoundAt: s.EndedAt, ReplicaId: v.Replicas[0].Id, DiskId: v.Replicas[0].DiskId, SnapshotId: "53000000000000000000000000000001", OffsetBytes: 4096, LengthBytes: 4096},
		}
	}
}

func TestIntervals(t *testing.T) {
	for text, want := range map[string]time.Duration{"14d": 14 * day, "36h": 36 * time.Hour, "off": 0, "90s": 90 * time.Second} {
		var i interval
		if err := i.Set(text); err != nil || time.Duration(i) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(i), err)
		}
	}
	for _, text := range []string{"", "0", "-1d", "d", "1.5d", "100ms", "soon", "1500ms"} {
		var i interval
		if err := i.Set(text); err == nil {
			t.Errorf("%q is taken for %v", text, time.Duration(i))
		}
	}
}
