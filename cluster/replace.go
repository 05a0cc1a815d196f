package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// replicaMove is what is to be said of a replica that is to leave a disk.
type replicaMove struct {
	volume state.Volume
	old    block.ReplicaID
	disk   block.DiskID
	state  holdfastv1.ReplicaMove_State
	reason string
	// next is where it goes, its zero value while that is not decided.
	next state.Placement
}

// resyncWork are replicas of a detached volume that can be brought in sync.
type resyncWork struct {
	volume   state.Volume
	replicas []block.ReplicaID
}

// movePlan is what the leader is to do about replicas. The IDs of new ones are still to
// be drawn.
type movePlan struct {
	begin   []state.ReplaceReplica
	abandon []state.AbandonReplacement
	resyncs []resyncWork
	moves   []replicaMove
}

// planner makes a plan out of a state and what the leader knows of the disks. It is
// decided by its fields alone.
type planner struct {
	state *state.State
	disks []candidate
	// limit bounds the replicas that are moved at the same time.
	limit int
	// gone reports whether a node was away for so long that nobody waits for it.
	gone func(block.NodeID) bool

	byID    map[block.DiskID]*candidate
	running int
	// begun are the volumes of which a replica begins to move by this plan: where a
	// second one could go depends on that.
	begun map[block.VolumeID]bool
	plan  movePlan
}

// decide makes the plan.
func (p *planner) decide() movePlan {
	p.begun = map[block.VolumeID]bool{}
	p.byID = map[block.DiskID]*candidate{}
	for i := range p.disks {
		p.byID[p.disks[i].disk.ID] = &p.disks[i]
	}
	volumes := p.state.UnsettledVolumes()
	if draining(p.state) {
		volumes = p.state.Volumes()
	}
	var waiting []replicaMove
	for v := range volumes {
		for _, r := range v.Replacing {
			p.followed(&v, r)
		}
		waiting = append(waiting, p.lookAt(&v)...)
	}
	for _, m := range waiting {
		if m.reason == "" {
			m.reason = p.beginMove(&m)
		}
		p.plan.moves = append(p.plan.moves, m)
	}
	return p.plan
}

// draining reports whether any disk is to be emptied. Only then there can be something to
// do about a volume that is settled.
func draining(s *state.State) bool {
	for d := range s.Disks() {
		if d.Draining {
			return true
		}
	}
	return false
}

// draining reports whether a disk is to be emptied.
func (p *planner) draining(disk block.DiskID) bool {
	k := p.byID[disk]
	return k != nil && k.disk.Draining
}

// followed looks at a replacement under way: whether it is still wanted, and whether
// its new replica can still come about. One that cannot go on for now takes no place
// from others.
func (p *planner) followed(v *state.Volume, r state.Replacement) {
	old, next := v.View.Member(r.Old), v.View.Member(r.New.Replica)
	if next != nil && next.InSync {
		return
	}
	lost := p.byID[r.New.Disk] == nil || p.byID[r.New.Disk].failure != "" || p.draining(r.New.Disk) || p.gone(r.New.Node)
	if !p.draining(old.Disk) || lost {
		p.plan.abandon = append(p.plan.abandon, state.AbandonReplacement{Volume: v.ID, Replica: r.New.Replica})
		return
	}
	if p.obstacle(v) == "" && p.unusable(r.New.Disk) == "" {
		p.running++
	}
}

// lookAt notes what is known of the replicas of a volume on disks that are drained, and
// returns those for which nothing was begun yet.
func (p *planner) lookAt(v *state.Volume) (waiting []replicaMove) {
	for i := range v.View.Replicas {
		m := &v.View.Replicas[i]
		if !p.draining(m.Disk) {
			continue
		}
		move := replicaMove{volume: *v, old: m.ID, disk: m.Disk, state: holdfastv1.ReplicaMove_WAITING}
		r := v.ReplacementOf(m.ID)
		switch {
		case v.Deleting:
			p.deleting(move)
		case r != nil:
			p.under(move, v, r)
		case slices.ContainsFunc(v.Replacing, func(r state.Replacement) bool { return r.New.Replica == m.ID }):
			move.reason = "it is taking the place of another replica"
			waiting = append(waiting, move)
		default:
			move.reason = p.obstacle(v)
			waiting = append(waiting, move)
		}
	}
	for _, q := range v.Retired {
		if p.draining(q.Disk) {
			p.deleting(replicaMove{volume: *v, old: q.Replica, disk: q.Disk})
		}
	}
	p.resync(v)
	return waiting
}

// under notes a move that was begun.
func (p *planner) under(move replicaMove, v *state.Volume, r *state.Replacement) {
	move.state, move.next = holdfastv1.ReplicaMove_COPYING, r.New
	switch next := v.View.Member(r.New.Replica); {
	case next != nil && next.InSync:
		if move.state, move.reason = holdfastv1.ReplicaMove_LEAVING, p.obstacle(v); v.View.InSync() <= v.Parameters.MinInSync {
			move.reason = fmt.Sprintf("only %d replicas are in sync, and writes need %d", v.View.InSync(), v.Parameters.MinInSync)
		}
	case p.unusable(r.New.Disk) != "":
		move.reason = p.unusable(r.New.Disk)
	case next != nil:
		move.reason = p.obstacle(v)
	}
	p.plan.moves = append(p.plan.moves, move)
}

