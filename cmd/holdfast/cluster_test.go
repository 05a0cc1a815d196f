package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// cannedCluster answers the control API with a small cluster whose every ID is the
// same each time, so that output can be compared byte for byte. What a daemon does
// is not tested here: test/conformance runs real ones.
type cannedCluster struct {
	mu      sync.Mutex
	nodes   []*holdfastv1.Node
	disks   []*holdfastv1.Disk
	volumes []*holdfastv1.Volume
	made    int
	// snapshots are those there are, by rising ID; cut is how many were ever made.
	snapshots []*holdfastv1.Snapshot
	cut       int
	// settings are those of the cluster; now is its clock, in seconds.
	settings *holdfastv1.Settings
	now      int64
	// instant: a scrub that is asked for ends at once.
	instant string
}

// id is 32 digits that a reader recognises.
func id(kind string, n int) string {
	return fmt.Sprintf("%x", kind) + strings.Repeat("0", 32-2*len(kind)-1) + fmt.Sprint(n)
}

// cannedDaemon is one daemon of the cluster.
type cannedDaemon struct {
	holdfastv1.UnimplementedVolumesServer
	holdfastv1.UnimplementedSnapshotsServer
	holdfastv1.UnimplementedClusterServer
	holdfastv1.UnimplementedNodeAgentServer
	*cannedCluster
	self *holdfastv1.Node
}

// newCannedCluster serves three nodes, of which the third is down.
func newCannedCluster(t *testing.T) *cannedCluster {
	t.Helper()
	c := &cannedCluster{}
	for i, name := range []string{"n1", "n2", "n3"} {
		var config net.ListenConfig
		listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		node := &holdfastv1.Node{
			Id: id("n", i+1), Name: name, ControlAddress: listener.Addr().String(),
			DataAddress: name + ":data", RaftAddress: name + ":raft",
			Alive: name != "n3", Leader: name == "n1", Voter: true,
		}
		c.nodes = append(c.nodes, node)
		c.disks = append(c.disks, &holdfastv1.Disk{
			Id: id("d", i+1), NodeId: node.Id, Path: "/disks/" + name, Class: "nvme",
			CapacityBytes: 100 << 30, FreeBytes: int64(60+i) << 30, ProvisionedBytes: 1 << 40, ReplicaCount: 2,
		})
		if name == "n3" {
			listener.Close()
			continue
		}
		serveDaemon(t, listener, &cannedDaemon{cannedCluster: c, self: node})
	}
	c.nodes[1].Tags = []string{"rack-2", "fast"}
	c.disks[2].Failure = "input/output error"
	return c
}

func serveDaemon(t *testing.T, listener net.Listener, d *cannedDaemon) {
	t.Helper()
	server := grpc.NewServer()
	holdfastv1.RegisterVolumesServer(server, d)
	holdfastv1.RegisterSnapshotsServer(server, d)
	holdfastv1.RegisterClusterServer(server, d)
	holdfastv1.RegisterNodeAgentServer(server, d)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
}

