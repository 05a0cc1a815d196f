package robustness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// leader is the node that leads the Raft group, and its term.
func (s *stage) leader(ctx context.Context) (leader int, term uint64, err error) {
	return s.leaderAfter(ctx, 0)
}

// leaderAfter is the leader of a later term, once there is one.
func (s *stage) leaderAfter(ctx context.Context, after uint64) (leader int, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = harness.Wait(ctx, "a leader", func(ctx context.Context) error {
		found, now, err := s.cluster.Leader(ctx, after)
		if err == nil {
			leader, term = found.Index, now
		}
		return err
	})
	return leader, term, err
}

// voters are the nodes that vote in the Raft group.
func (s *stage) voters(ctx context.Context) (voters []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = harness.Wait(ctx, "the voters", func(ctx context.Context) error {
		list, err := s.node(s.home).Cluster().ListNodes(ctx, &holdfastv1.ListNodesRequest{})
		voters = nil
		for _, n := range list.GetNodes() {
			if found := s.cluster.Node(n.GetId()); found != nil && n.GetVoter() {
				voters = append(voters, found.Index)
			}
		}
		return err
	})
	return voters, err
}

// changes are the revision of the volume and the term of the Raft group.
func (s *stage) changes(ctx context.Context) (revision, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	v, err := s.node(s.home).Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: s.volume})
	if err != nil {
		return 0, 0, fmt.Errorf("look at volume: %w", err)
	}
	_, term, err = s.leader(ctx)
	return v.GetRevision(), term, err
}

// inSyncOn are the nodes with in-sync replicas.
func (s *stage) inSyncOn(ctx context.Context) (nodes []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	v, err := s.answering(s.home).Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: s.volume})
	if err != nil {
		return nil, fmt.Errorf("look at volume: %w", err)
	}
	for _, r := range v.GetReplicas() {
		if r.GetInSync() {
			nodes = append(nodes, s.cluster.Node(r.GetNodeId()).Index)
		}
	}
	return nodes, nil
}

// inSyncOnly waits until the replica on one node is the only one that is in sync.
func (s *stage) inSyncOnly(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	return harness.Wait(ctx, "one replica to be left in sync", func(ctx context.Context) error {
		nodes, err := s.inSyncOn(ctx)
		if err == nil && !slices.Equal(nodes, []int{node}) {
			err = fmt.Errorf("in sync are those on nodes %v", nodes)
		}
		return err
	})
}

// inSync waits until all replicas are.
func (s *stage) inSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	return harness.Wait(ctx, "all replicas to be in sync", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		v, err := s.node(s.home).Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: s.volume})
		if err != nil {
			return err
		}
		var away []string
		for _, r := range v.GetReplicas() {
			if !r.GetInSync() {
				away = append(away, s.cluster.Node(r.GetNodeId()).Name)
			}
		}
		if len(away) > 0 {
			return fmt.Errorf("away are %v; the engine says %v", away, v.GetEngine())
		}
		if v.GetEngine().GetDivergentBytes() > 0 {
			return fmt.Errorf("%d bytes are divergent", v.GetEngine().GetDivergentBytes())
		}
		return nil
	})
}

// compare reads every replica from its own disk and compares it with what the
// volume reads as.
func (s *stage) compare(ctx context.Context, want harness.Sums) error {
	var copies []harness.Copy
	waiting, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := harness.Wait(waiting, "all replicas to be served", func(ctx context.Context) error {
		var err error
		if copies, err = s.cluster.Copies(ctx, s.volume); err == nil && len(copies) != replicas {
			err = fmt.Errorf("%d are", len(copies))
		}
		return err
	})
	if err != nil {
		return err
	}
	errs := make([]error, len(copies))
	var comparing sync.WaitGroup
	for i, c := range copies {
		comparing.Go(func() {
			sums, err := c.Sums(ctx)
			if differ := want.Differing(sums); err == nil && len(differ) > 0 {
				err = fmt.Errorf("%w: the replica on %s differs from the volume in %d extents of %d bytes, the first are %v",
					errDiffers, c.Node.Name, len(differ), block.ExtentSize, differ[:min(len(differ), 8)])
			}
			errs[i] = err
		})
	}
	comparing.Wait()
	return errors.Join(errs...)
}

// errDiffers: a replica is not what it should be.
var errDiffers = errors.New("replicas differ")
