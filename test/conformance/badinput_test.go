package conformance

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// callTimeout bounds one call of a test.
const callTimeout = time.Minute

// TestBadInput: a wrong request gets the code that the specification has for it and
// a message that says what is wrong, and changes nothing.
func TestBadInput(t *testing.T) {
	cluster := newCluster(t)
	controller := controllerOf(cluster.Nodes[0])
	published := publishedVolume(t, cluster, "in-use")
	free, err := controller.CreateVolume(t.Context(), createRequest("free"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := controller.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "kept", SourceVolumeId: free.GetVolume().GetVolumeId()})
	if err != nil {
		t.Fatal(err)
	}
	capacity, err := controller.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: map[string]string{"replicas": "3"}})
	if err != nil {
		t.Fatal(err)
	}

	create := func(spoil func(*csi.CreateVolumeRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			req := createRequest("spoilt")
			spoil(req)
			_, err := controller.CreateVolume(ctx, req)
			return err
		}
	}
	publish := func(volume, node string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
				VolumeId: volume, NodeId: node, VolumeCapability: fileSystem(),
			})
			return err
		}
	}
	snapshot := func(name, volume string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
			return err
		}
	}
	expand := func(volume string, capacity *csi.CapacityRange) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: volume, CapacityRange: capacity})
			return err
		}
	}
	unknown := idGenerator{}.GenerateUniqueValidVolumeID()
	for name, test := range map[string]struct {
		call    func(context.Context) error
		code    codes.Code
		message string
	}{
		"unknown parameter": {
			create(func(r *csi.CreateVolumeRequest) { r.Parameters["replica"] = "2" }),
			codes.InvalidArgument, `unknown parameter "replica"; known are replicas, minInSync, diskClass, diskTags, nodeTags`,
		},
		"bad value of a parameter": {
			create(func(r *csi.CreateVolumeRequest) { r.Parameters["replicas"] = "7" }),
			codes.InvalidArgument, "parameter replicas",
		},
		"size zero": {
			create(func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{} }),
			codes.InvalidArgument, "without a size",
		},
		"size below zero": {
			create(func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }),
			codes.InvalidArgument, "above zero",
		},
		"size beyond every volume": {
			create(func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 1 << 60 }),
			codes.OutOfRange, "a volume has at most",
		},
		"size beyond the disks": {
			create(func(r *csi.CreateVolumeRequest) {
				r.CapacityRange.RequiredBytes = capacity.GetMaximumVolumeSize().GetValue() + mib
			}),
			codes.ResourceExhausted, "free on different nodes are needed",
		},
		"more replicas than nodes": {
			create(func(r *csi.CreateVolumeRequest) { r.Parameters["replicas"] = "4" }),
			codes.ResourceExhausted, "4 replicas",
		},
		"disks of a class that nobody has": {
			create(func(r *csi.CreateVolumeRequest) { r.Parameters["diskClass"] = "hdd" }),
			codes.ResourceExhausted, `its class is "nvme"`,
		},
		"many nodes at once": {
			create(func(r *csi.CreateVolumeRequest) {
				r.VolumeCapabilities[0].AccessMode.Mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
			}),
			codes.InvalidArgument, "one node at a time",
		},
		"another file system": {
			create(func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].GetMount().FsType = "zfs" }),
			codes.InvalidArgument, `file system "zfs"`,
		},
		"a name taken with another size": {
			create(func(r *csi.CreateVolumeRequest) { r.Name, r.CapacityRange.RequiredBytes = "in-use", 128*mib }),
			codes.AlreadyExists, "other properties",
		},
		"a name taken with other parameters": {
			create(func(r *csi.CreateVolumeRequest) { r.Name, r.Parameters["replicas"] = "in-use", "2" }),
			codes.AlreadyExists, "other properties",
		},
		"a volume smaller than its source": {
			create(func(r *csi.CreateVolumeRequest) {
				r.CapacityRange.RequiredBytes, r.VolumeContentSource = 32*mib, ofSnapshot(kept.GetSnapshot())
			}),
			codes.OutOfRange, "smaller than its source",
		},
		"a volume from a snapshot that is not there": {
			create(func(r *csi.CreateVolumeRequest) {
				r.VolumeContentSource = ofSnapshot(&csi.Snapshot{SnapshotId: unknown})
			}),
			codes.NotFound, "not found",
		},
		"a name taken by a volume that was made from nothing": {
			create(func(r *csi.CreateVolumeRequest) {
				r.Name, r.VolumeContentSource = "in-use", ofSnapshot(kept.GetSnapshot())
			}),
			codes.AlreadyExists, "other properties",
		},
		"the name of another volume's snapshot":    {snapshot("kept", published), codes.AlreadyExists, `snapshot "kept"`},
		"a snapshot of a volume that is not there": {snapshot("lost", unknown), codes.NotFound, "not found"},
		"delete what has a snapshot": {
			func(ctx context.Context) error {
				_, err := controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: free.GetVolume().GetVolumeId()})
				return err
			},
			codes.FailedPrecondition, "snapshots would be lost",
		},
		"expand what is not there": {expand(unknown, &csi.CapacityRange{RequiredBytes: 128 * mib}), codes.NotFound, "not found"},
		"expand to less": {
			expand(published, &csi.CapacityRange{RequiredBytes: mib, LimitBytes: 32 * mib}),
			codes.OutOfRange, "cannot be made smaller",
		},
		"expand beyond every volume": {expand(published, &csi.CapacityRange{RequiredBytes: 1 << 60}), codes.OutOfRange, "a volume has at most"},
		"expand beyond the disks": {
			expand(published, &csi.CapacityRange{RequiredBytes: 2 * capacity.GetMaximumVolumeSize().GetValue()}),
			codes.ResourceExhausted, "expand volume",
		},
		"publish to a second node": {
			publish(published, cluster.Nodes[1].ID()),
			codes.FailedPrecondition, "node n1 (" + cluster.Nodes[0].ID() + ")",
		},
		"publish an unknown volume":  {publish(unknown, cluster.Nodes[1].ID()), codes.NotFound, "not found"},
		"publish to an unknown node": {publish(free.GetVolume().GetVolumeId(), unknown), codes.NotFound, "not found"},
		"publish to what is no ID":   {publish(free.GetVolume().GetVolumeId(), "n2"), codes.NotFound, `node "n2" does not exist`},
		"stage what is not published": {
			func(ctx context.Context) error {
				_, err := nodeOf(cluster.Nodes[1]).NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
					VolumeId: published, StagingTargetPath: filepath.Join(cluster.Dir, "elsewhere"), VolumeCapability: fileSystem(),
				})
				return err
			},
			codes.FailedPrecondition, "publish",
		},
		"delete what is published": {
			func(ctx context.Context) error {
				_, err := controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: published})
				return err
			},
			codes.FailedPrecondition, "node n1 (" + cluster.Nodes[0].ID() + ")",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			defer cancel()
			before := stateOf(ctx, t, cluster.Nodes[2])
			err := test.call(ctx)
			if status.Code(err) != test.code || !strings.Contains(status.Convert(err).Message(), test.message) {
				t.Errorf("answers %v, want %v with %q", err, test.code, test.message)
			}
			if after := stateOf(ctx, t, cluster.Nodes[2]); after != before {
				t.Errorf("it changed\n%s\nto\n%s", before, after)
			}
		})
	}
}

// publishedVolume makes a volume and publishes it to the first node.
func publishedVolume(t *testing.T, cluster *harness.Cluster, name string) string {
	t.Helper()
	controller := controllerOf(cluster.Nodes[0])
	created, err := controller.CreateVolume(t.Context(), createRequest(name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = controller.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: created.GetVolume().GetVolumeId(), NodeId: cluster.Nodes[0].ID(), VolumeCapability: fileSystem(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return created.GetVolume().GetVolumeId()
}

// stateOf is what a node, not the one that was asked, knows of the volumes, less
// what changes by itself.
func stateOf(ctx context.Context, t *testing.T, n *harness.Node) string {
	t.Helper()
	list, err := n.Volumes().ListVolumes(ctx, &holdfastv1.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list.GetVolumes() {
		v.Engine = nil
	}
	text, err := protojson.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	// protojson puts spaces in at random, lest anybody compare its output.
	return strings.ReplaceAll(string(text), " ", "")
}
