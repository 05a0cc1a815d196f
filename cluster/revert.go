package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// revertsMax bounds the reverts that nodes are at work on.
	revertsMax = 16
	// revertPauseMax is the longest pause before a node is asked again.
	revertPauseMax = 5 * time.Second
	// keptPrefix begins the names of snapshots that keep what volumes were before they
	// were reverted; the time follows.
	keptPrefix = "before-revert-"
)

// reverts is what a leader knows of the reverts that it sees to.
type reverts struct {
	mu sync.Mutex
	// running are those that somebody sees to, troubles what went wrong last.
	running  map[block.VolumeID]bool
	troubles map[block.VolumeID]error
}

func (r *reverts) init() {
	r.running, r.troubles = map[block.VolumeID]bool{}, map[block.VolumeID]error{}
}

// begin reports whether nobody saw to it before.
func (r *reverts) begin(volume block.VolumeID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[volume] {
		return false
	}
	r.running[volume] = true
	return true
}

func (r *reverts) end(volume block.VolumeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, volume)
}

// note keeps what went wrong; nil forgets it.
func (r *reverts) note(volume block.VolumeID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.troubles, volume)
	if err != nil {
		r.troubles[volume] = err
	}
}

func (r *reverts) trouble(volume block.VolumeID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.troubles[volume]
}

// RevertVolume implements holdfastv1.VolumesServer.
func (s volumesService) RevertVolume(ctx context.Context, req *holdfastv1.RevertVolumeRequest) (*holdfastv1.Volume, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.Volume, error) {
			v, err := s.cluster.revertVolume(ctx, req)
			if err != nil {
				return nil, err
			}
			return showVolume(&v), nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.Volume, error) {
			return holdfastv1.NewVolumesClient(conn).RevertVolume(ctx, req)
		})
}

// revertVolume records the intent (rule 26), on the leader, and waits until it has begun:
// what the volume was is kept, and all else goes on by itself.
func (c *Cluster) revertVolume(ctx context.Context, req *holdfastv1.RevertVolumeRequest) (state.Volume, error) {
	id, err := parseVolumeID(req.GetId())
	if err != nil {
		return state.Volume{}, fmt.Errorf("revert volume: %w", err)
	}
	snapshot, err := parseSnapshotID(req.GetSnapshotId())
	if err != nil {
		return state.Volume{}, fmt.Errorf("revert volume %s: %w", id, err)
	}
	v, err := c.intendRevert(ctx, state.RevertVolume{Volume: id, Snapshot: snapshot}, !req.GetDiscardHead())
	if err != nil {
		return state.Volume{}, err
	}
	waiting, cancel := endEarly(ctx)
	defer cancel()
	err = c.Wait(waiting, func(s *state.State) bool {
		v, _ = s.Volume(id)
		return v.Revert == nil || v.Revert.To != snapshot || v.Revert.Done != 0 || v.RevertBegun()
	})
	trouble := c.reverts.trouble(id)
	if err != nil {
		// So that nobody waits for a volume that nobody reverts.
		trouble = fmt.Errorf("%s: %w", errors.Join(trouble, err).Error(), block.ErrUnavailable)
		if v, err = c.takeBackRevert(ctx, id, snapshot); err != nil {
			return state.Volume{}, fmt.Errorf("revert volume %s: what it is now is not kept yet: %w", id, errors.Join(trouble, err))
		}
	}
	switch {
	case v.Deleting || v.ID.IsZero():
		return state.Volume{}, fmt.Errorf("revert volume %s: it was deleted meanwhile: %w", id, block.ErrNotFound)
	case v.Revert == nil && trouble == nil:
		return state.Volume{}, fmt.Errorf("revert volume %s: another request has taken it back: %w", id, block.ErrUnavailable)
	case v.Revert == nil:
		return state.Volume{}, fmt.Errorf("revert volume %s: what it is now cannot be kept, nothing was changed: %w", id, trouble)
	}
	return v, nil
}

// takeBackRevert takes an intent back, or finds that it has begun. The request may be
// over.
func (c *Cluster) takeBackRevert(ctx context.Context, id block.VolumeID, snapshot block.SnapshotID) (state.Volume, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.options.Timing.NodeLease)
	defer cancel()
	r, err := c.do(ctx, state.EndRevert{Volume: id, Snapshot: snapshot, GiveUp: true})
	switch {
	case errors.Is(err, block.ErrNotFound):
		return state.Volume{}, nil
	case err != nil && !errors.Is(err, block.ErrInUse):
		return state.Volume{}, err
	}
	return *r.Volume, nil
}

// intendRevert finds a name for the snapshot that is to keep the head, and records the
// intent.
func (c *Cluster) intendRevert(ctx context.Context, command state.RevertVolume, keep bool) (state.Volume, error) {
	first := keptPrefix + time.Now().UTC().Format("20060102-150405")
	const attempts = 16
	for n := 1; ; n++ {
		switch {
		case keep && n == 1:
			command.Keep = first
		case keep:
			command.Keep = fmt.Sprintf("%s-%d", first, n)
		}
		r, err := c.do(ctx, command)
		if err == nil {
			return *r.Volume, nil
		}
		if !keep || n == attempts || !errors.Is(err, block.ErrExists) {
			return state.Volume{}, err
		}
	}
}

