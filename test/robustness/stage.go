package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/links"
)

const (
	replicas = 3
	// diskBytes is the size of a disk's file system: what the store reserves for its
	// metadata, the volume, and what the file system itself takes.
	diskBytes = store.DefaultReserve + 384*mebibyte
	// tightBytes is what the store finds on the smallest of the disks with a replica
	// when it is made. Some 25 MiB of that become flush records and metadata; the
	// rest holds the load and not the spare area. roomyBytes is that of the others:
	// the spare area, too, and not all of the rest.
	tightBytes = 56 * mebibyte
	roomyBytes = 104 * mebibyte
	// callLimit bounds a call to a daemon.
	callLimit = 60 * time.Second
	// holdingTag marks the disks that replicas go to.
	holdingTag = "holding"
)

// stage is a cluster behind links that can be cut, with one volume.
type stage struct {
	network *links.Network
	cluster *harness.Cluster
	disks   []*harness.Disk
	// holders are the nodes that have a replica; the disk of the first is tight.
	holders []int
	volume  string
	// home is the node to which the volume is attached.
	home int
	// away are nodes that others of them hear, but no majority.
	away []int
	dir  string
}

// stageOptions say what newStage is to make.
type stageOptions struct {
	binaries harness.Binaries
	dir      string
	// nodes is how many there are; zero draws that.
	nodes int
	// guest: on the kernel of a guest, which cannot cut links.
	guest bool
}

// newStage makes all of it. What there is must be taken away by clean even if it
// fails.
func newStage(ctx context.Context, draw *rand.Rand, o stageOptions) (*stage, error) {
	s := &stage{dir: o.dir}
	nodes := o.nodes
	if nodes == 0 {
		nodes = replicas + draw.IntN(3)
	}
	s.holders = draw.Perm(nodes)[:replicas]
	s.home = draw.IntN(nodes)
	var err error
	if s.network, err = links.New(ctx, nodes); err != nil {
		return s, err
	}
	if !o.guest {
		if err := s.network.AllowCuts(ctx); err != nil {
			return s, err
		}
	}
	s.cluster, err = harness.Start(ctx, harness.Options{
		Binaries: o.binaries, Dir: o.dir, Nodes: nodes,
		DaemonArgs: []string{"--frontend", "socket"},
		Hosts:      s.network.Addresses(),
		Dial:       s.network.Dial,
		Prefix:     func(n *harness.Node) []string { return s.network.Enter(n.Index) },
	})
	if err != nil {
		return s, err
	}
	return s, s.addVolume(ctx)
}

// addVolume gives every node a disk, and makes the volume on three of them.
func (s *stage) addVolume(ctx context.Context) error {
	s.disks = make([]*harness.Disk, len(s.cluster.Nodes))
	if err := s.onEach(func(i int) error { return s.addDisk(ctx, i) }); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := harness.Wait(ctx, "the volume to be made", func(ctx context.Context) error {
		v, err := s.cluster.Nodes[0].Volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
			Name: "robust", SizeBytes: volumeLayout().size,
			Parameters: &holdfastv1.VolumeParameters{Replicas: replicas, DiskTags: []string{holdingTag}},
		})
		s.volume = v.GetId()
		return err
	})
	if err != nil {
		return err
	}
	// From here on no store grows.
	return s.onEach(func(i int) error { return s.disks[i].Leave(store.DefaultReserve) })
}

// onEach does something for each node, for all at once.
func (s *stage) onEach(do func(i int) error) error {
	errs := make([]error, len(s.cluster.Nodes))
	var doing sync.WaitGroup
	for i := range s.cluster.Nodes {
		doing.Go(func() { errs[i] = do(i) })
	}
	doing.Wait()
	return errors.Join(errs...)
}

// addDisk gives a node its disk.
func (s *stage) addDisk(ctx context.Context, i int) error {
	n := s.cluster.Nodes[i]
	d, err := harness.NewDisk(ctx, filepath.Join(n.Dir, "disk"), filepath.Join(n.Dir, "disk.img"), diskBytes)
	if err != nil {
		return err
	}
	s.disks[i] = d
	// The store takes for its data what there is now.
	capacity, tags := int64(roomyBytes), []string(nil)
	if i == s.holders[0] {
		capacity = tightBytes
	}
	if slices.Contains(s.holders, i) {
		tags = []string{holdingTag}
	}
	if err := d.Leave(store.DefaultReserve + capacity); err != nil {
		return err
	}
	if _, err := n.Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: d.StorePath(), Class: "ssd", Tags: tags}); err != nil {
		return fmt.Errorf("add disk to %s: %w", n.Name, err)
	}
	// Room for the volume, as far as its placement goes.
	return d.Empty()
}

func (s *stage) node(i int) *harness.Node { return s.cluster.Nodes[i] }

// answering is a node that runs and is not cut off, other than the one given.
func (s *stage) answering(except int) *harness.Node {
	for i, n := range s.cluster.Nodes {
		if i != except && n.Running() && !slices.Contains(s.away, i) {
			return n
		}
	}
	return s.node(except)
}

// attach publishes and stages the volume on a node, and tells how it is reached.
func (s *stage) attach(ctx context.Context, node int) (func(context.Context) (net.Conn, error), error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	dial, err := s.node(node).Attach(ctx, s.volume)
	if err != nil {
		return nil, err
	}
	s.home = node
	return dial, nil
}

// detach takes the volume from its node, over another one.
func (s *stage) detach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, err := s.answering(s.home).Volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{
		VolumeId: s.volume, NodeId: s.node(s.home).ID(),
	})
	if err != nil {
		return fmt.Errorf("unpublish volume from %s: %w", s.node(s.home).Name, err)
	}
	return nil
}