func (c *cannedCluster) find(match func(v *holdfastv1.Volume) bool) (*holdfastv1.Volume, error) {
	i := slices.IndexFunc(c.volumes, match)
	if i < 0 {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return c.volumes[i], nil
}

func (c *cannedCluster) byID(id string) (*holdfastv1.Volume, error) {
	return c.find(func(v *holdfastv1.Volume) bool { return v.Id == id })
}

func (d *cannedDaemon) GetCluster(context.Context, *holdfastv1.GetClusterRequest) (*holdfastv1.ClusterInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &holdfastv1.ClusterInfo{
		Id: id("c", 1), Incarnation: 1, LeaderNodeId: d.nodes[0].Id, AnsweringNodeId: d.self.Id,
		VolumeCount: int32(len(d.volumes)), RaftTerm: 4, RaftAppliedIndex: 77,
	}, nil
}

func (d *cannedDaemon) ListNodes(context.Context, *holdfastv1.ListNodesRequest) (*holdfastv1.ListNodesResponse, error) {
	return &holdfastv1.ListNodesResponse{Nodes: d.nodes}, nil
}

func (d *cannedDaemon) GetNode(context.Context, *holdfastv1.GetNodeRequest) (*holdfastv1.Node, error) {
	return d.self, nil
}

func (d *cannedDaemon) ListDisks(context.Context, *holdfastv1.ListDisksRequest) (*holdfastv1.ListDisksResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &holdfastv1.ListDisksResponse{Disks: slices.Clone(d.disks)}, nil
}

func (d *cannedDaemon) AddDisk(_ context.Context, req *holdfastv1.AddDiskRequest) (*holdfastv1.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	disk := &holdfastv1.Disk{
		Id: id("d", len(d.disks)+1), NodeId: req.NodeId, Path: req.Path, Class: req.Class, Tags: req.Tags, CapacityBytes: 1 << 30, FreeBytes: 1 << 30,
	}
	if disk.NodeId == "" {
		disk.NodeId = d.self.Id
	}
	if strings.HasPrefix(req.Path, "/dev/") {
		disk.Device, disk.Path = req.Path, "/var/lib/holdfast/disks/0b5e2d3c-1a8f-4b3e-9d67-5c2f8e1a7b40"
	}
	d.disks = append(d.disks, disk)
	return disk, nil
}

func (d *cannedDaemon) CordonDisk(_ context.Context, req *holdfastv1.CordonDiskRequest) (*holdfastv1.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, disk := range d.disks {
		if disk.Id == req.DiskId {
			if disk.Cordoned = req.Cordoned; !disk.Cordoned {
				disk.Draining, disk.Moves = false, nil
			}
			return disk, nil
		}
	}
	return nil, status.Error(codes.NotFound, "cordon disk: not found")
}

func (d *cannedDaemon) RemoveDisk(_ context.Context, req *holdfastv1.RemoveDiskRequest) (*holdfastv1.RemoveDiskResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, disk := range d.disks {
		switch {
		case disk.Id != req.DiskId:
		case disk.ReplicaCount > 0 && !req.Lost:
			return nil, status.Errorf(codes.FailedPrecondition, "remove disk %s: it has replica 72000000 of volume \"db\" (in sync, as are 2 others): in use", disk.Id)
		default:
			d.disks = slices.Delete(d.disks, i, i+1)
			return &holdfastv1.RemoveDiskResponse{}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "remove disk: not found")
}

func (d *cannedDaemon) CreateVolume(_ context.Context, req *holdfastv1.CreateVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.SizeBytes > 100<<30 {
		return nil, status.Errorf(codes.ResourceExhausted, "create volume %q: not enough capacity", req.Name)
	}
	if v, err := d.byName(req.Name); err == nil {
		if v.SizeBytes == req.SizeBytes {
			return v, nil
		}
		return nil, status.Errorf(codes.AlreadyExists, "create volume %q: already exists with %d bytes", req.Name, v.SizeBytes)
	}
	d.made++
	v := &holdfastv1.Volume{
		Id: id("v", d.made), Name: req.Name, SizeBytes: req.SizeBytes, Parameters: req.Parameters,
		MaxSnapshotSpace: req.Parameters.GetMaxSnapshotSpace(),
		State:            holdfastv1.Volume_READY, Revision: 1, SourceSnapshotId: req.SourceSnapshotId, SourceVolumeId: req.SourceVolumeId,
	}
	for i := range int(req.Parameters.Replicas) {
		v.Replicas = append(v.Replicas, &holdfastv1.Replica{
			Id: id("r", 10*d.made+i), NodeId: d.nodes[i].Id, DiskId: d.disks[i].Id, InSync: true, Ready: true,
		})
	}
	d.volumes = append(d.volumes, v)
	return v, nil
}

func (d *cannedDaemon) GetVolume(_ context.Context, req *holdfastv1.GetVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byName(req.Name)
	if req.Id != "" {
		v, err = d.byID(req.Id)
	}
	return weighed(v, req.WithUsage), err
}

// ListVolumes answers one volume a page, so that paging is seen to work.
func (d *cannedDaemon) ListVolumes(_ context.Context, req *holdfastv1.ListVolumesRequest) (*holdfastv1.ListVolumesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.find(func(v *holdfastv1.Volume) bool { return v.Id > req.StartingToken && inTrash(v) == req.Trash })
	if err != nil {
		return &holdfastv1.ListVolumesResponse{}, nil
	}
	return &holdfastv1.ListVolumesResponse{Volumes: []*holdfastv1.Volume{weighed(v, req.WithUsage)}, NextToken: v.Id}, nil
}

func (d *cannedDaemon) ExpandVolume(_ context.Context, req *holdfastv1.ExpandVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.Id)
	switch {
	case err != nil:
		return nil, err
	case req.SizeBytes > 100<<30:
		return nil, status.Errorf(codes.ResourceExhausted, "expand volume %s: not enough capacity", v.Name)
	}
	v.SizeBytes = req.SizeBytes
	return v, nil
}

func (d *cannedDaemon) DeleteVolume(_ context.Context, req *holdfastv1.DeleteVolumeRequest) (*holdfastv1.DeleteVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if keep := d.settings.GetTrashKeepSeconds(); keep > 0 && !req.Purge {
		return d.discard(req.Id, keep)
	}
	d.bury(req.Id)
	return &holdfastv1.DeleteVolumeResponse{}, nil
}

func (d *cannedDaemon) PublishVolume(_ context.Context, req *holdfastv1.PublishVolumeRequest) (*holdfastv1.PublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.VolumeId)
	if err != nil {
		return nil, err
	}
	v.PublishedNodeId = req.NodeId
	return &holdfastv1.PublishVolumeResponse{}, nil
}

