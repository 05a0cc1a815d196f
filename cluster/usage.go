package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// usageAskers bounds how many volumes are asked about at a time.
	usageAskers = 8
	// usagePatience is how long each volume of an answer is waited for.
	usagePatience = 5 * time.Second
)

// addVolumeUsage fills in what volumes take. What cannot be had in time is left out:
// who looks at a volume in trouble must not wait for long.
func (c *Cluster) addVolumeUsage(ctx context.Context, volumes []state.Volume, shown []*holdfastv1.Volume) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	ctx, early := endEarly(ctx)
	defer early()
	ctx, late := context.WithTimeout(ctx, time.Duration(len(volumes))*usagePatience)
	defer late()
	inParallel(len(volumes), usageAskers, func(i int) { shown[i].Usage = c.volumeUsage(ctx, &volumes[i]) })
}

// volumeUsage is what the first member that answers says, nil if none does.
func (c *Cluster) volumeUsage(ctx context.Context, v *state.Volume) (usage *holdfastv1.VolumeUsage) {
	c.onMember(ctx, v, func(ctx context.Context, agent holdfastv1.NodeAgentClient, replica block.ReplicaID) (err error) {
		usage, err = agent.GetVolumeUsage(ctx, &holdfastv1.GetVolumeUsageRequest{ReplicaId: replica.String()})
		return err
	})
	return usage
}

// onMember asks nodes with an in-sync replica of a volume, one after the other, until
// one answers. The leader, which knows who is heard of, waits for nobody else.
func (c *Cluster) onMember(ctx context.Context, v *state.Volume, ask func(context.Context, holdfastv1.NodeAgentClient, block.ReplicaID) error) {
	members := slices.DeleteFunc(slices.Clone(v.View.Replicas), func(m block.Member) bool { return !m.InSync })
	// One's own replica costs no journey.
	own := c.NodeID()
	slices.SortStableFunc(members, func(a, b block.Member) int {
		switch {
		case a.Node == own && b.Node != own:
			return -1
		case b.Node == own && a.Node != own:
			return 1
		default:
			return 0
		}
	})
	for _, m := range members {
		err := c.askMember(ctx, m, ask)
		if err == nil {
			return
		}
		c.logger.Debug("a node does not say what a replica takes", "volume", v.ID, "node", m.Node, "error", err)
	}
}

func (c *Cluster) askMember(ctx context.Context, m block.Member, ask func(context.Context, holdfastv1.NodeAgentClient, block.ReplicaID) error) error {
	node, _ := c.State().Node(m.Node)
	conn, err := c.peers.to(node.ControlAddress)
	if err != nil {
		return err
	}
	if c.leading.Load() {
		asked, stop := c.whileHeard(ctx, m.Node)
		defer stop()
		ctx = asked
	}
	return ask(ctx, holdfastv1.NewNodeAgentClient(conn), m.ID)
}

// checkSnapshotSpace refuses another snapshot of a volume whose snapshots hold what they
// may already. One that exists is not another one, and that behind a clone goes with the
// making of it. Two that are taken at once may both be the last: a new one holds nothing
// before the volume is written to.
func (c *Cluster) checkSnapshotSpace(ctx context.Context, name string, volume block.VolumeID) error {
	s := c.State()
	v, ok := s.Volume(volume)
	most := v.SnapshotBytesMax()
	if !ok || most == 0 || len(v.View.Snapshots) == 0 || strings.HasPrefix(name, meansPrefix) {
		return nil
	}
	if _, exists := s.SnapshotByName(name); exists {
		return nil
	}
	usage := c.volumeUsage(ctx, &v)
	switch {
	case usage == nil:
		return fmt.Errorf("what its snapshots hold is bounded and cannot be found out, as no node with an in-sync replica answers: %w", block.ErrUnavailable)
	case usage.GetSnapshotBytes() < most:
		return nil
	}
	share := ""
	if p := v.SnapshotSpaceLimit().Percent; p > 0 {
		share = fmt.Sprintf(" (%d%% of its size)", p)
	}
	return fmt.Errorf("the %d snapshots of volume %q hold %s and may hold %s%s: delete some of them, or let them hold more: %w",
		len(v.View.Snapshots), v.Name, showBytes(usage.GetSnapshotBytes()), showBytes(most), share, block.ErrNoCapacity)
}

// SetVolume implements holdfastv1.VolumesServer.
func (s volumesService) SetVolume(ctx context.Context, req *holdfastv1.SetVolumeRequest) (*holdfastv1.Volume, error) {
	id, err := parseVolumeID(req.GetId())
	if err != nil {
		return nil, fmt.Errorf("set volume: %w", err)
	}
	command := state.SetVolume{Volume: id}
	if req.GetMaxSnapshotSpace() != nil {
		limit, err := checkLimit(req.GetMaxSnapshotSpace())
		if err != nil {
			return nil, fmt.Errorf("set volume %s: %w", id, err)
		}
		command.SnapshotSpace = &limit
	}
	r, err := s.cluster.do(ctx, command)
	if err != nil {
		return nil, err
	}
	return showVolume(r.Volume), nil
}

func checkLimit(l *holdfastv1.SpaceLimit) (state.SpaceLimit, error) {
	limit := state.SpaceLimit{Bytes: l.GetBytes(), Percent: int(l.GetPercent())}
	return limit, limit.Validate()
}

// showLimit is nil for no limit.
func showLimit(l state.SpaceLimit) *holdfastv1.SpaceLimit {
	if l == (state.SpaceLimit{}) {
		return nil
	}
	return &holdfastv1.SpaceLimit{Bytes: l.Bytes, Percent: int32(l.Percent)}
}
