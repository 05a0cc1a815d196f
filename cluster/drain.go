package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// mover is the leader's care for replicas: it moves them off disks that are drained, and
// has detached volumes resynced. What it decides is in Raft, so that the next leader goes
// on; what it remembers is but who rests how long.
type mover struct {
	cluster *Cluster
	jobs    sync.WaitGroup

	mu sync.Mutex
	// rests are those of detached volumes with something to resync.
	rests map[block.VolumeID]*rest
}

// rest is what is remembered of the resyncs of a detached volume.
type rest struct {
	running  bool
	failures int
	until    block.Instant
	err      error
}

// calm is how long a volume must have been detached before it is resynced: one that goes
// from node to node is not worth an epoch in between.
const calm = 2 * time.Second

// move runs beside the leader's other duties until its term ends.
func (c *Cluster) move(ctx context.Context) {
	m := &mover{cluster: c, rests: map[block.VolumeID]*rest{}}
	c.mover.Store(m)
	defer m.jobs.Wait()
	for c.pause(ctx, c.options.Timing.Heartbeat) == nil {
		if c.leading.Load() {
			m.look(ctx)
		}
	}
}

// look does what the plan of this moment asks for.
func (m *mover) look(ctx context.Context) {
	c := m.cluster
	s := c.State()
	if !busy(s) {
		m.pick(nil, 0)
		return
	}
	plan := c.planMoves(s, c.candidates(s))
	for _, a := range plan.abandon {
		c.logger.Info("a replica that was to take the place of another is given up", "volume", a.Volume, "replica", a.Replica)
		m.apply(ctx, a)
	}
	if len(plan.begin) > 0 {
		m.begin(ctx)
	}
	for _, w := range m.pick(plan.resyncs, s.Settings().Moves()) {
		m.jobs.Go(func() { m.resync(ctx, w) })
	}
}

// busy reports whether there is anything to plan: in a cluster that is well there is not.
func busy(s *state.State) bool {
	if draining(s) {
		return true
	}
	for v := range s.UnsettledVolumes() {
		if incomplete(&v) {
			return true
		}
	}
	return false
}

// incomplete reports whether a replica of a volume is to be replaced, or brought in sync.
func incomplete(v *state.Volume) bool {
	return len(v.Replacing) > 0 || v.Ready() && v.View.InSync() < len(v.View.Replicas)
}

// begin begins what the plan says, which is made anew while nobody else decides about
// the same space.
func (m *mover) begin(ctx context.Context) {
	c := m.cluster
	release, err := c.lockPlacement(ctx)
	if err != nil {
		return
	}
	defer release()
	s := c.State()
	for _, b := range c.planMoves(s, c.candidates(s)).begin {
		id, err := block.NewID(c.options.Random)
		if err != nil {
			c.logger.Error("no ID for a replica can be drawn", "error", err)
			return
		}
		b.New.Replica = block.ReplicaID{ID: id}
		c.logger.Info("a replica is to be replaced", "volume", b.Volume, "replica", b.Old, "new", b.New.Replica, "node", b.New.Node, "disk", b.New.Disk)
		m.apply(ctx, b)
	}
}

// apply carries out a decision. One that is refused was overtaken and will be made
// anew, if it is still needed.
func (m *mover) apply(ctx context.Context, command state.Command) {
	ctx, cancel := context.WithTimeout(ctx, m.cluster.options.Timing.NodeLease)
	defer cancel()
	if _, err := m.cluster.do(ctx, command); err != nil && ctx.Err() == nil {
		m.cluster.logger.Warn("a replica cannot be moved yet", "command", command.Kind(), "error", err)
	}
}

