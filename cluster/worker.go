package cluster

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// worker is the node that does something to a volume: the one whose engine serves it,
// or for a volume that is published to nobody one that has an in-sync replica and
// borrows it. turn chooses among those.
func (c *Cluster) worker(v *state.Volume, turn int) (state.Node, error) {
	s := c.State()
	var nodes []block.NodeID
	switch {
	case !v.Ready():
		return state.Node{}, fmt.Errorf("%d of its replicas are still being made: %w", len(v.Pending), block.ErrUnavailable)
	case !v.View.Owner.IsZero():
		nodes = []block.NodeID{v.View.Owner}
	case !v.Published.IsZero():
		return state.Node{}, fmt.Errorf("it is published to node %s and not staged there: %w", showNode(s, v.Published), block.ErrUnavailable)
	default:
		for _, m := range v.View.Replicas {
			if m.InSync && c.leases.alive(m.Node) {
				nodes = append(nodes, m.Node)
			}
		}
	}
	if len(nodes) == 0 {
		return state.Node{}, fmt.Errorf("no node with an in-sync replica is reachable: %w", block.ErrUnavailable)
	}
	node, ok := s.Node(nodes[turn%len(nodes)])
	if !ok || !c.leases.alive(node.ID) {
		return state.Node{}, fmt.Errorf("node %s, which has it, is not reachable: %w", showNode(s, v.View.Owner), block.ErrUnavailable)
	}
	return node, nil
}

// showNode is a node's name, or its ID if it has none.
func showNode(s *state.State, id block.NodeID) string {
	if n, ok := s.Node(id); ok {
		return n.Name
	}
	return id.String()
}

// onWorker asks workers of a volume for something, on the leader, until the state says
// that it is done, or the answer is that it is pointless (block.ErrConflict, and what
// can never be), or ctx ends.
func (c *Cluster) onWorker(ctx context.Context, volume block.VolumeID, done func(*state.State) (bool, error),
	ask func(context.Context, holdfastv1.NodeAgentClient) error) error {
	last := fmt.Errorf("there was no time for it: %w", block.ErrUnavailable)
	for turn := 0; ; turn++ {
		if over, err := done(c.State()); over || err != nil {
			return err
		}
		v, ok := c.State().Volume(volume)
		if !ok || v.Deleting {
			return fmt.Errorf("volume %s: %w", volume, block.ErrNotFound)
		}
		node, err := c.worker(&v, turn)
		if err == nil {
			err = c.askWorker(ctx, node, ask)
		}
		if err == nil {
			// The word of the node may arrive before the commit that it speaks of.
			ahead, cancel := context.WithTimeout(ctx, 2*c.options.Timing.Election)
			_ = c.Wait(ahead, func(s *state.State) bool { over, err := done(s); return over || err != nil })
			cancel()
			if over, err := done(c.State()); over || err != nil {
				return err
			}
		}
		if pointless(err) || errors.Is(err, block.ErrConflict) {
			// It may have been done all the same.
			if over, doneErr := done(c.State()); over || doneErr != nil {
				return doneErr
			}
			return err
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		if c.pause(ctx, retryDelay) != nil {
			return fmt.Errorf("volume %s: %s; the same request may be repeated: %w", volume, last.Error(), block.ErrUnavailable)
		}
	}
}

// askWorker asks one node, for as long as it is heard of.
func (c *Cluster) askWorker(ctx context.Context, node state.Node, ask func(context.Context, holdfastv1.NodeAgentClient) error) error {
	conn, err := c.peers.to(node.ControlAddress)
	if err != nil {
		return err
	}
	asked, stop := c.whileHeard(ctx, node.ID)
	defer stop()
	if err := ask(asked, holdfastv1.NewNodeAgentClient(conn)); err != nil {
		return fmt.Errorf("node %s: %w", node.Name, err)
	}
	return nil
}

// fenceBorrowers ends the attachments of dead nodes that have borrowed a volume. No
// client has anything of theirs, and the next engine's epoch fences what they left.
func (c *Cluster) fenceBorrowers(ctx context.Context) {
	for v := range c.State().BorrowedVolumes() {
		if c.leases.alive(v.View.Owner) {
			continue
		}
		c.logger.Warn("a volume is taken from a dead node that had borrowed it", "volume", v.ID, "node", v.View.Owner)
		if err := c.EndAttachment(ctx, v.ID, v.View.Attachment); err != nil && ctx.Err() == nil {
			c.logger.Warn("it cannot be taken yet", "volume", v.ID, "error", err)
		}
	}
}

// pointless reports whether asking again cannot help.
func pointless(err error) bool {
	return errors.Is(err, block.ErrInvalid) || status.Code(err) == codes.Unimplemented
}
