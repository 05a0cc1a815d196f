package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// NewDisk is what is to become a disk.
type NewDisk struct {
	// Path is a directory, or a block device below /dev.
	Path string
	// Force: what a block device holds may be lost.
	Force bool
}

// AddedDisk is a disk as its node opened it.
type AddedDisk struct {
	ID       block.DiskID
	Path     string
	Capacity int64
	// Device is the present name of the block device, empty for a directory.
	Device string
}

// DiskHost formats, opens and watches this node's disks.
type DiskHost interface {
	// AddDisk formats a directory or a device for a cluster, or opens it if it is a
	// disk of that cluster already. One of another cluster is block.ErrForeign, a
	// damaged one block.ErrCorrupt.
	AddDisk(ctx context.Context, cluster block.ClusterID, disk NewDisk) (AddedDisk, error)
	// RemoveDisk closes a disk, leaves what is on it, and does not open it again by
	// itself. One that is not there is none of this node's.
	RemoveDisk(ctx context.Context, disk block.DiskID) error
	// Disks reports on all disks, without waiting for any.
	Disks() []DiskReport
}

// ListDisks implements holdfastv1.ClusterServer.
func (s clusterService) ListDisks(ctx context.Context, req *holdfastv1.ListDisksRequest) (*holdfastv1.ListDisksResponse, error) {
	return route(ctx, s.cluster,
		func(ctx context.Context) (*holdfastv1.ListDisksResponse, error) {
			resp := &holdfastv1.ListDisksResponse{}
			now := s.cluster.State()
			candidates := s.cluster.candidates(now)
			for _, k := range candidates {
				resp.Disks = append(resp.Disks, s.cluster.showDisk(k))
			}
			s.cluster.addMoves(ctx, now, candidates, resp.GetDisks())
			return resp, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*holdfastv1.ListDisksResponse, error) {
			return holdfastv1.NewClusterClient(conn).ListDisks(ctx, req)
		})
}

// showDisk shows a disk; one that has not reported yet is as it was added.
func (c *Cluster) showDisk(k candidate) *holdfastv1.Disk {
	report, ok := c.leases.disk(k.disk.ID)
	if !ok {
		report.Capacity, report.Free = k.disk.Capacity, k.disk.Capacity
	}
	shown := &holdfastv1.Disk{
		Id: k.disk.ID.String(), NodeId: k.disk.Node.String(), Path: k.disk.Path, Class: k.disk.Class, Tags: k.disk.Tags,
		CapacityBytes: report.Capacity, FreeBytes: report.Free, Failure: report.Failure, Warning: report.Warning,
		ProvisionedBytes: k.provisioned, ReplicaCount: int32(k.replicas), Cordoned: k.disk.Cordoned, Device: report.Device,
		Draining: k.disk.Draining,
	}
	if !k.disk.Successor.IsZero() {
		shown.SuccessorId = k.disk.Successor.String()
	}
	return shown
}

// RemoveDisk implements holdfastv1.ClusterServer. The disk's node closes it when it
// sees that, which may be when it is back.
func (s clusterService) RemoveDisk(ctx context.Context, req *holdfastv1.RemoveDiskRequest) (*holdfastv1.RemoveDiskResponse, error) {
	disk, err := parseDiskID(req.GetDiskId())
	if err != nil {
		return nil, fmt.Errorf("remove %w", err)
	}
	ctx, cancel := s.cluster.bound(ctx)
	defer cancel()
	if _, err := s.cluster.do(ctx, state.RemoveDisk{Disk: disk, Lost: req.GetLost()}); err != nil {
		return nil, err
	}
	return &holdfastv1.RemoveDiskResponse{}, nil
}

// CordonDisk implements holdfastv1.ClusterServer.
func (s clusterService) CordonDisk(ctx context.Context, req *holdfastv1.CordonDiskRequest) (*holdfastv1.Disk, error) {
	disk, err := parseDiskID(req.GetDiskId())
	if err != nil {
		return nil, fmt.Errorf("cordon %w", err)
	}
	ctx, cancel := s.cluster.bound(ctx)
	defer cancel()
	r, err := s.cluster.do(ctx, state.CordonDisk{Disk: disk, Cordoned: req.GetCordoned()})
	if err != nil {
		return nil, err
	}
	return s.changedDisk(ctx, r), nil
}

// DrainDisk implements holdfastv1.ClusterServer.
func (s clusterService) DrainDisk(ctx context.Context, req *holdfastv1.DrainDiskRequest) (*holdfastv1.Disk, error) {
	disk, err := parseDiskID(req.GetDiskId())
	if err != nil {
		return nil, fmt.Errorf("drain %w", err)
	}
	command := state.DrainDisk{Disk: disk}
	if req.GetSuccessorId() != "" {
		if command.Successor, err = parseDiskID(req.GetSuccessorId()); err != nil {
			return nil, fmt.Errorf("drain disk %s: successor: %w", disk, err)
		}
	}
	ctx, cancel := s.cluster.bound(ctx)
	defer cancel()
	r, err := s.cluster.do(ctx, command)
	if err != nil {
		return nil, err
	}
	return s.changedDisk(ctx, r), nil
}

