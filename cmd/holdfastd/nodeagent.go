package main

import (
	"context"
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
}

func (a *nodeAgent) serve(engines *engine.Host, replicas *server.Host) {
	a.volumes.Store(&volumes{engines: engines, replicas: replicas})
}

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
	return engineStatus(status, path), nil
}

func engineStatus(s core.Status, path string) *holdfastv1.EngineStatus {
	out := &holdfastv1.EngineStatus{Serving: s.Serving, DivergentBytes: s.Divergent, DevicePath: path}
	if s.Frozen != nil {
		out.Frozen = s.Frozen.Error()
	}
	for _, t := range s.Targets {
		out.Resyncs = append(out.Resyncs, &holdfastv1.ResyncStatus{
			ReplicaId: t.Replica.String(), RemainingBytes: t.Remaining, CopiedBytes: t.Copied,
		})
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
