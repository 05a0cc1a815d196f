package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

func ext4Mount() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

// CreateVolume makes a volume for an ext4 file system through the node's plugin.
func (n *Node) CreateVolume(ctx context.Context, name string, bytes int64, parameters map[string]string) (string, error) {
	return n.createVolume(ctx, name, bytes, parameters, nil)
}

// RestoreSnapshot makes a volume from a snapshot through the node's plugin.
func (n *Node) RestoreSnapshot(ctx context.Context, name, snapshot string, bytes int64, parameters map[string]string) (string, error) {
	return n.createVolume(ctx, name, bytes, parameters, &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
	}})
}

func (n *Node) createVolume(ctx context.Context, name string, bytes int64, parameters map[string]string, source *csi.VolumeContentSource) (string, error) {
	made, err := csi.NewControllerClient(n.CSI()).CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:                name,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: bytes},
		VolumeCapabilities:  []*csi.VolumeCapability{ext4Mount()},
		Parameters:          parameters,
		VolumeContentSource: source,
	})
	if err != nil {
		return "", fmt.Errorf("CreateVolume: %w", err)
	}
	return made.GetVolume().GetVolumeId(), nil
}

// Place is where a volume is mounted on a node. Below the node's directory, the
// cluster's end unmounts it.
type Place struct {
	staging, target string
}

// Path is where the file system is seen.
func (p Place) Path() string { return p.target }

// Place names a place of its own; Mount has the one without a name.
func (n *Node) Place(name string) Place {
	return Place{staging: filepath.Join(n.Dir, "staging"+name), target: filepath.Join(n.Dir, "target"+name)}
}

// TargetPath is where Mount shows a volume.
func (n *Node) TargetPath() string { return n.Place("").Path() }

// Mount attaches a volume to the node and mounts it, as Kubernetes would, through
// the node's plugin.
func (n *Node) Mount(ctx context.Context, volume string) error {
	return n.MountAt(ctx, volume, n.Place(""))
}

// Unmount takes back what Mount did.
func (n *Node) Unmount(ctx context.Context, volume string) error {
	return n.UnmountFrom(ctx, volume, n.Place(""))
}

// MountAt is Mount at a place.
func (n *Node) MountAt(ctx context.Context, volume string, at Place) error {
	published, err := csi.NewControllerClient(n.CSI()).ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: volume, NodeId: n.ID(), VolumeCapability: ext4Mount(),
	})
	if err != nil {
		return fmt.Errorf("ControllerPublishVolume: %w", err)
	}
	if err := os.MkdirAll(at.staging, 0o755); err != nil {
		return err
	}
	node := csi.NewNodeClient(n.CSI())
	if _, err := node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: volume, PublishContext: published.GetPublishContext(),
		StagingTargetPath: at.staging, VolumeCapability: ext4Mount(),
	}); err != nil {
		return fmt.Errorf("NodeStageVolume: %w", err)
	}
	if _, err := node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: volume, PublishContext: published.GetPublishContext(),
		StagingTargetPath: at.staging, TargetPath: at.target, VolumeCapability: ext4Mount(),
	}); err != nil {
		return fmt.Errorf("NodePublishVolume: %w", err)
	}
	return nil
}

// UnmountFrom takes back what MountAt did.
func (n *Node) UnmountFrom(ctx context.Context, volume string, at Place) error {
	node := csi.NewNodeClient(n.CSI())
	if _, err := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{
		VolumeId: volume, TargetPath: at.target,
	}); err != nil {
		return fmt.Errorf("NodeUnpublishVolume: %w", err)
	}
	if _, err := node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{
		VolumeId: volume, StagingTargetPath: at.staging,
	}); err != nil {
		return fmt.Errorf("NodeUnstageVolume: %w", err)
	}
	if _, err := csi.NewControllerClient(n.CSI()).ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{
		VolumeId: volume, NodeId: n.ID(),
	}); err != nil {
		return fmt.Errorf("ControllerUnpublishVolume: %w", err)
	}
	return nil
}

// WaitInSync waits until all replicas of a volume are in sync, by the word of the
// node asked.
func (n *Node) WaitInSync(ctx context.Context, volume string) error {
	return Wait(ctx, "all replicas to be in sync", func(ctx context.Context) error {
		v, err := n.Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume})
		if err != nil {
			return err
		}
		var away []string
		for _, r := range v.GetReplicas() {
			if !r.GetInSync() {
				away = append(away, n.cluster.Node(r.GetNodeId()).Name)
			}
		}
		if len(away) > 0 {
			return fmt.Errorf("away are %v; the engine says %v", away, v.GetEngine())
		}
		return nil
	})
}
