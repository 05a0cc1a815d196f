package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// ScrubPlan is what is to be done about the verification of a volume.
type ScrubPlan struct {
	// Never: no walk is due before something changes. Else Wait is how long it is until
	// one is, 0 if one is due now.
	Never bool
	Wait  time.Duration
	// Asked: somebody asked for it.
	Asked bool
	// Walk names it, and becomes Began of the record; what lies before Offset is
	// verified on Covered.
	Walk    int64
	Offset  int64
	Covered []block.ReplicaID
	Found   state.Found
	// Rate bounds it, in bytes a second; 0 does not.
	Rate int64
}

const (
	// firstPart of the interval is when a volume of which nothing is known is verified
	// for the first time, counted from when its engine began to serve.
	firstPart = 14
	// incompleteWait is when a walk that did not cover every replica is repeated at the
	// latest, once all are in sync.
	incompleteWait = 24 * time.Hour
)

// ScrubPlan says what is to be done about a volume that an engine of this node, with a
// device or without one, has served for a while.
func (c *Cluster) ScrubPlan(volume block.VolumeID, served time.Duration) ScrubPlan {
	s := c.State()
	v, ok := s.Volume(volume)
	if !ok || v.Deleting {
		return ScrubPlan{Never: true}
	}
	record, settings := s.Scrub(volume), s.Settings()
	return planScrub(&v, &record, settings, time.Now(), served)
}

// ScrubDetached is the volume that is due first, in so long, of those that nobody has
// attached and whose first in-sync replica is on this node: of those that were asked
// for, or of the others; zero if there is none. This daemon runs for so long; skip
// leaves volumes out.
func (c *Cluster) ScrubDetached(up time.Duration, asked bool, skip func(block.VolumeID) bool) (due block.VolumeID, wait time.Duration) {
	s := c.State()
	settings, now := s.Settings(), time.Now()
	for v := range s.Volumes() {
		if !v.Published.IsZero() || !v.View.Attachment.IsZero() || v.Deleting || !v.Ready() || firstInSync(&v.View) != c.NodeID() || skip(v.ID) {
			continue
		}
		record := s.Scrub(v.ID)
		if plan := planScrub(&v, &record, settings, now, up); !plan.Never && plan.Asked == asked && (due.IsZero() || plan.Wait < wait) {
			due, wait = v.ID, plan.Wait
		}
	}
	return due, wait
}

// firstInSync is the node of the first in-sync replica, zero if there is none.
func firstInSync(v *block.View) block.NodeID {
	for i := range v.Replicas {
		if v.Replicas[i].InSync {
			return v.Replicas[i].Node
		}
	}
	return block.NodeID{}
}

func planScrub(v *state.Volume, r *state.Scrub, settings state.Settings, now time.Time, served time.Duration) ScrubPlan {
	interval := time.Duration(settings.ScrubInterval) * time.Second
	plan := ScrubPlan{Walk: max(now.UnixMilli(), r.Ended+1), Rate: settings.ScrubRate}
	switch {
	case r.Began != 0:
		plan.Walk, plan.Offset, plan.Covered, plan.Found = r.Began, r.Offset, r.Covered, r.Found
		plan.Asked = r.Wanted
		plan.Never = interval == 0 && !r.Wanted
	case r.Asked != 0:
		plan.Asked = true
	case interval == 0:
		plan.Never = true
	case r.Ended == 0:
		// Not all at once, where many were attached together.
		first := interval / firstPart
		plan.Wait = max(0, first/2+time.Duration(int64(first/2)/256*int64(v.ID.ID[0]))-served)
	default:
		if r.Verified != r.Ended && v.View.InSync() == len(v.View.Replicas) {
			interval = min(interval, incompleteWait)
		}
		plan.Wait = max(0, time.UnixMilli(r.Ended).Add(interval).Sub(now))
	}
	return plan
}

// RecordScrub keeps what the engine of an epoch has verified or found; the times are
// filled in. Refusals are those of state.RecordScrub.
func (c *Cluster) RecordScrub(ctx context.Context, report state.RecordScrub) error {
	report.At = time.Now().UnixMilli()
	for i := range report.Findings {
		report.Findings[i].At = report.At
	}
	_, err := c.do(ctx, report)
	return err
}

