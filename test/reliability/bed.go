package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
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
	// size is that of the part of the volume that is written and verified.
	size int64
	// home is the node to which the volume is attached.
	home   int
	device *device
	ledger *ledger
	meter  *meter
}

// room is what a line needs of volume and disks.
type room struct {
	// used bytes of the volume are written and verified, of size that it has.
	used, size int64
	// sparse: the disks are large sparse files, that a volume of any size may be promised.
	// A sync of theirs is one of two file systems.
	sparse bool
}

// newBed makes all of it, and attaches the volume to the first node.
func newBed(ctx context.Context, binaries harness.Binaries, dir string, want room) (_ *bed, err error) {
	b := &bed{size: want.used, device: newDevice(), ledger: newLedger(want.used), meter: &meter{}}
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
		DaemonArgs: []string{"--frontend", "socket", "--over-provisioning", "100"},
		Hosts:      b.network.Addresses(),
		Dial:       b.network.Dial,
		Prefix:     func(n *harness.Node) []string { return b.network.Enter(n.Index) },
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.cluster.WaitVoters(ctx), b.addDisks(ctx, want.sparse)); err != nil {
		return nil, err
	}
	err = harness.Wait(ctx, "the volume to be made", func(ctx context.Context) (err error) {
		b.volume, err = b.create(ctx, "reliable", want.size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, b.attach(ctx, 0)
}

// create makes a volume with a replica on each node.
func (b *bed) create(ctx context.Context, name string, size int64) (string, error) {
	v, err := b.node(0).Volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
		Name: name, SizeBytes: size, Parameters: &holdfastv1.VolumeParameters{Replicas: replicas},
	})
	return v.GetId(), err
}

// sparseDisk is the size of a sparse file that is a disk.
const sparseDisk = 2 << 40

// addDisks gives every node a disk.
func (b *bed) addDisks(ctx context.Context, sparse bool) error {
	if !sparse {
		return b.cluster.AddDisks(ctx, "ssd")
	}
	for _, n := range b.cluster.Nodes {
		// Few inodes: their tables are all that such a file system writes.
		disk, err := harness.NewDisk(ctx, filepath.Join(n.Dir, "sparse"), filepath.Join(n.Dir, "sparse.img"), sparseDisk, "-N", "4096")
		if err != nil {
			return err
		}
		if _, err := n.Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: disk.StorePath(), Class: "ssd"}); err != nil {
			return fmt.Errorf("add disk to %s: %w", n.Name, err)
		}
	}
	return nil
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
		found, now, err := b.cluster.Leader(ctx, 0)
		if err == nil {
			leader, term = found.Index, now
		}
		return err
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
		sums, err := b.sumsOf(ctx, c)
		if err != nil {
			return fmt.Errorf("read replica on %s: %w", c.Node.Name, err)
		}
		if differ := want.Differing(sums); len(differ) > 0 {
			return fmt.Errorf("%w: the replica on %s differs from the volume in %d extents, the first are %v",
				errLost, c.Node.Name, len(differ), differ[:min(len(differ), 8)])
		}
	}
	return nil
}

// sumsOf are those of the part of a replica that is used.
func (b *bed) sumsOf(ctx context.Context, c harness.Copy) (harness.Sums, error) {
	client, err := c.Node.Export(ctx, c.Export)
	if err != nil {
		return harness.Sums{}, err
	}
	sums, err := harness.SumsOf(ctx, io.NewSectionReader(client, 0, b.size))
	return sums, errors.Join(err, client.Close())
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
