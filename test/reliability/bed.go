package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/links"
)

const (
	replicas = 3
	mebibyte = 1 << 20
	// callLimit bounds a call to a daemon, syncLimit the return of a replica,
	// cleanLimit the taking down of a cluster.
	callLimit  = 60 * time.Second
	syncLimit  = 5 * time.Minute
	cleanLimit = 2 * time.Minute
	// lookPause is the pause between two looks at what has no event.
	lookPause = 20 * time.Millisecond
)

// bed is three daemons behind links that can be cut, and one volume with a replica
// on each.
type bed struct {
	network *links.Network
	cluster *harness.Cluster
	volume  string
	size    int64
	// home is the node to which the volume is attached.
	home   int
	device *device
	ledger *ledger
	meter  *meter
}

// newBed makes all of it, and attaches the volume to the first node.
func newBed(ctx context.Context, binaries harness.Binaries, dir string, size int64) (_ *bed, err error) {
	b := &bed{size: size, device: newDevice(), ledger: newLedger(size), meter: &meter{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.clean(context.WithoutCancel(ctx)))
		}
	}()
	if b.network, err = links.New(ctx, replicas); err != nil {
		return nil, err
	}
	if err := b.network.AllowCuts(ctx); err != nil {
		return nil, err
	}
	b.cluster, err = harness.Start(ctx, harness.Options{
		Binaries: binaries, Dir: dir, Nodes: replicas,
		DaemonArgs: []string{"--frontend", "socket"},
		Hosts:      b.network.Addresses(),
		Dial:       b.network.Dial,
		Prefix:     func(n *harness.Node) []string { return b.network.Enter(indexOf(n)) },
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.voters(ctx), b.cluster.AddDisks(ctx, "ssd")); err != nil {
		return nil, err
	}
	err = harness.Wait(ctx, "the volume to be made", func(ctx context.Context) error {
		v, err := b.node(0).Volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
			Name: "reliable", SizeBytes: size, Parameters: &holdfastv1.VolumeParameters{Replicas: replicas},
		})
		b.volume = v.GetId()
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, b.attach(ctx, 0)
}

// voters waits until every node is one: a new cluster cannot do without its first
// node before.
func (b *bed) voters(ctx context.Context) error {
	return b.until(ctx, "all nodes to vote", func(ctx context.Context) error {
		list, err := b.node(0).Cluster().ListNodes(ctx, &holdfastv1.ListNodesRequest{})
		if err != nil {
			return err
		}
		for _, n := range list.GetNodes() {
			if !n.GetVoter() {
				return fmt.Errorf("node %s does not", n.GetName())
			}
		}
		return nil
	})
}

// indexOf is the position of a node, which its name tells.
func indexOf(n *harness.Node) int {
	var i int
	if _, err := fmt.Sscanf(n.Name, "n%d", &i); err != nil {
		panic(err)
	}
	return i - 1
}

func (b *bed) node(i int) *harness.Node { return b.cluster.Nodes[i] }

// others are all nodes but one.
func (b *bed) others(but int) []int {
	var all []int
	for i := range b.cluster.Nodes {
		if i != but {
			all = append(all, i)
		}
	}
	return all
}

// attach publishes and stages the volume on a node, and lets the device use it.
func (b *bed) attach(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	dial, err := b.node(node).Attach(ctx, b.volume)
	if err != nil {
		return err
	}
	b.home = node
	b.device.use(dial)
	return nil
}

// detach takes the volume from its node, by a call to another one.
func (b *bed) detach(ctx context.Context, asked int) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	b.device.use(nil)
	_, err := b.node(asked).Volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{
		VolumeId: b.volume, NodeId: b.node(b.home).ID(),
	})
	if err != nil {
		return fmt.Errorf("unpublish volume from %s: %w", b.node(b.home).Name, err)
	}
	return nil
}

// leader is the node that leads the Raft group, and the term.
func (b *bed) leader(ctx context.Context) (leader int, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = b.until(ctx, "a leader", func(ctx context.Context) error {
		for _, n := range b.cluster.Nodes {
			if !n.Running() {
				continue
			}
			info, err := n.Cluster().GetCluster(ctx, &holdfastv1.GetClusterRequest{})
			if err != nil {
				continue
			}
			if found := b.cluster.Node(info.GetLeaderNodeId()); found != nil {
				leader, term = indexOf(found), info.GetRaftTerm()
				return nil
			}
		}
		return errors.New("nobody knows one")
	})
	return leader, term, err
}