// ScrubVolume implements holdfastv1.VolumesServer.
//
// The engine of the volume verifies it. If nobody has it attached, the node of the first
// in-sync replica finds the request in the state, and borrows the volume for it.
func (s volumesService) ScrubVolume(ctx context.Context, req *holdfastv1.ScrubVolumeRequest) (*holdfastv1.Volume, error) {
	c := s.cluster
	id, err := parseVolumeID(req.GetId())
	if err != nil {
		return nil, fmt.Errorf("scrub volume: %w", err)
	}
	if err := c.Sync(ctx); err != nil {
		return nil, fmt.Errorf("scrub volume %s: %w", id, err)
	}
	if v, ok := c.State().Volume(id); !ok || v.Deleting {
		return nil, fmt.Errorf("scrub volume %s: %w", id, block.ErrNotFound)
	}
	r, err := c.do(ctx, state.RequestScrub{Volume: id, At: time.Now().UnixMilli()})
	if err != nil {
		return nil, err
	}
	shown := showVolume(r.Volume)
	c.addScrubs([]*holdfastv1.Volume{shown})
	return shown, nil
}

// addScrubs fills in what is known of the verification of volumes.
func (c *Cluster) addScrubs(shown []*holdfastv1.Volume) {
	s := c.State()
	for _, v := range shown {
		id, err := parseVolumeID(v.GetId())
		if err != nil {
			continue
		}
		record := s.Scrub(id)
		v.Scrub = showScrub(&record)
	}
}

func showScrub(r *state.Scrub) *holdfastv1.ScrubStatus {
	shown := &holdfastv1.ScrubStatus{
		VerifiedAt: timestamp(r.Verified), EndedAt: timestamp(r.Ended), AskedAt: timestamp(r.Asked), BeganAt: timestamp(r.Began),
		OffsetBytes:   r.Offset,
		RepairedBytes: r.Found.Repaired, LostBytes: r.Found.Lost, DifferingBytes: r.Found.Differing,
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		shown.Findings = append(shown.Findings, &holdfastv1.ScrubFinding{
			Kind: findingKind(f.Kind), FoundAt: timestamp(f.At), ReplicaId: f.Replica.String(), DiskId: f.Disk.String(),
			OffsetBytes: f.Offset, LengthBytes: f.Bytes,
		})
		if !f.Snapshot.IsZero() {
			shown.Findings[i].SnapshotId = f.Snapshot.String()
		}
	}
	return shown
}

// timestamp is a time of a record; nil for one that never was.
func timestamp(milliseconds int64) *timestamppb.Timestamp {
	if milliseconds == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(milliseconds))
}

func findingKind(k state.FindingKind) holdfastv1.ScrubFinding_Kind {
	switch k {
	case state.DamageRepaired:
		return holdfastv1.ScrubFinding_DAMAGE_REPAIRED
	case state.DataLost:
		return holdfastv1.ScrubFinding_DATA_LOST
	case state.ReplicasDiffer:
		return holdfastv1.ScrubFinding_REPLICAS_DIFFER
	default:
		return holdfastv1.ScrubFinding_KIND_UNSPECIFIED
	}
}

// GetSettings implements holdfastv1.ClusterServer.
func (s clusterService) GetSettings(ctx context.Context, _ *holdfastv1.GetSettingsRequest) (*holdfastv1.Settings, error) {
	if err := s.cluster.Sync(ctx); err != nil {
		return nil, fmt.Errorf("get settings: %w", err)
	}
	return showSettings(s.cluster.State().Settings()), nil
}

// SetSettings implements holdfastv1.ClusterServer.
func (s clusterService) SetSettings(ctx context.Context, req *holdfastv1.SetSettingsRequest) (*holdfastv1.Settings, error) {
	command := state.SetSettings{ScrubInterval: req.ScrubIntervalSeconds, ScrubRate: req.ScrubBytesPerSecond, TrashKeep: req.TrashKeepSeconds, MovesMax: req.MaxMoves}
	if command.ScrubInterval == nil && command.ScrubRate == nil && command.TrashKeep == nil && command.MovesMax == nil {
		return nil, fmt.Errorf("set settings: nothing is set: %w", block.ErrInvalid)
	}
	if _, err := s.cluster.do(ctx, command); err != nil {
		return nil, err
	}
	return s.GetSettings(ctx, nil)
}

func showSettings(s state.Settings) *holdfastv1.Settings {
	return &holdfastv1.Settings{
		ScrubIntervalSeconds: s.ScrubInterval, ScrubBytesPerSecond: s.ScrubRate, TrashKeepSeconds: s.TrashKeep, MaxMoves: int64(s.Moves()),
	}
}
