package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// meansPrefix begins the names of snapshots that are but the means of cloning a volume.
// Nobody else can give such a name: it has spaces.
const meansPrefix = "clone of "

// meansAge is how long a snapshot that was to become a clone may lie about after the
// leader that took it has died.
const meansAge = time.Hour

// sourceOf is what a volume is to be made from, nil if it begins as zeros. The clone of
// a volume is made from a snapshot that is taken for it; release deletes that if no
// volume came of it. Otherwise it goes with the last replica.
func (c *Cluster) sourceOf(ctx context.Context, req *holdfastv1.CreateVolumeRequest) (_ *state.Source, release func(), err error) {
	release = func() {}
	switch snapshot, volume := req.GetSourceSnapshotId(), req.GetSourceVolumeId(); {
	case snapshot != "" && volume != "":
		return nil, nil, fmt.Errorf("a volume is made from a snapshot or from a volume, not from both: %w", block.ErrInvalid)
	case snapshot != "":
		id, err := parseSnapshotID(snapshot)
		r, _ := c.State().Snapshot(id)
		return &state.Source{Snapshot: id, Volume: r.Volume}, release, err
	case volume == "":
		return nil, release, nil
	}
	id, err := parseVolumeID(req.GetSourceVolumeId())
	if err != nil {
		return nil, nil, err
	}
	source := &state.Source{Volume: id, Clone: true}
	s := c.State()
	if _, made := s.VolumeByName(req.GetName()); made {
		return source, release, nil
	}
	// Better than a snapshot for nothing.
	v, ok := s.Volume(id)
	switch {
	case !ok || !v.Named():
		return nil, nil, fmt.Errorf("source volume %s: %w", id, block.ErrNotFound)
	case req.GetSizeBytes() < v.View.Size:
		return nil, nil, fmt.Errorf("%d bytes are asked for, the source volume %s has %d: %w", req.GetSizeBytes(), id, v.View.Size, block.ErrInvalid)
	}
	unique, err := block.NewID(c.options.Random)
	if err != nil {
		return nil, nil, err
	}
	r, err := c.createSnapshot(ctx, meansPrefix+id.String()+" as "+unique.String(), id)
	if err != nil {
		return nil, nil, fmt.Errorf("take a snapshot of the source volume: %w", err)
	}
	source.Snapshot = r.ID
	return source, func() { c.releaseMeans(ctx, r.ID) }, nil
}

// releaseMeans deletes a snapshot that was taken for a clone, unless the clone is still
// being made; then it goes with that.
func (c *Cluster) releaseMeans(ctx context.Context, id block.SnapshotID) {
	if _, there := c.State().Snapshot(id); !there {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.options.Timing.NodeLease)
	defer cancel()
	if _, err := c.do(ctx, state.DeleteSnapshot{Snapshot: id}); err != nil && !errors.Is(err, block.ErrInUse) {
		c.logger.Warn("the snapshot behind a clone stays for a while", "snapshot", id, "error", err)
	}
}

// sweepMeans deletes snapshots that were to become clones, of leaders that died.
func (c *Cluster) sweepMeans(ctx context.Context, now time.Time) {
	for r := range c.State().Snapshots() {
		if strings.HasPrefix(r.Name, meansPrefix) && now.Sub(time.UnixMilli(r.Created)) > meansAge {
			c.releaseMeans(ctx, r.ID)
		}
	}
}

// checkSource says in good time what the state machine would refuse.
func checkSource(s *state.State, command *state.CreateVolume) error {
	r, ok := s.Snapshot(command.Source.Snapshot)
	switch {
	case !ok:
		return fmt.Errorf("source snapshot %s: %w", command.Source.Snapshot, block.ErrNotFound)
	case !r.Ready():
		return fmt.Errorf("source snapshot %s is not taken yet: %w", r.ID, block.ErrUnavailable)
	case command.Size < r.Size:
		return fmt.Errorf("%d bytes are asked for, source snapshot %s has %d: %w", command.Size, r.ID, r.Size, block.ErrInvalid)
	}
	return nil
}

// sharers are the disks that have the source's bytes.
func sharers(s *state.State, source *state.Source) []block.DiskID {
	var disks []block.DiskID
	v, _ := s.Volume(source.Volume)
	for _, m := range v.View.Replicas {
		if v.Lends(&m) {
			disks = append(disks, m.Disk)
		}
	}
	return disks
}

// placeCopy chooses disks for a volume that is made from a snapshot: shared ones, which
// have its bytes, as many as there are, and others for the rest of the replicas.
func placeCopy(candidates []candidate, size int64, p state.Parameters, sharers []block.DiskID) (shared, others []candidate, err error) {
	var with []candidate
	for _, k := range candidates {
		if slices.Contains(sharers, k.disk.ID) {
			with = append(with, k)
		}
	}
	shared = slices.DeleteFunc(bestByNode(with, p), func(k candidate) bool { return k.offer() < size })
	if len(shared) == 0 {
		return nil, nil, fmt.Errorf("a copy begins on a disk of its source, and needs %s there; %s: %w", showBytes(size), describe(with, p), block.ErrNoCapacity)
	}
	shared = shared[:min(len(shared), p.Replicas)]
	rest := slices.DeleteFunc(slices.Clone(candidates), func(k candidate) bool {
		return slices.ContainsFunc(shared, func(o candidate) bool { return o.node.ID == k.node.ID })
	})
	p.Replicas -= len(shared)
	if p.Replicas > 0 {
		others, err = place(rest, size, p)
	}
	return shared, others, err
}
