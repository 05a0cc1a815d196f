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
}

// id is 32 digits that a reader recognises.
func id(kind string, n int) string {
	return fmt.Sprintf("%x", kind) + strings.Repeat("0", 32-2*len(kind)-1) + fmt.Sprint(n)
}

// cannedDaemon is one daemon of the cluster.
type cannedDaemon struct {
	holdfastv1.UnimplementedVolumesServer
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
	d.disks = append(d.disks, disk)
	return disk, nil
}

func (d *cannedDaemon) CreateVolume(_ context.Context, req *holdfastv1.CreateVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.SizeBytes > 100<<30 {
		return nil, status.Errorf(codes.ResourceExhausted, "create volume %q: not enough capacity", req.Name)
	}
	if v, err := d.find(func(v *holdfastv1.Volume) bool { return v.Name == req.Name }); err == nil {
		if v.SizeBytes == req.SizeBytes {
			return v, nil
		}
		return nil, status.Errorf(codes.AlreadyExists, "create volume %q: already exists with %d bytes", req.Name, v.SizeBytes)
	}
	d.made++
	v := &holdfastv1.Volume{
		Id: id("v", d.made), Name: req.Name, SizeBytes: req.SizeBytes, Parameters: req.Parameters,
		State: holdfastv1.Volume_READY, Revision: 1,
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
	if req.Id != "" {
		return d.byID(req.Id)
	}
	return d.find(func(v *holdfastv1.Volume) bool { return v.Name == req.Name })
}

// ListVolumes answers one volume a page, so that paging is seen to work.
func (d *cannedDaemon) ListVolumes(_ context.Context, req *holdfastv1.ListVolumesRequest) (*holdfastv1.ListVolumesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := slices.IndexFunc(d.volumes, func(v *holdfastv1.Volume) bool { return v.Id > req.StartingToken })
	if next < 0 {
		return &holdfastv1.ListVolumesResponse{}, nil
	}
	return &holdfastv1.ListVolumesResponse{Volumes: d.volumes[next : next+1], NextToken: d.volumes[next].Id}, nil
}

func (d *cannedDaemon) DeleteVolume(_ context.Context, req *holdfastv1.DeleteVolumeRequest) (*holdfastv1.DeleteVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.volumes = slices.DeleteFunc(d.volumes, func(v *holdfastv1.Volume) bool { return v.Id == req.Id })
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