// changedDisk shows a disk that a command has changed.
func (s clusterService) changedDisk(ctx context.Context, r state.Result) *holdfastv1.Disk {
	shown, err := s.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err == nil {
		for _, d := range shown.GetDisks() {
			if d.GetId() == r.Disk.ID.String() {
				return d
			}
		}
	}
	// It is done; what its node says of it can be asked for later.
	return s.cluster.showDisk(candidate{disk: *r.Disk})
}

// AddDisk implements holdfastv1.ClusterServer on the node that has the disk.
func (s clusterService) AddDisk(ctx context.Context, req *holdfastv1.AddDiskRequest) (*holdfastv1.Disk, error) {
	c := s.cluster
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if req.GetNodeId() == "" || req.GetNodeId() == c.NodeID().String() {
		disk, err := c.addDisk(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("add disk %s: %w", req.GetPath(), err)
		}
		return disk, nil
	}
	node, err := parseNodeID(req.GetNodeId())
	if err != nil {
		return nil, fmt.Errorf("add disk %s: %w", req.GetPath(), err)
	}
	record, ok := c.State().Node(node)
	if !ok {
		return nil, fmt.Errorf("add disk %s: node %s: %w", req.GetPath(), node, block.ErrNotFound)
	}
	conn, err := c.peers.to(record.ControlAddress)
	if err != nil {
		return nil, err
	}
	return holdfastv1.NewClusterClient(conn).AddDisk(ctx, req)
}

func (c *Cluster) addDisk(ctx context.Context, req *holdfastv1.AddDiskRequest) (*holdfastv1.Disk, error) {
	if !filepath.IsAbs(req.GetPath()) {
		return nil, fmt.Errorf("the path must be absolute: %w", block.ErrInvalid)
	}
	if err := checkClass(req.GetClass()); err != nil {
		return nil, err
	}
	tags, err := checkTags(req.GetTags())
	if err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		return nil, fmt.Errorf("this node has not joined its cluster yet: %w", block.ErrUnavailable)
	}
	// The agent of this node must not close what Raft is about to know.
	select {
	case c.changingDisks <- struct{}{}:
		defer func() { <-c.changingDisks }()
	case <-ctx.Done():
		return nil, fmt.Errorf("another disk is being added: %w", block.ErrUnavailable)
	}
	added, err := c.options.Disks.AddDisk(ctx, c.ClusterID(), NewDisk{Path: filepath.Clean(req.GetPath()), Force: req.GetForce()})
	if err != nil {
		return nil, err
	}
	command := state.AddDisk{Disk: state.Disk{
		ID: added.ID, Node: c.NodeID(), Path: added.Path, Class: req.GetClass(), Tags: tags, Capacity: added.Capacity,
	}}
	r, err := c.do(ctx, command)
	if errors.Is(err, block.ErrExists) {
		if command.From, err = c.goneOwner(ctx, added.ID); err == nil {
			r, err = c.do(ctx, command)
		}
	}
	if err != nil {
		return nil, c.giveBack(ctx, added.ID, err)
	}
	shown := c.showDisk(candidate{disk: *r.Disk})
	shown.Device = added.Device
	return shown, nil
}

// giveBack closes a disk that was opened and not added, and returns why. One that may
// have been added after all is left to the agent.
func (c *Cluster) giveBack(ctx context.Context, id block.DiskID, why error) error {
	if disk, known := c.State().Disk(id); known && disk.Node == c.NodeID() || errors.Is(why, block.ErrUnknown) {
		return why
	}
	return errors.Join(why, c.options.Disks.RemoveDisk(ctx, id))
}

// goneOwner is the node that a disk belonged to, if that has it no longer: it is not
// alive, or says that it cannot use it. A node that has it working and shows another
// one of the same ID means a copied disk, and neither may be opened (rule 1).
func (c *Cluster) goneOwner(ctx context.Context, id block.DiskID) (block.NodeID, error) {
	disk, ok := c.State().Disk(id)
	if !ok {
		return block.NodeID{}, fmt.Errorf("disk %s: %w", id, block.ErrUnavailable)
	}
	service := clusterService{cluster: c}
	nodes, err := service.ListNodes(ctx, &holdfastv1.ListNodesRequest{})
	if err != nil {
		return block.NodeID{}, err
	}
	disks, err := service.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		return block.NodeID{}, err
	}
	failed := false
	for _, d := range disks.GetDisks() {
		failed = failed || d.GetId() == id.String() && d.GetFailure() != ""
	}
	for _, n := range nodes.GetNodes() {
		if n.GetId() == disk.Node.String() && n.GetAlive() && !failed {
			return block.NodeID{}, fmt.Errorf("disk %s works on node %s, so this is a copy of it: %w", id, n.GetName(), block.ErrExists)
		}
	}
	return disk.Node, nil
}
