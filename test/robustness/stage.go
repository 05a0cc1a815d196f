package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	replicas = 3
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
	network *network
	cluster *harness.Cluster
	disks   []*disk
	// holders are the nodes that have a replica; the disk of the first is tight.
	holders []int
	volume  string
	// home is the node to which the volume is attached.
	home int
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
	if s.network, err = newNetwork(ctx, nodes); err != nil {
		return s, err
	}
	if !o.guest {
		if err := s.network.allowCuts(ctx); err != nil {
			return s, err
		}
	}
	s.cluster, err = harness.Start(ctx, harness.Options{
		Binaries: o.binaries, Dir: o.dir, Nodes: nodes,
		DaemonArgs: []string{"--frontend", "socket"},
		Hosts:      s.network.addresses(),
		Dial:       s.network.dial,
		Prefix:     func(n *harness.Node) []string { return s.network.enter(indexOf(n)) },
	})
	if err != nil {
		return s, err
	}
	return s, s.addVolume(ctx)
}

// indexOf is the position of a node, which its name tells.
func indexOf(n *harness.Node) int {
	var i int
	if _, err := fmt.Sscanf(n.Name, "n%d", &i); err != nil {
		panic(err)
	}
	return i - 1
}

// addVolume gives every node a disk, and makes the volume on three of them.
func (s *stage) addVolume(ctx context.Context) error {
	for i, n := range s.cluster.Nodes {
		d, err := newDisk(ctx, filepath.Join(n.Dir, "disk"), filepath.Join(n.Dir, "disk.img"))
		if err != nil {
			return err
		}
		s.disks = append(s.disks, d)
		// The store takes for its data what there is now.
		capacity, tags := int64(roomyBytes), []string(nil)
		if i == s.holders[0] {
			capacity = tightBytes
		}
		if slices.Contains(s.holders, i) {
			tags = []string{holdingTag}
		}
		if err := d.leave(store.DefaultReserve + capacity); err != nil {
			return err
		}
		if _, err := n.Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: d.storePath(), Class: "ssd", Tags: tags}); err != nil {
			return fmt.Errorf("add disk to %s: %w", n.Name, err)
		}
		// Room for the volume, as far as its placement goes.
		if err := d.empty(); err != nil {
			return err
		}
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
	for _, d := range s.disks {
		// From here on no store grows.
		if err := d.leave(store.DefaultReserve); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) node(i int) *harness.Node { return s.cluster.Nodes[i] }

// answering is a node that runs and is not cut off, other than the one given.
func (s *stage) answering(except int) *harness.Node {
	for i, n := range s.cluster.Nodes {
		if i != except && n.Running() {
			return n
		}
	}
	return s.node(except)
}

// attach publishes and stages the volume on a node, and tells how it is reached.
func (s *stage) attach(ctx context.Context, node int) (func(context.Context) (net.Conn, error), error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	n := s.node(node)
	if _, err := n.Volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: s.volume, NodeId: n.ID()}); err != nil {
		return nil, fmt.Errorf("publish volume to %s: %w", n.Name, err)
	}
	var staged *holdfastv1.StageVolumeResponse
	err := harness.Wait(ctx, "staging", func(ctx context.Context) error {
		var err error
		staged, err = n.Agent().StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: s.volume})
		if err != nil && status.Code(err) != codes.Unavailable {
			return harness.Stop(err)
		}
		return err // a daemon that has just been started opens its disks first
	})
	if err != nil {
		return nil, fmt.Errorf("stage volume on %s: %w", n.Name, err)
	}
	uri, err := url.Parse(staged.GetDevicePath())
	if err != nil {
		return nil, err
	}
	s.home = node
	path := uri.Query().Get("socket")
	return func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	}, nil
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

// leader is the node that leads the Raft group, and its term.
func (s *stage) leader(ctx context.Context) (leader int, term uint64, err error) {
	return s.leaderAfter(ctx, 0)
}

// leaderAfter is the leader of a later term, once there is one.
func (s *stage) leaderAfter(ctx context.Context, after uint64) (leader int, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = harness.Wait(ctx, "a leader", func(ctx context.Context) error {
		for _, n := range s.cluster.Nodes {
			if !n.Running() {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			info, err := n.Cluster().GetCluster(ctx, &holdfastv1.GetClusterRequest{})
			cancel()
			if err != nil || info.GetRaftTerm() <= after {
				continue
			}
			if found := s.cluster.Node(info.GetLeaderNodeId()); found != nil {
				leader, term = indexOf(found), info.GetRaftTerm()
				return nil
			}
		}
		return errors.New("nobody knows one")
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
				voters = append(voters, indexOf(found))
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
	var errs []error
	for _, c := range copies {
		sums, err := c.Sums(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if differ := want.Differing(sums); len(differ) > 0 {
			errs = append(errs, fmt.Errorf("%w: the replica on %s differs from the volume in %d extents of %d bytes, the first are %v",
				errDiffers, c.Node.Name, len(differ), block.ExtentSize, differ[:min(len(differ), 8)]))
		}
	}
	return errors.Join(errs...)
}

// errDiffers: a replica is not what it should be.
var errDiffers = errors.New("replicas differ")

// heal takes back every kind of trouble there may be.
func (s *stage) heal(ctx context.Context) error {
	errs := []error{s.network.heal(ctx)}
	for _, n := range s.cluster.Nodes {
		errs = append(errs, n.Thaw())
	}
	errs = append(errs, s.startAll(ctx))
	return errors.Join(errs...)
}

// startAll starts those that do not run: all at once, as one alone may wait for the
// others.
func (s *stage) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	results := make(chan error, len(s.cluster.Nodes))
	started := 0
	for _, n := range s.cluster.Nodes {
		if !n.Running() {
			started++
			go func() { results <- n.Start(ctx) }()
		}
	}
	var errs []error
	for range started {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// takeDown takes the volume and its replicas away through the product, and looks
// whether they are gone.
func (s *stage) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := s.detach(ctx); err != nil {
		return err
	}
	n := s.node(s.home)
	if _, err := n.Volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: s.volume}); err != nil {
		return fmt.Errorf("delete volume: %w", err)
	}
	err := harness.Wait(ctx, "the replicas to be deleted", func(ctx context.Context) error {
		copies, err := s.cluster.Copies(ctx, s.volume)
		if err == nil && len(copies) > 0 {
			err = fmt.Errorf("%d are there", len(copies))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range s.cluster.Nodes {
		left, err := os.ReadDir(filepath.Join(n.Dir, "run", "sockets"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("%s keeps the device of a deleted volume: %v", n.Name, left)
		}
	}
	return nil
}

// clean ends everything and looks whether something is left.
func (s *stage) clean(ctx context.Context) error {
	var errs []error
	var namespaces []uint64
	if s.network != nil {
		found, err := s.network.inodes()
		namespaces = found
		errs = append(errs, err)
		if s.cluster != nil {
			errs = append(errs, s.network.heal(ctx))
		}
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop(ctx))
	}
	if s.network != nil {
		errs = append(errs, s.network.close())
	}
	left, err := leftBehind(s.dir, namespaces)
	errs = append(errs, err)
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %v", left))
	}
	return errors.Join(errs...)
}