// finishReverts sees, for as long as this member leads, to every revert that Raft has as
// an intent.
func (c *Cluster) finishReverts(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	slots := make(chan struct{}, revertsMax)
	left := make(chan struct{}, 1)
	for {
		changed := c.Changes()
		for v := range c.State().RevertingVolumes() {
			if !c.reverts.begin(v.ID) {
				continue
			}
			work.Go(func() {
				c.finishRevert(ctx, v.ID, slots)
				c.reverts.end(v.ID)
				select {
				case left <- struct{}{}:
				default:
				}
			})
		}
		select {
		case <-changed:
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

// finishRevert sees to one revert until there is none any more.
func (c *Cluster) finishRevert(ctx context.Context, id block.VolumeID, slots chan struct{}) {
	c.reverts.note(id, nil)
	pause := retryDelay
	for turn := 0; ; turn++ {
		v, ok := c.State().Volume(id)
		if !ok || !v.Reverting() {
			return
		}
		err := c.carryOnRevert(ctx, &v, turn, slots)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.logger.Warn("a revert does not go on yet", "volume", id, "snapshot", v.Revert.To, "error", err)
			c.reverts.note(id, err)
		}
		if c.pause(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, revertPauseMax)
	}
}

// carryOnRevert does the next step of a revert: keeps the head, or has a node bring the
// snapshot back.
func (c *Cluster) carryOnRevert(ctx context.Context, v *state.Volume, turn int, slots chan struct{}) error {
	if !v.RevertBegun() {
		return c.keepHead(ctx, v)
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	node, err := c.worker(v, turn)
	if err != nil {
		return err
	}
	// Nobody waits for what is not wanted any more.
	asking, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = c.Wait(asking, func(s *state.State) bool {
			now, _ := s.Volume(v.ID)
			return !now.Reverting() || now.Revert.To != v.Revert.To
		})
		// The node may be about to say so.
		_ = c.pause(asking, c.options.Timing.Election)
		cancel()
	})
	defer watching.Wait()
	defer cancel()
	return c.askWorker(asking, node, func(ctx context.Context, agent holdfastv1.NodeAgentClient) error {
		_, err := agent.RevertHead(ctx, &holdfastv1.RevertHeadRequest{VolumeId: v.ID.String(), SnapshotId: v.Revert.To.String()})
		return err
	})
}

// keepHead has the snapshot taken that keeps what the volume is. If that can never be, the
// intent is taken back: nothing was changed yet.
func (c *Cluster) keepHead(ctx context.Context, v *state.Volume) error {
	asking, cancel := context.WithTimeout(ctx, c.options.Timing.Request)
	defer cancel()
	_, err := c.createSnapshot(asking, v.Revert.Keep, v.ID)
	for _, final := range []error{block.ErrNoCapacity, block.ErrExists, block.ErrInvalid} {
		if !errors.Is(err, final) {
			continue
		}
		c.reverts.note(v.ID, err)
		_, backErr := c.takeBackRevert(ctx, v.ID, v.Revert.To)
		return errors.Join(err, backErr)
	}
	return err
}

// EndRevert says that the engine of an epoch, of this node, has made a volume what a
// snapshot was. Refusals are those of state.EndRevert.
func (c *Cluster) EndRevert(ctx context.Context, volume block.VolumeID, snapshot block.SnapshotID, epoch block.Epoch) error {
	_, err := c.do(ctx, state.EndRevert{Volume: volume, Snapshot: snapshot, Epoch: epoch})
	return err
}

// notPublished says how far the revert is that keeps a volume from being published.
func (c *Cluster) notPublished(ctx context.Context, id block.VolumeID, err error) error {
	v, ok := c.State().Volume(id)
	if !ok || !v.Reverting() {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, c.options.Timing.EngineStatus)
	defer cancel()
	percent := int64(0)
	if !v.View.Owner.IsZero() {
		if p := c.engineStatus(asking, &v).GetRevert(); p.GetTotalBytes() > 0 {
			percent = 100 * p.GetDoneBytes() / p.GetTotalBytes()
		}
	}
	return fmt.Errorf("publish volume %s: it is being reverted to snapshot %s, %d%% is done: repeat the request to wait on: %w", id, v.Revert.To, percent, block.ErrUnavailable)
}

// showRevert is what people see of a revert; nil if there is none.
func showRevert(r *state.Revert) *holdfastv1.RevertStatus {
	if r == nil {
		return nil
	}
	return &holdfastv1.RevertStatus{SnapshotId: r.To.String(), KeptAs: r.Keep, Done: r.Done != 0}
}
