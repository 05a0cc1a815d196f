package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/engine"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/server"
)

// nodeAgent is the service for this machine.
type nodeAgent struct {
	holdfastv1.UnimplementedNodeAgentServer
	config  config
	cluster *cluster.Cluster
	volumes atomic.Pointer[volumes]
}

// volumes are what the agent serves once the node is a member.
type volumes struct {
	engines  *engine.Host
	replicas *server.Host
	disks    *disks
}

func (a *nodeAgent) serve(v *volumes) { a.volumes.Store(v) }

// member is what the agent serves, or why it does not yet.
func (a *nodeAgent) member() (*volumes, error) {
	v := a.volumes.Load()
	if v == nil {
		return nil, fmt.Errorf("node %s has not joined a cluster yet: %w", a.config.name, block.ErrUnavailable)
	}
	return v, nil
}

// GetNode implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) GetNode(ctx context.Context, _ *holdfastv1.GetNodeRequest) (*holdfastv1.Node, error) {
	if err := a.cluster.Ready(ctx); err != nil {
		return nil, err
	}
	return &holdfastv1.Node{
		Id:             a.cluster.NodeID().String(),
		Name:           a.config.name,
		ControlAddress: a.config.listenControl,
		DataAddress:    a.config.listenData,
		RaftAddress:    a.config.listenRaft,
		Tags:           a.config.tags,
		Alive:          true,
	}, nil
}

// engineOf parses a volume's ID and returns the engines of this node, if it is a
// member yet.
func (a *nodeAgent) engineOf(id string) (*engine.Host, block.VolumeID, error) {
	volume, err := parseVolume(id)
	if err != nil {
		return nil, block.VolumeID{}, err
	}
	v, err := a.member()
	if err != nil {
		return nil, block.VolumeID{}, err
	}
	return v.engines, volume, nil
}

// StageVolume implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) StageVolume(ctx context.Context, r *holdfastv1.StageVolumeRequest) (*holdfastv1.StageVolumeResponse, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	path, attachment, err := engines.Stage(ctx, volume)
	if err != nil {
		return nil, err
	}
	return &holdfastv1.StageVolumeResponse{DevicePath: path, AttachmentId: attachment.String()}, nil
}

// UnstageVolume implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) UnstageVolume(ctx context.Context, r *holdfastv1.UnstageVolumeRequest) (*holdfastv1.UnstageVolumeResponse, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := engines.Unstage(ctx, volume); err != nil {
		return nil, err
	}
	return &holdfastv1.UnstageVolumeResponse{}, nil
}

// TakeSnapshot implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) TakeSnapshot(ctx context.Context, r *holdfastv1.TakeSnapshotRequest) (*holdfastv1.TakeSnapshotResponse, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	snapshot, err := parseSnapshot(r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	if err := engines.Cut(ctx, volume, block.Snapshot{ID: snapshot, Created: r.GetCreated()}); err != nil {
		return nil, err
	}
	return &holdfastv1.TakeSnapshotResponse{}, nil
}

// GrowVolume implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) GrowVolume(ctx context.Context, r *holdfastv1.GrowVolumeRequest) (*holdfastv1.GrowVolumeResponse, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if size := r.GetSizeBytes(); size <= 0 || size > block.MaxVolumeSize || size%block.BlockSize != 0 {
		return nil, fmt.Errorf("grow volume %s to %d bytes: %w", volume, size, block.ErrInvalid)
	}
	if err := engines.Grow(ctx, volume, r.GetSizeBytes()); err != nil {
		return nil, err
	}
	return &holdfastv1.GrowVolumeResponse{}, nil
}

// RevertHead implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) RevertHead(ctx context.Context, r *holdfastv1.RevertHeadRequest) (*holdfastv1.RevertHeadResponse, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	snapshot, err := parseSnapshot(r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	if err := engines.Revert(ctx, volume, snapshot); err != nil {
		return nil, err
	}
	return &holdfastv1.RevertHeadResponse{}, nil
}

// ResyncVolume implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) ResyncVolume(ctx context.Context, r *holdfastv1.ResyncVolumeRequest) (*holdfastv1.ResyncVolumeResponse, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	var replicas []block.ReplicaID
	for _, text := range r.GetReplicaIds() {
		id, err := parseReplica(text)
		if err != nil {
			return nil, fmt.Errorf("resync volume %s: %w", volume, err)
		}
		replicas = append(replicas, id)
	}
	if err := engines.Resync(ctx, volume, replicas); err != nil {
		return nil, err
	}
	return &holdfastv1.ResyncVolumeResponse{}, nil
}

