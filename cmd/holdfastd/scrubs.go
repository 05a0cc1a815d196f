package main

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// scrubs shows the cluster member to what verifies volumes.
type scrubs struct{ cluster *cluster.Cluster }

var _ engine.Scrubs = scrubs{}

// ScrubPlan implements engine.Scrubs.
func (s scrubs) ScrubPlan(volume block.VolumeID, served time.Duration) engine.ScrubPlan {
	p := s.cluster.ScrubPlan(volume, served)
	return engine.ScrubPlan{
		Never: p.Never, Wait: p.Wait, Asked: p.Asked, Walk: p.Walk, From: p.Offset, Covered: p.Covered,
		Found: engine.Found(p.Found), Rate: p.Rate,
	}
}

// ScrubDetached implements engine.Scrubs.
func (s scrubs) ScrubDetached(up time.Duration, asked bool, skip func(block.VolumeID) bool) (volume block.VolumeID, wait time.Duration) {
	return s.cluster.ScrubDetached(up, asked, skip)
}

// RecordScrub implements engine.Scrubs.
func (s scrubs) RecordScrub(ctx context.Context, report engine.ScrubReport) error {
	command := state.RecordScrub{Volume: report.Volume, Epoch: report.Epoch}
	if report.Walk != 0 {
		command.Began, command.Found = report.Walk, state.Found(report.Found)
		command.Offset, command.Covered, command.Ended = report.Scrubbed.Offset, report.Scrubbed.Covered, report.Scrubbed.Done
	}
	for _, f := range report.Findings {
		command.Findings = append(command.Findings, state.Finding{
			Kind: findingKind(f.Kind), Replica: f.Replica, Disk: f.Disk, Snapshot: f.Snapshot, Offset: f.Span.Offset, Bytes: f.Span.Length,
		})
	}
	return s.cluster.RecordScrub(ctx, command)
}

func findingKind(k core.NoticeKind) state.FindingKind {
	switch k {
	case core.NoticeUnreadable:
		return state.DataLost
	case core.NoticeDiffer:
		return state.ReplicasDiffer
	default:
		return state.DamageRepaired
	}
}