// look is the volume as its node sees it.
func (b *bed) look(ctx context.Context) (*holdfastv1.Volume, error) {
	v, err := b.node(b.home).Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: b.volume})
	if err != nil {
		return nil, fmt.Errorf("look at volume: %w", err)
	}
	return v, nil
}

// inSync waits until all replicas are.
func (b *bed) inSync(ctx context.Context) error {
	return b.until(ctx, "all replicas to be in sync", func(ctx context.Context) error {
		v, err := b.look(ctx)
		if err != nil {
			return err
		}
		for _, r := range v.GetReplicas() {
			if !r.GetInSync() {
				return fmt.Errorf("that on %s is not; the engine says %v", b.cluster.Node(r.GetNodeId()).Name, v.GetEngine())
			}
		}
		return nil
	})
}

// away waits until the volume goes on without the replica of a node.
func (b *bed) away(ctx context.Context, node int) error {
	return b.until(ctx, "a replica to be given up", func(ctx context.Context) error {
		v, err := b.look(ctx)
		if err != nil {
			return err
		}
		gone := func(r *holdfastv1.Replica) bool { return r.GetNodeId() == b.node(node).ID() && !r.GetInSync() }
		if !slices.ContainsFunc(v.GetReplicas(), gone) {
			return errors.New("it is in sync")
		}
		return nil
	})
}

// until asks ready until it answers nil, more often than harness.Wait.
func (b *bed) until(ctx context.Context, what string, ready func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	for {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		err := ready(asking)
		cancel()
		if err == nil {
			return nil
		}
		if !sleep(ctx, lookPause) {
			return fmt.Errorf("wait for %s: %w; last: %w", what, ctx.Err(), err)
		}
	}
}

// isolate cuts a node off from all others, without a reset.
func (b *bed) isolate(ctx context.Context, node int) error {
	var errs []error
	for _, other := range b.others(node) {
		errs = append(errs, b.network.Cut(ctx, node, other), b.network.Cut(ctx, other, node))
	}
	return errors.Join(errs...)
}

// verify reads the whole volume back, as the ledger wants it, and compares it with
// every replica on its own disk. Nobody writes meanwhile.
func (b *bed) verify(ctx context.Context) error {
	if err := b.inSync(ctx); err != nil {
		return err
	}
	if err := flush(ctx, b.device); err != nil {
		return err
	}
	judged := readerAt(func(p []byte, offset int64) (int, error) {
		if err := readBlocks(ctx, b.device, b.ledger, p, offset); err != nil {
			return 0, err // with bytes, it would be taken for the end
		}
		return len(p), nil
	})
	want, err := harness.SumsOf(ctx, io.NewSectionReader(judged, 0, b.size))
	if err != nil {
		return err
	}
	copies, err := b.cluster.Copies(ctx, b.volume)
	if err != nil {
		return err
	}
	if len(copies) != replicas {
		return fmt.Errorf("compare replicas: %d are served", len(copies))
	}
	for _, c := range copies {
		sums, err := c.Sums(ctx)
		if err != nil {
			return err
		}
		if differ := want.Differing(sums); len(differ) > 0 {
			return fmt.Errorf("%w: the replica on %s differs from the volume in %d extents, the first are %v",
				errLost, c.Node.Name, len(differ), differ[:min(len(differ), 8)])
		}
	}
	return nil
}

// readerAt is a function that reads at an offset.
type readerAt func(p []byte, offset int64) (int, error)

func (r readerAt) ReadAt(p []byte, offset int64) (int, error) { return r(p, offset) }

// clean ends everything.
func (b *bed) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	b.device.use(nil)
	var errs []error
	if b.cluster != nil {
		errs = append(errs, b.network.Heal(ctx), b.cluster.Stop(ctx))
	}
	if b.network != nil {
		errs = append(errs, b.network.Close())
	}
	return errors.Join(errs...)
}

// whole is the whole volume.
func (b *bed) whole() block.Span { return block.Span{Length: b.size} }
