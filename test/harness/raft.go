package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// leaderTimeout bounds the question who leads, to one node.
const leaderTimeout = time.Second

// Leader is the node that leads the Raft group, and its term, which is above after, as
// some node knows it now. There may be none: Wait for one.
func (c *Cluster) Leader(ctx context.Context, after uint64) (leader *Node, term uint64, err error) {
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, leaderTimeout)
		info, err := n.Cluster().GetCluster(asking, &holdfastv1.GetClusterRequest{})
		cancel()
		if err != nil || info.GetRaftTerm() <= after {
			continue
		}
		if found := c.Node(info.GetLeaderNodeId()); found != nil {
			return found, info.GetRaftTerm(), nil
		}
	}
	return nil, 0, errors.New("nobody knows a leader")
}

// WaitVoters waits until every node runs, is alive and votes in the Raft group, as the
// first one knows it: a new cluster cannot do without its first node before.
func (c *Cluster) WaitVoters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return Wait(ctx, "all nodes to vote", func(ctx context.Context) error {
		list, err := c.Nodes[0].Cluster().ListNodes(ctx, &holdfastv1.ListNodesRequest{})
		if err != nil {
			return err
		}
		for _, n := range c.Nodes {
			votes := func(k *holdfastv1.Node) bool { return k.GetName() == n.Name && k.GetVoter() && k.GetAlive() }
			if !n.Running() || !slices.ContainsFunc(list.GetNodes(), votes) {
				return fmt.Errorf("%s does not", n.Name)
			}
		}
		return nil
	})
}
