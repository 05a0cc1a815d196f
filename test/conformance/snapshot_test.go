package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/test/harness"
)

// xfsBytes is the size of the smallest volume with an XFS.
const xfsBytes = 300 * mib

func withFileSystem(fsType string) *csi.VolumeCapability {
	capability := fileSystem()
	capability.GetMount().FsType = fsType
	return capability
}

func rawDevice() *csi.VolumeCapability {
	capability := fileSystem()
	capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	return capability
}

// land is a cluster, and how the tests of snapshots use it.
type land struct {
	*harness.Cluster
	t *testing.T
}

func newLand(t *testing.T, pluginArgs ...string) *land {
	t.Helper()
	return &land{Cluster: newCluster(t, pluginArgs...), t: t}
}

// within runs do with a context that bounds one step.
func (l *land) within(do func(ctx context.Context) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), callTimeout)
	defer cancel()
	if err := do(ctx); err != nil {
		l.t.Fatal(err)
	}
}

// controller is not that of the node which began as the leader.
func (l *land) controller() csi.ControllerClient { return controllerOf(l.Nodes[1]) }

func (l *land) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// volume makes a volume, of a source if that is not nil, and a pod for it that is up.
func (l *land) volume(n *harness.Node, name string, size int64, capability *csi.VolumeCapability, source *csi.VolumeContentSource) *pod {
	l.t.Helper()
	req := createRequest(name)
	req.CapacityRange.RequiredBytes, req.VolumeContentSource = size, source
	req.VolumeCapabilities = []*csi.VolumeCapability{capability}
	var made *csi.CreateVolumeResponse
	l.within(func(ctx context.Context) (err error) {
		made, err = l.controller().CreateVolume(ctx, req)
		return err
	})
	if got := made.GetVolume(); got.GetCapacityBytes() != size || got.GetContentSource().String() != source.String() {
		l.t.Fatalf("volume %s is made as %v", name, got)
	}
	p := newPod(l.Cluster, n, made.GetVolume().GetVolumeId())
	p.capability = capability
	l.within(p.up)
	return p
}

func (l *land) snapshot(p *pod, name string) *csi.Snapshot {
	l.t.Helper()
	var made *csi.CreateSnapshotResponse
	l.within(func(ctx context.Context) (err error) {
		made, err = l.controller().CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: p.volume})
		return err
	})
	if !made.GetSnapshot().GetReadyToUse() {
		l.t.Fatalf("snapshot %s is made as %v", name, made)
	}
	return made.GetSnapshot()
}

func ofSnapshot(s *csi.Snapshot) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.GetSnapshotId()},
	}}
}

func ofVolume(p *pod) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: p.volume},
	}}
}

// write has a row on the volume when it returns.
func (l *land) write(p *pod, row string) {
	l.t.Helper()
	path := filepath.Join(p.target, "row")
	l.check(os.WriteFile(path, []byte(row), 0o600))
	l.within(func(ctx context.Context) error { return exec.CommandContext(ctx, "sync", path, p.target).Run() })
}

// syncFileSystem has everything on the volume that was written to a pod's path.
func (l *land) syncFileSystem(p *pod) {
	l.t.Helper()
	l.within(func(ctx context.Context) error {
		return exec.CommandContext(ctx, "sync", "--file-system", p.target).Run()
	})
}

func (l *land) expect(p *pod, row string) {
	l.t.Helper()
	got, err := os.ReadFile(filepath.Join(p.target, "row"))
	if err != nil || string(got) != row {
		l.t.Errorf("volume %s has row %q, %v; want %q", p.volume, got, err, row)
	}
}

// fileSystemBytes is the size of the file system of a pod.
func (l *land) fileSystemBytes(p *pod) int64 {
	l.t.Helper()
	var s unix.Statfs_t
	l.check(unix.Statfs(p.target, &s))
	return int64(s.Blocks) * s.Bsize
}

// TestSnapshotsKeepWhatWas: two snapshots of a volume in use, each restored on another
// node, and one of them deleted under its restored volume.
func TestSnapshotsKeepWhatWas(t *testing.T) {
	l := newLand(t)
	source := l.volume(l.Nodes[0], "source", 64*mib, fileSystem(), nil)
	l.write(source, "first")
	first := l.snapshot(source, "s1")
	l.write(source, "second")
	second := l.snapshot(source, "s2")
	l.write(source, "third")

	one := l.volume(l.Nodes[1], "one", 64*mib, fileSystem(), ofSnapshot(first))
	two := l.volume(l.Nodes[2], "two", 64*mib, fileSystem(), ofSnapshot(second))
	l.expect(one, "first")
	l.expect(two, "second")
	l.expect(source, "third")
	l.write(one, "its own")

	l.within(func(ctx context.Context) error {
		_, err := l.controller().DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: first.GetSnapshotId()})
		return err
	})
	l.within(func(ctx context.Context) error {
		list, err := l.controller().ListSnapshots(ctx, &csi.ListSnapshotsRequest{SourceVolumeId: source.volume})
		if len(list.GetEntries()) != 1 || list.GetEntries()[0].GetSnapshot().GetSnapshotId() != second.GetSnapshotId() {
			t.Errorf("left are %v", list)
		}
		return err
	})
	l.within(one.down)
	l.within(one.up)
	l.expect(one, "its own")
	for _, p := range []*pod{source, one, two} {
		l.within(p.down)
	}
}