// deleting notes a tombstone.
func (p *planner) deleting(move replicaMove) {
	move.state, move.reason = holdfastv1.ReplicaMove_DELETING, p.unusable(move.disk)
	p.plan.moves = append(p.plan.moves, move)
}

// unusable says why nothing can be done on a disk now, empty if something can.
func (p *planner) unusable(disk block.DiskID) string {
	switch k := p.byID[disk]; {
	case k == nil:
		return fmt.Sprintf("disk %s is not there", disk.Short())
	case !k.alive:
		return fmt.Sprintf("node %s of disk %s is not reachable", k.node.Name, disk.Short())
	case k.failure != "":
		return fmt.Sprintf("disk %s has failed: %s", disk.Short(), k.failure)
	default:
		return ""
	}
}

// obstacle says why no replica of a volume can be brought in sync now, empty if one can.
func (p *planner) obstacle(v *state.Volume) string {
	maker, lends := p.state.Lending(v.ID)
	switch {
	case !v.Ready():
		return "the volume is still being made"
	case lends:
		return fmt.Sprintf("volume %s is being made from it", maker)
	case v.Reverting():
		return "the volume is being reverted"
	case v.View.Owner.IsZero() && !v.Published.IsZero():
		return fmt.Sprintf("the volume is published to node %s and not staged there", showNode(p.state, v.Published))
	case !slices.ContainsFunc(v.View.Replicas, func(m block.Member) bool { return m.InSync && p.unusable(m.Disk) == "" }):
		return "no replica that is in sync can be reached"
	default:
		return ""
	}
}

// beginMove finds a place for a replica and puts the beginning into the plan. It returns
// why not, if not.
func (p *planner) beginMove(m *replicaMove) string {
	switch {
	case p.begun[m.volume.ID]:
		return "another replica of the volume is about to begin"
	case p.running >= p.limit:
		return fmt.Sprintf("it waits for its turn: %d replicas are moved at a time", p.limit)
	}
	k, err := placeReplacement(p.disks, &m.volume, m.old, p.byID[m.disk].disk.Successor)
	if err != nil {
		return err.Error()
	}
	p.running++
	p.begun[m.volume.ID] = true
	to := p.byID[k.disk.ID]
	to.provisioned += max(m.volume.View.Size, m.volume.GrowTo)
	to.replicas++
	p.plan.begin = append(p.plan.begin, state.ReplaceReplica{
		Volume: m.volume.ID, Old: m.old, New: state.Placement{Node: k.node.ID, Disk: k.disk.ID}, DecidedAt: p.state.Index(),
	})
	return "it is about to begin"
}

// placeReplacement chooses a disk for what is to take the place of a replica, by the
// rules for a new volume: the wanted one if it fits, else what offers most, on a node
// that has no other replica of the volume.
func placeReplacement(candidates []candidate, v *state.Volume, old block.ReplicaID, wanted block.DiskID) (candidate, error) {
	leaves := v.View.Member(old)
	taken := map[block.NodeID]bool{}
	for _, m := range v.View.Replicas {
		taken[m.Node] = taken[m.Node] || m.ID != old
	}
	for _, q := range v.Unmade() {
		taken[q.Node] = true
	}
	rest := slices.DeleteFunc(slices.Clone(candidates), func(k candidate) bool { return taken[k.node.ID] || k.disk.ID == leaves.Disk })
	parameters, size := v.Parameters, max(v.View.Size, v.GrowTo)
	parameters.Replicas = 1
	if i := slices.IndexFunc(rest, func(k candidate) bool { return k.disk.ID == wanted }); i >= 0 && rest[i].unfit(parameters) == "" && rest[i].offer() >= size {
		return rest[i], nil
	}
	if len(rest) == 0 {
		return candidate{}, fmt.Errorf("there is no other disk on a node without a replica of the volume: %w", block.ErrNoCapacity)
	}
	chosen, err := place(rest, size, parameters)
	if err != nil {
		return candidate{}, err
	}
	return chosen[0], nil
}

// resync notes what can be brought in sync of a volume that nobody has.
func (p *planner) resync(v *state.Volume) {
	if v.Deleting || !v.View.Owner.IsZero() {
		return
	}
	var replicas []block.ReplicaID
	for _, m := range v.View.Replicas {
		if !m.InSync && p.unusable(m.Disk) == "" {
			replicas = append(replicas, m.ID)
		}
	}
	if _, leaves := v.Retiring(); (leaves || len(replicas) > 0) && p.obstacle(v) == "" {
		p.plan.resyncs = append(p.plan.resyncs, resyncWork{volume: *v, replicas: replicas})
	}
}

// planMoves is the plan of this leader. The candidates are changed by it.
func (c *Cluster) planMoves(s *state.State, candidates []candidate) movePlan {
	p := planner{state: s, disks: candidates, limit: s.Settings().Moves(), gone: func(n block.NodeID) bool {
		return !c.leases.alive(n) && c.leases.quietFor(n) > c.options.Timing.MovePatience
	}}
	return p.decide()
}

// resyncPause is how long a volume rests after a resync that came to nothing: twice as
// long each time, up to a bound.
func resyncPause(failures int) time.Duration {
	const first, most = time.Second, 2 * time.Minute
	return min(first<<min(failures, 10), most)
}