// GetSnapshotUsage implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) GetSnapshotUsage(ctx context.Context, r *holdfastv1.GetSnapshotUsageRequest) (*holdfastv1.GetSnapshotUsageResponse, error) {
	v, err := a.member()
	if err != nil {
		return nil, err
	}
	replica, err := parseReplica(r.GetReplicaId())
	if err != nil {
		return nil, err
	}
	out := &holdfastv1.GetSnapshotUsageResponse{}
	for _, text := range r.GetSnapshotIds() {
		snapshot, err := parseSnapshot(text)
		if err != nil {
			return nil, err
		}
		// Each one takes a while, and the caller may be gone.
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("usage of snapshots: %w", err)
		}
		usage, err := v.disks.usage(replica, snapshot)
		if err != nil && !errors.Is(err, block.ErrNotFound) {
			return nil, err
		}
		out.Usages = append(out.Usages, &holdfastv1.SnapshotUsage{UniqueBytes: usage.Unique, FreedIfDeletedBytes: usage.Freed})
	}
	return out, nil
}

// GetVolumeUsage implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) GetVolumeUsage(_ context.Context, r *holdfastv1.GetVolumeUsageRequest) (*holdfastv1.VolumeUsage, error) {
	v, err := a.member()
	if err != nil {
		return nil, err
	}
	replica, err := parseReplica(r.GetReplicaId())
	if err != nil {
		return nil, err
	}
	return v.disks.volumeUsage(replica)
}

// GetEngine implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) GetEngine(ctx context.Context, r *holdfastv1.GetEngineRequest) (*holdfastv1.EngineStatus, error) {
	engines, volume, err := a.engineOf(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	status, path, err := engines.Status(ctx, volume)
	if err != nil {
		return nil, err
	}
	shown := engineStatus(status, path)
	if p, reverting := engines.Reverting(volume); reverting {
		shown.Revert = &holdfastv1.RevertProgress{DoneBytes: p.Done, TotalBytes: p.Total}
		if p.Trouble != nil {
			shown.Revert.Trouble = p.Trouble.Error()
		}
	}
	return shown, nil
}

func engineStatus(s core.Status, path string) *holdfastv1.EngineStatus {
	out := &holdfastv1.EngineStatus{Serving: s.Serving, DivergentBytes: s.Divergent, DevicePath: path}
	if s.Frozen != nil {
		out.Frozen = s.Frozen.Error()
	}
	if s.Scrub.Active {
		out.Scrub = &holdfastv1.ScrubProgress{OffsetBytes: s.Scrub.Offset, EndBytes: s.Scrub.End}
	}
	for _, t := range s.Targets {
		resync := &holdfastv1.ResyncStatus{ReplicaId: t.Replica.String(), RemainingBytes: t.Remaining, CopiedBytes: t.Copied}
		if t.Waits != nil {
			resync.Waits = t.Waits.Error()
		}
		out.Resyncs = append(out.Resyncs, resync)
	}
	return out
}

// ListReplicas implements holdfastv1.NodeAgentServer.
func (a *nodeAgent) ListReplicas(_ context.Context, r *holdfastv1.ListReplicasRequest) (*holdfastv1.ListReplicasResponse, error) {
	v, err := a.member()
	if err != nil {
		return nil, err
	}
	var only block.VolumeID
	if r.GetVolumeId() != "" {
		volume, err := parseVolume(r.GetVolumeId())
		if err != nil {
			return nil, err
		}
		only = volume
	}
	out := &holdfastv1.ListReplicasResponse{}
	for _, s := range v.replicas.Replicas() {
		if !only.IsZero() && s.Volume != only {
			continue
		}
		dirty := 0
		for _, set := range s.Dirty {
			dirty += set.Regions
		}
		out.Replicas = append(out.Replicas, &holdfastv1.ReplicaInfo{
			Id:           s.Replica.String(),
			VolumeId:     s.Volume.String(),
			DiskId:       s.Disk.String(),
			SizeBytes:    s.Size,
			UsedBytes:    s.Used,
			Epoch:        uint64(s.Fence.Epoch),
			LogRegions:   int32(s.Log),
			DirtyRegions: int32(dirty),
			ExportName:   "replica/" + s.Replica.String(),
		})
	}
	return out, nil
}

func parseVolume(id string) (block.VolumeID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.VolumeID{}, fmt.Errorf("volume: %w", err)
	}
	return block.VolumeID{ID: v}, nil
}

func parseSnapshot(id string) (block.SnapshotID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.SnapshotID{}, fmt.Errorf("snapshot: %w", err)
	}
	return block.SnapshotID{ID: v}, nil
}

func parseReplica(id string) (block.ReplicaID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.ReplicaID{}, fmt.Errorf("replica: %w", err)
	}
	return block.ReplicaID{ID: v}, nil
}
