package driver

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	testVolume     = "0123456789abcdef0123456789abcdef"
	testAttachment = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	testNode       = "11111111111111111111111111111111"
	otherNode      = "22222222222222222222222222222222"
)

// scriptedDaemon stands in for a daemon where a test needs an answer that a real
// one gives only in trouble, or a device without a cluster behind it. It is served
// over a real connection, so that codes travel as they do in production.
type scriptedDaemon struct {
	holdfastv1.UnimplementedVolumesServer
	holdfastv1.UnimplementedSnapshotsServer
	holdfastv1.UnimplementedClusterServer
	holdfastv1.UnimplementedNodeAgentServer

	mu sync.Mutex
	// failures answer the call of that name with an error.
	failures map[string]error
	// held holds calls of a name.
	held map[string]heldCall
	// volume is the only volume there is; nil for none.
	volume *holdfastv1.Volume
	// deleted: somebody deleted it.
	deleted bool
	device  string
	// created is the last volume that was asked for.
	created *holdfastv1.CreateVolumeRequest
	// snapshots are those there are, by rising ID.
	snapshots []*holdfastv1.Snapshot
	// pages is how many pages a list of volumes has.
	pages int
	calls map[string]int
}

// heldCall keeps calls from returning: reached is closed by the first call, and
// release, once closed, lets them go on.
type heldCall struct{ reached, release chan struct{} }

// serveDaemon serves d until the test ends.
func serveDaemon(t *testing.T, d *scriptedDaemon) daemon {
	t.Helper()
	return newDaemon(serveDaemonConn(t, d))
}

func serveDaemonConn(t *testing.T, d *scriptedDaemon) *grpc.ClientConn {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.calls = make(map[string]int)
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
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		serving.Wait()
	})
	return conn
}

// fail makes the next calls of a name answer err; nil ends that.
func (d *scriptedDaemon) fail(call string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures == nil {
		d.failures = make(map[string]error)
	}
	d.failures[call] = err
}

// enter counts a call and answers what was scripted for it.
func (d *scriptedDaemon) enter(ctx context.Context, call string) error {
	d.mu.Lock()
	d.calls[call]++
	err, first := d.failures[call], d.calls[call] == 1
	held, isHeld := d.held[call]
	d.mu.Unlock()
	if isHeld {
		if first {
			close(held.reached)
		}
		select {
		case <-held.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (d *scriptedDaemon) count(call string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[call]
}

func (d *scriptedDaemon) setAttachment(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.volume.AttachmentId = id
}

func (d *scriptedDaemon) CreateVolume(ctx context.Context, req *holdfastv1.CreateVolumeRequest) (*holdfastv1.Volume, error) {
	d.mu.Lock()
	d.created = req
	d.mu.Unlock()
	return d.volume, d.enter(ctx, "CreateVolume")
}

func (d *scriptedDaemon) ExpandVolume(ctx context.Context, req *holdfastv1.ExpandVolumeRequest) (*holdfastv1.Volume, error) {
	if err := d.enter(ctx, "ExpandVolume"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.SizeBytes < d.volume.SizeBytes {
		return nil, status.Error(codes.InvalidArgument, "volumes do not shrink")
	}
	d.volume.SizeBytes = req.SizeBytes
	return d.volume, nil
}

func (d *scriptedDaemon) DeleteVolume(ctx context.Context, req *holdfastv1.DeleteVolumeRequest) (*holdfastv1.DeleteVolumeResponse, error) {
	if err := d.enter(ctx, "DeleteVolume"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.volume.GetSnapshotCount(); n > 0 && req.OnlyWithoutSnapshots {
		return nil, status.Errorf(codes.FailedPrecondition, "its snapshots would be lost, of which it has %d", n)
	}
	d.deleted = true
	return &holdfastv1.DeleteVolumeResponse{}, nil
}

func (d *scriptedDaemon) SetVolume(ctx context.Context, req *holdfastv1.SetVolumeRequest) (*holdfastv1.Volume, error) {
	if err := d.enter(ctx, "SetVolume"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.MaxSnapshotSpace != nil {
		d.volume.MaxSnapshotSpace = req.MaxSnapshotSpace
	}
	return d.volume, nil
}

func (d *scriptedDaemon) GetVolume(ctx context.Context, _ *holdfastv1.GetVolumeRequest) (*holdfastv1.Volume, error) {
	return d.volume, d.enter(ctx, "GetVolume")
}

func (d *scriptedDaemon) ListVolumes(ctx context.Context, _ *holdfastv1.ListVolumesRequest) (*holdfastv1.ListVolumesResponse, error) {
	err := d.enter(ctx, "ListVolumes")
	response := &holdfastv1.ListVolumesResponse{Volumes: []*holdfastv1.Volume{d.volume}}
	if d.count("ListVolumes") < d.pages {
		response.NextToken = testVolume
	}
	return response, err
}

func (d *scriptedDaemon) PublishVolume(ctx context.Context, _ *holdfastv1.PublishVolumeRequest) (*holdfastv1.PublishVolumeResponse, error) {
	return &holdfastv1.PublishVolumeResponse{}, d.enter(ctx, "PublishVolume")
}

func (d *scriptedDaemon) UnpublishVolume(ctx context.Context, _ *holdfastv1.UnpublishVolumeRequest) (*holdfastv1.UnpublishVolumeResponse, error) {
	return &holdfastv1.UnpublishVolumeResponse{}, d.enter(ctx, "UnpublishVolume")
}

func (d *scriptedDaemon) GetCluster(ctx context.Context, _ *holdfastv1.GetClusterRequest) (*holdfastv1.ClusterInfo, error) {
	return &holdfastv1.ClusterInfo{}, d.enter(ctx, "GetCluster")
}

func (d *scriptedDaemon) ListNodes(ctx context.Context, _ *holdfastv1.ListNodesRequest) (*holdfastv1.ListNodesResponse, error) {
	return &holdfastv1.ListNodesResponse{Nodes: []*holdfastv1.Node{
		{Id: testNode, Name: "n1"}, {Id: otherNode, Name: "n2"},
	}}, d.enter(ctx, "ListNodes")
}

func (d *scriptedDaemon) ListDisks(ctx context.Context, _ *holdfastv1.ListDisksRequest) (*holdfastv1.ListDisksResponse, error) {
	return &holdfastv1.ListDisksResponse{Disks: []*holdfastv1.Disk{
		{NodeId: testNode, Path: "/disks/a", Failure: "input/output error"},
		{NodeId: testNode, Path: "/disks/b"},
		{NodeId: otherNode, Path: "/disks/c", Failure: "elsewhere"},
	}}, d.enter(ctx, "ListDisks")
}

func (d *scriptedDaemon) GetNode(ctx context.Context, _ *holdfastv1.GetNodeRequest) (*holdfastv1.Node, error) {
	return &holdfastv1.Node{Id: testNode, Name: "n1"}, d.enter(ctx, "GetNode")
}

func (d *scriptedDaemon) StageVolume(ctx context.Context, _ *holdfastv1.StageVolumeRequest) (*holdfastv1.StageVolumeResponse, error) {
	if err := d.enter(ctx, "StageVolume"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &holdfastv1.StageVolumeResponse{DevicePath: d.device, AttachmentId: d.volume.AttachmentId}, nil
}

func (d *scriptedDaemon) UnstageVolume(ctx context.Context, _ *holdfastv1.UnstageVolumeRequest) (*holdfastv1.UnstageVolumeResponse, error) {
	return &holdfastv1.UnstageVolumeResponse{}, d.enter(ctx, "UnstageVolume")
}