// pick chooses the volumes to be resynced now, so that no more than limit are at a time,
// and forgets what needs no resync any more.
func (m *mover) pick(wanted []resyncWork, limit int) (chosen []resyncWork) {
	now := m.cluster.options.Clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	running, still := 0, map[block.VolumeID]bool{}
	for _, w := range wanted {
		still[w.volume.ID] = true
	}
	for id, r := range m.rests {
		if r.running {
			running++
		} else if !still[id] {
			delete(m.rests, id)
		}
	}
	for _, w := range wanted {
		r := m.rests[w.volume.ID]
		if r == nil {
			r = &rest{until: now + block.Instant(calm)}
			m.rests[w.volume.ID] = r
		}
		if !r.running && now >= r.until && running < limit {
			r.running = true
			running++
			chosen = append(chosen, w)
		}
	}
	return chosen
}

// resync has a node bring a detached volume in sync, however long that takes, unless
// somebody wants the volume.
func (m *mover) resync(ctx context.Context, w resyncWork) {
	c := m.cluster
	m.mu.Lock()
	turn := m.rests[w.volume.ID].failures
	m.mu.Unlock()
	node, err := c.worker(&w.volume, turn)
	if err == nil {
		req := &holdfastv1.ResyncVolumeRequest{VolumeId: w.volume.ID.String()}
		for _, id := range w.replicas {
			req.ReplicaIds = append(req.ReplicaIds, id.String())
		}
		err = c.askWorker(ctx, node, func(ctx context.Context, agent holdfastv1.NodeAgentClient) error {
			_, err := agent.ResyncVolume(ctx, req)
			return err
		})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rests[w.volume.ID]
	r.running, r.err = false, err
	if err == nil {
		r.failures = 0
		return
	}
	r.until = c.options.Clock.Now() + block.Instant(resyncPause(r.failures))
	r.failures++
	if ctx.Err() == nil && !errors.Is(err, block.ErrInUse) {
		c.logger.Info("a detached volume cannot be resynced yet", "volume", w.volume.ID, "node", node.Name, "attempts", r.failures, "error", err)
	}
}

// failed is why the last resync of a detached volume came to nothing, nil if it did not.
func (m *mover) failed(id block.VolumeID) error {
	if m == nil {
		return nil // a leader that has just begun
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rests[id]; r != nil && !r.running {
		return r.err
	}
	return nil
}

// addMoves tells of the disks that are drained what is still on them.
func (c *Cluster) addMoves(ctx context.Context, s *state.State, candidates []candidate, shown []*holdfastv1.Disk) {
	by := map[string]*holdfastv1.Disk{}
	for _, d := range shown {
		if d.GetDraining() {
			by[d.GetId()] = d
		}
	}
	if len(by) == 0 {
		return
	}
	moves := c.planMoves(s, candidates).moves
	m := c.mover.Load()
	var copied []state.Volume
	var engines []*holdfastv1.Volume
	var copying []*holdfastv1.ReplicaMove
	for i := range moves {
		o := &moves[i]
		shown := o.show()
		if o.state == holdfastv1.ReplicaMove_COPYING && o.reason == "" {
			copied, engines, copying = append(copied, o.volume), append(engines, &holdfastv1.Volume{}), append(copying, shown)
			if err := m.failed(o.volume.ID); err != nil {
				shown.Reason = err.Error()
			}
		}
		by[o.disk.String()].Moves = append(by[o.disk.String()].Moves, shown)
	}
	c.addEngines(ctx, copied, engines)
	for i, move := range copying {
		for _, r := range engines[i].GetEngine().GetResyncs() {
			if r.GetReplicaId() == move.GetNewReplicaId() {
				move.RemainingBytes, move.Reason = r.GetRemainingBytes(), r.GetWaits()
			}
		}
	}
}

// show shows a move.
func (o *replicaMove) show() *holdfastv1.ReplicaMove {
	shown := &holdfastv1.ReplicaMove{
		VolumeId: o.volume.ID.String(), VolumeName: o.volume.Name, ReplicaId: o.old.String(), State: o.state, Reason: o.reason,
		SizeBytes: o.volume.View.Size, RemainingBytes: -1,
	}
	if !o.next.Replica.IsZero() {
		shown.NewReplicaId, shown.NewDiskId = o.next.Replica.String(), o.next.Disk.String()
	}
	return shown
}