func (d *cannedDaemon) UnpublishVolume(_ context.Context, req *holdfastv1.UnpublishVolumeRequest) (*holdfastv1.UnpublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.VolumeId)
	if err != nil {
		return nil, err
	}
	v.PublishedNodeId, v.AttachmentId, v.Engine = "", "", nil
	return &holdfastv1.UnpublishVolumeResponse{}, nil
}

func (d *cannedDaemon) StageVolume(_ context.Context, req *holdfastv1.StageVolumeRequest) (*holdfastv1.StageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.byID(req.VolumeId)
	if err != nil {
		return nil, err
	}
	if v.PublishedNodeId != d.self.Id {
		return nil, status.Errorf(codes.FailedPrecondition, "stage volume %s: not published to node %s", v.Id, d.self.Name)
	}
	v.AttachmentId, v.Epoch = id("a", d.made), 1
	v.Engine = &holdfastv1.EngineStatus{Serving: true, DevicePath: "/dev/nbd7"}
	return &holdfastv1.StageVolumeResponse{DevicePath: v.Engine.DevicePath, AttachmentId: v.AttachmentId}, nil
}

func (d *cannedDaemon) UnstageVolume(_ context.Context, req *holdfastv1.UnstageVolumeRequest) (*holdfastv1.UnstageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, err := d.byID(req.VolumeId); err == nil {
		v.AttachmentId, v.Engine = "", nil
	}
	return &holdfastv1.UnstageVolumeResponse{}, nil
}

// degrade makes the last replica of a volume a target of a resync.
func (c *cannedCluster) degrade(name string) {
	c.change(name, func(v *holdfastv1.Volume) {
		last := v.Replicas[len(v.Replicas)-1]
		last.InSync = false
		v.Engine.Resyncs = []*holdfastv1.ResyncStatus{{ReplicaId: last.Id, RemainingBytes: 96 << 20, CopiedBytes: 32 << 20}}
	})
}

// starve lets the resync of a degraded volume find its disk full.
func (c *cannedCluster) starve(name string) {
	c.change(name, func(v *holdfastv1.Volume) {
		v.Engine.Resyncs[0].Waits = "its disk has no room for what it lacks: no space"
	})
}

// fill leaves little room on the disk of a node.
func (c *cannedCluster) fill(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, node := range c.nodes {
		if node.Name == name {
			c.disks[i].FreeBytes, c.disks[i].Warning = 8<<30, "nearly full: 8% is free"
		}
	}
}

// lose makes the node of a volume one that does not answer.
func (c *cannedCluster) lose(name string) {
	c.change(name, func(v *holdfastv1.Volume) { v.PublishedNodeId = c.nodes[2].Id })
}

func (c *cannedCluster) change(name string, change func(v *holdfastv1.Volume)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, err := c.find(func(v *holdfastv1.Volume) bool { return v.Name == name }); err == nil {
		change(v)
	}
}