// TestCloneBesideItsSource: a clone of an XFS in use is used on the same node, is larger
// there, and neither sees the other's writes.
func TestCloneBesideItsSource(t *testing.T) {
	l := newLand(t)
	source := l.volume(l.Nodes[0], "source", xfsBytes, withFileSystem("xfs"), nil)
	l.write(source, "shared")
	clone := l.volume(l.Nodes[0], "clone", xfsBytes+100*mib, withFileSystem("xfs"), ofVolume(source))
	l.expect(clone, "shared")
	l.write(clone, "the clone's")
	l.write(source, "the source's")
	l.expect(clone, "the clone's")
	l.expect(source, "the source's")
	if grown := l.fileSystemBytes(clone) - l.fileSystemBytes(source); grown < 90*mib {
		t.Errorf("the file system of the clone is %d MiB larger than that of its source", grown/mib)
	}
	l.within(clone.down)
	l.within(source.down)
}

// TestExpansionInUse of a file system and of a device, each of them asked for twice.
func TestExpansionInUse(t *testing.T) {
	l := newLand(t)
	const larger = xfsBytes + 100*mib
	files := l.volume(l.Nodes[0], "files", xfsBytes, withFileSystem("xfs"), nil)
	device := l.volume(l.Nodes[0], "device", xfsBytes, rawDevice(), nil)
	for range 2 {
		l.expand(files, larger)
		l.expand(device, larger)
	}
	if bytes := l.fileSystemBytes(files); bytes < larger-70*mib {
		t.Errorf("the file system has %d MiB", bytes/mib)
	}
	l.useEnd(device.target, larger)
	l.within(files.down)
	l.within(device.down)
}

// expand makes a volume in use larger, as the sidecar and kubelet would.
func (l *land) expand(p *pod, larger int64) {
	l.t.Helper()
	capacity := &csi.CapacityRange{RequiredBytes: larger}
	l.within(func(ctx context.Context) error {
		expanded, err := l.controller().ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
			VolumeId: p.volume, CapacityRange: capacity, VolumeCapability: p.capability,
		})
		if err == nil && (expanded.GetCapacityBytes() != larger || expanded.GetNodeExpansionRequired() != (p.capability.GetMount() != nil)) {
			l.t.Errorf("the controller answers %v", expanded)
		}
		return err
	})
	l.within(func(ctx context.Context) error {
		grown, err := nodeOf(p.node).NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
			VolumeId: p.volume, VolumePath: p.target, CapacityRange: capacity,
		})
		if err == nil && grown.GetCapacityBytes() != larger {
			l.t.Errorf("the node answers %v", grown)
		}
		return err
	})
}

// useEnd writes and reads the last block of a device.
func (l *land) useEnd(device string, size int64) {
	l.t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	l.check(err)
	defer f.Close()
	want := bytes.Repeat([]byte("end."), 1024)
	_, err = f.WriteAt(want, size-int64(len(want)))
	l.check(err)
	l.check(f.Sync())
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, size-int64(len(got))); err != nil || !bytes.Equal(got, want) {
		l.t.Errorf("the end of the device reads %q, %v", got[:8], err)
	}
}

// TestSnapshotsOnTheCommandLine: create, list, restore, revert, expand, delete.
func TestSnapshotsOnTheCommandLine(t *testing.T) {
	c := newImages(t)
	content := c.disk(t, "disk", 64*mib)
	c.must(t, "volume", "import", "db", c.file("disk.raw"))
	c.must(t, "snapshot", "create", "db", "before")
	other := c.disk(t, "other", 64*mib)
	c.must(t, "volume", "import", "db", c.file("other.raw"))
	c.expectExport(t, other)
	c.expectUsage(t, "before", 4*mib)
	c.must(t, "volume", "create", "copy", "--from-snapshot", "before")
	c.must(t, "volume", "export", "copy", c.file("copy.raw"))
	if got, err := os.ReadFile(c.file("copy.raw")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the restored volume has %d bytes, or others (%v)", len(got), err)
	}
	if said := c.must(t, "volume", "expand", "copy", "--size", "80MiB"); said != "Volume copy has 80MiB now.\n" {
		t.Errorf("expansion says %s", said)
	}
	if out, err := c.holdfast(t.Context(), "volume", "delete", "db"); err == nil || !strings.Contains(out, "--with-snapshots") {
		t.Errorf("a volume with a snapshot is deleted: %s, %v", out, err)
	}
	c.must(t, "snapshot", "delete", "before")
	c.must(t, "volume", "delete", "db")
	c.must(t, "volume", "delete", "copy")
}

// expectUsage wants a snapshot to take that much, up to the ends of blocks and extents.
func (c *images) expectUsage(t *testing.T, snapshot string, want int64) {
	t.Helper()
	var shown struct {
		Ready bool
		Usage struct{ UniqueBytes, FreedIfDeletedBytes int64 }
	}
	if err := json.Unmarshal([]byte(c.must(t, "snapshot", "show", snapshot, "-o", "json")), &shown); err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]int64{"unique": shown.Usage.UniqueBytes, "freed": shown.Usage.FreedIfDeletedBytes} {
		if got < want || got > want+128<<10 {
			t.Errorf("%s are %d bytes, want %d", what, got, want)
		}
	}
	if !shown.Ready {
		t.Errorf("snapshot %s is not ready", snapshot)
	}
}
