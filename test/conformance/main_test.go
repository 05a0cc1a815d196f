package conformance

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	mib = 1 << 20
	// buildTimeout is generous: on a fresh machine everything is compiled.
	buildTimeout = 10 * time.Minute
)

// binaries are the programs under test, built once.
var binaries harness.Binaries

// built is the folder of programs that are there already, as in a guest without Go.
var built = flag.String("binaries", "", "folder of holdfastd, holdfast-csi and holdfast (default: build them)")

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	flag.Parse()
	if *built != "" {
		binaries = harness.BinariesIn(*built)
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "holdfast-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	if binaries, err = harness.Build(ctx, dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// newCluster is three nodes with a disk each, and the plugin on every one, with these
// arguments.
func newCluster(t *testing.T, pluginArgs ...string) *harness.Cluster {
	t.Helper()
	c := newClusterWithoutDisks(t, harness.Options{PluginArgs: pluginArgs})
	if err := c.AddDisks(t.Context(), "nvme"); err != nil {
		t.Fatal(err)
	}
	return c
}

func newClusterWithoutDisks(t *testing.T, options harness.Options) *harness.Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("devices and mounts need root, which make test has")
	}
	options.Binaries = binaries
	c := harness.New(t, options)
	for _, n := range c.Nodes {
		if err := n.StartPlugin(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func controllerOf(n *harness.Node) csi.ControllerClient { return csi.NewControllerClient(n.CSI()) }

func nodeOf(n *harness.Node) csi.NodeClient { return csi.NewNodeClient(n.CSI()) }

// fileSystem is the capability of an ordinary volume.
func fileSystem() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
	}
}

func createRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 64 * mib},
		VolumeCapabilities: []*csi.VolumeCapability{fileSystem()},
		Parameters:         map[string]string{"replicas": "3"},
	}
}
