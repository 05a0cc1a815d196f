package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// DeleteVolume implements holdfastv1.VolumesServer.
func (s volumesService) DeleteVolume(ctx context.Context, req *holdfastv1.DeleteVolumeRequest) (*holdfastv1.DeleteVolumeResponse, error) {
	id, err := parseVolumeID(req.GetId())
	if err != nil {
		return nil, fmt.Errorf("delete volume: %w", err)
	}
	r, err := s.cluster.deleteVolume(ctx, state.DeleteVolume{
		Volume: id, OnlyWithoutSnapshots: req.GetOnlyWithoutSnapshots(), Purge: req.GetPurge(),
	})
	switch {
	case errors.Is(err, block.ErrNotFound):
		return &holdfastv1.DeleteVolumeResponse{}, nil
	case err != nil:
		return nil, err
	}
	return &holdfastv1.DeleteVolumeResponse{PurgedAt: timestamp(r.Volume.Trashed.Until)}, nil
}

// deleteVolume says what the time is where there is a trash, and only there, because
// older members do not know of it.
func (c *Cluster) deleteVolume(ctx context.Context, command state.DeleteVolume) (state.Result, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if err := c.Sync(ctx); err != nil {
		return state.Result{}, fmt.Errorf("delete volume %s: %w", command.Volume, err)
	}
	if c.State().Settings().TrashKeep > 0 {
		command.At = time.Now().UnixMilli()
	}
	return c.do(ctx, command)
}

// RestoreVolume implements holdfastv1.VolumesServer.
func (s volumesService) RestoreVolume(ctx context.Context, req *holdfastv1.RestoreVolumeRequest) (*holdfastv1.Volume, error) {
	id, err := parseVolumeID(req.GetId())
	if err == nil && req.GetName() != "" {
		err = checkName(req.GetName())
	}
	if err != nil {
		return nil, fmt.Errorf("restore volume: %w", err)
	}
	r, err := s.cluster.do(ctx, state.RestoreVolume{Volume: id, Name: req.GetName()})
	if err != nil {
		return nil, err
	}
	return showVolume(r.Volume), nil
}

// PurgeVolume implements holdfastv1.VolumesServer.
func (s volumesService) PurgeVolume(ctx context.Context, req *holdfastv1.PurgeVolumeRequest) (*holdfastv1.PurgeVolumeResponse, error) {
	id, err := parseVolumeID(req.GetId())
	if err != nil {
		return nil, fmt.Errorf("purge volume: %w", err)
	}
	if _, err := s.cluster.do(ctx, state.PurgeVolume{Volume: id}); err != nil {
		return nil, err
	}
	return &holdfastv1.PurgeVolumeResponse{}, nil
}

// purgeExpired deletes for good what has been in the trash for its time. What cannot go
// yet, because a volume is being made from it, is tried again later.
func (c *Cluster) purgeExpired(ctx context.Context, now time.Time) {
	for v := range c.State().Trash() {
		if v.Trashed.Until > now.UnixMilli() {
			continue
		}
		_, err := c.do(ctx, state.PurgeVolume{Volume: v.ID, Expired: now.UnixMilli()})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.logger.Debug("a volume stays in the trash past its time", "volume", v.ID, "name", v.Name, "error", err)
		default:
			c.logger.Info("a volume was in the trash for its time and is deleted", "volume", v.ID, "name", v.Name)
		}
	}
}
