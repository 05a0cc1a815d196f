package conformance

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/test/harness"
)

// moveTimeout bounds a test that carries a volume around.
const moveTimeout = 2 * time.Minute

// pod is a volume used on one node, as kubelet would.
type pod struct {
	node            *harness.Node
	volume          string
	capability      *csi.VolumeCapability
	staging, target string
}

func newPod(c *harness.Cluster, n *harness.Node, volume string) *pod {
	return &pod{
		node: n, volume: volume, capability: fileSystem(),
		staging: filepath.Join(c.Dir, n.Name+"-"+volume+"-staging"), target: filepath.Join(c.Dir, n.Name+"-"+volume+"-pod"),
	}
}

// up attaches, stages and publishes.
func (p *pod) up(ctx context.Context) error {
	_, err := controllerOf(p.node).ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: p.volume, NodeId: p.node.ID(), VolumeCapability: p.capability,
	})
	if err != nil {
		return err
	}
	_, err = nodeOf(p.node).NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: p.volume, StagingTargetPath: p.staging, VolumeCapability: p.capability,
	})
	if err != nil {
		return err
	}
	_, err = nodeOf(p.node).NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: p.volume, StagingTargetPath: p.staging, TargetPath: p.target, VolumeCapability: p.capability,
	})
	return err
}

// down takes everything back.
func (p *pod) down(ctx context.Context) error {
	_, err := nodeOf(p.node).NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: p.volume, TargetPath: p.target})
	if err != nil {
		return err
	}
	_, err = nodeOf(p.node).NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: p.volume, StagingTargetPath: p.staging})
	if err != nil {
		return err
	}
	_, err = controllerOf(p.node).ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: p.volume, NodeId: p.node.ID()})
	return err
}

// TestVolumeMovesWithItsData: written on one node, read on another, with a plugin
// that was killed in between and remembers nothing.
func TestVolumeMovesWithItsData(t *testing.T) {
	cluster := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
	defer cancel()
	created, err := controllerOf(cluster.Nodes[0]).CreateVolume(ctx, createRequest("moved"))
	if err != nil {
		t.Fatal(err)
	}
	first := newPod(cluster, cluster.Nodes[0], created.GetVolume().GetVolumeId())
	second := newPod(cluster, cluster.Nodes[1], created.GetVolume().GetVolumeId())
	if err := first.up(ctx); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("kept through everything\n"), 100_000)
	if err := os.WriteFile(filepath.Join(first.target, "file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.node.KillPlugin(), first.node.StartPlugin(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.up(ctx), first.down(ctx), second.up(ctx)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(second.target, "file"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("on the other node %d bytes are read, of %d, %v", len(got), len(content), err)
	}
	if err := second.down(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(second.target)); err == nil {
		for _, entry := range left {
			if strings.HasSuffix(entry.Name(), "-pod") {
				t.Errorf("left behind: %s", entry.Name())
			}
		}
	}
}

// TestCommandLine uses a volume without Kubernetes.
func TestCommandLine(t *testing.T) {
	cluster := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
	defer cancel()
	holdfast := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, binaries.CommandLine, append([]string{"--server", "unix://" + cluster.Nodes[0].Socket}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("holdfast %v: %v: %s", args, err, stderr.String())
		}
		return strings.TrimSpace(string(out))
	}
	holdfast("volume", "create", "db", "--size", "64MiB")
	for _, node := range []string{"n1", "n3"} {
		device := holdfast("volume", "attach", "db", "--node", node)
		if again := holdfast("volume", "attach", "db", "--node", node); again != device {
			t.Errorf("attached again, the device is %s and not %s", again, device)
		}
		info, err := os.Stat(device)
		if err != nil || info.Mode()&os.ModeDevice == 0 {
			t.Errorf("the device %s is %v, %v", device, info, err)
		}
		holdfast("volume", "wait", "db")
		if list := holdfast("volume", "list"); !strings.Contains(list, device) || !strings.Contains(list, "healthy") {
			t.Errorf("while attached to %s the list is\n%s", node, list)
		}
		holdfast("volume", "detach", "db")
	}
	if nodes := holdfast("node", "list"); strings.Count(nodes, "alive") != 3 {
		t.Errorf("the nodes are\n%s", nodes)
	}
	holdfast("volume", "delete", "db")
	waitNoVolumes(ctx, t, func() string { return holdfast("volume", "list", "-o", "json") })
}

// waitNoVolumes waits until a list, in JSON, is empty: what is deleted is listed until
// its replicas are gone.
func waitNoVolumes(ctx context.Context, t *testing.T, list func() string) {
	t.Helper()
	err := harness.Wait(ctx, "deleted volumes to go", func(context.Context) error {
		if left := list(); strings.TrimSpace(left) != "[]" {
			return errors.New("left is " + left)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
