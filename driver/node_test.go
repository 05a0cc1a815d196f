package driver

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/driver/mount"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// nodeFixture is a node service with real mounts on a loop device; the daemon is
// scripted.
type nodeFixture struct {
	*node
	daemon  *scriptedDaemon
	staging string
	pods    string
}

func newNodeFixture(t *testing.T) *nodeFixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root, which make test has")
	}
	devices, err := os.MkdirTemp("/dev", "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	dir := mount.Resolve(t.TempDir())
	d := &scriptedDaemon{
		volume: &holdfastv1.Volume{Id: testVolume, State: holdfastv1.Volume_READY, AttachmentId: testAttachment},
		device: loopDevice(t),
	}
	f := &nodeFixture{
		node: &node{
			daemon: serveDaemon(t, d), mounter: mount.New(), devices: mount.Devices(devices), running: newInFlight(),
		},
		daemon: d, staging: filepath.Join(dir, "staging"), pods: filepath.Join(dir, "pods"),
	}
	if err := os.Mkdir(f.pods, 0o750); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		points, err := f.mountsOf(testVolume)
		if err != nil {
			t.Error(err)
		}
		for i := range points {
			if err := f.mounter.Unmount(points[len(points)-1-i].Path); err != nil {
				t.Error(err)
			}
		}
		os.RemoveAll(devices)
	})
	return f
}

func loopDevice(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64*mib); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v: %s", err, out)
		}
	})
	return device
}

func (f *nodeFixture) stage(t *testing.T, capability *csi.VolumeCapability) error {
	t.Helper()
	_, err := f.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: testVolume, StagingTargetPath: f.staging, VolumeCapability: capability,
	})
	return err
}

func (f *nodeFixture) publish(t *testing.T, pod string, capability *csi.VolumeCapability, readOnly bool) error {
	t.Helper()
	_, err := f.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: testVolume, StagingTargetPath: f.staging, TargetPath: filepath.Join(f.pods, pod),
		VolumeCapability: capability, Readonly: readOnly,
	})
	return err
}

func (f *nodeFixture) unpublish(t *testing.T, pod string) error {
	t.Helper()
	_, err := f.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{
		VolumeId: testVolume, TargetPath: filepath.Join(f.pods, pod),
	})
	return err
}

func (f *nodeFixture) unstage(t *testing.T) error {
	t.Helper()
	_, err := f.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{
		VolumeId: testVolume, StagingTargetPath: f.staging,
	})
	return err
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func writer() *csi.VolumeCapability {
	return mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "")
}

// TestStageOfWhatIsNoDevice: a daemon that shows volumes to NBD tools only is
// named as the reason, and the volume can be unstaged.
func TestStageOfWhatIsNoDevice(t *testing.T) {
	f := newNodeFixture(t)
	f.daemon.device = "nbd+unix:///?socket=/run/holdfast/sockets/x.nbd"
	for name, capability := range map[string]*csi.VolumeCapability{
		"mount": writer(),
		"block": {
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: writer().GetAccessMode(),
		},
	} {
		expectCode(t, name, f.stage(t, capability), codes.FailedPrecondition, "without --frontend socket")
		must(t, f.unstage(t))
	}
	if n := f.daemon.count("UnstageVolume"); n != 2 {
		t.Errorf("unstaged %d times", n)
	}
}

func TestLifeOfAMountedVolume(t *testing.T) {
	f := newNodeFixture(t)
	for range 2 {
		must(t, f.stage(t, writer()))
	}
	for range 2 {
		must(t, f.publish(t, "a", writer(), false), f.publish(t, "b", writer(), true))
	}
	must(t, os.WriteFile(filepath.Join(f.pods, "a", "row"), []byte("kept"), 0o600))
	if row, err := os.ReadFile(filepath.Join(f.pods, "b", "row")); err != nil || string(row) != "kept" {
		t.Errorf("the second pod reads %q, %v", row, err)
	}
	if err := os.WriteFile(filepath.Join(f.pods, "b", "row"), nil, 0o600); err == nil {
		t.Error("the read-only pod could write")
	}

	stats, err := f.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: testVolume, VolumePath: filepath.Join(f.pods, "a")})
	if err != nil || len(stats.GetUsage()) != 2 || stats.GetUsage()[0].GetTotal() == 0 {
		t.Errorf("usage is %v, %v", stats, err)
	}
	_, err = f.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: testVolume, VolumePath: f.pods})
	expectCode(t, "stats elsewhere", err, codes.NotFound, "is not at")
	expectCode(t, "publish again for writing", f.publish(t, "b", writer(), false), codes.AlreadyExists, "read-only=true")
	expectCode(t, "stage again read-only", f.stage(t, mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, "")),
		codes.AlreadyExists, "unstage it first")
	expectCode(t, "unstage while published", f.unstage(t), codes.FailedPrecondition, filepath.Join(f.pods, "a"))
	if n := f.daemon.count("UnstageVolume"); n != 0 {
		t.Error("the device was taken away under a mounted file system")
	}

	for range 2 {
		must(t, f.unpublish(t, "a"), f.unpublish(t, "b"))
	}
	if left, err := os.ReadDir(f.pods); err != nil || len(left) != 0 {
		t.Errorf("left of the pods' paths: %v, %v", left, err)
	}
	for range 2 {
		must(t, f.unstage(t))
	}
	if names, err := os.ReadDir(string(f.devices)); err != nil || len(names) != 0 {
		t.Errorf("left of the device nodes: %v, %v", names, err)
	}

	must(t, f.stage(t, writer()), f.publish(t, "a", writer(), false))
	if row, err := os.ReadFile(filepath.Join(f.pods, "a", "row")); err != nil || string(row) != "kept" {
		t.Errorf("staged again, the file reads %q, %v", row, err)
	}
}

func TestLifeOfABlockVolume(t *testing.T) {
	f := newNodeFixture(t)
	capability := blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	expectCode(t, "publish before stage", f.publish(t, "dev", capability, false), codes.FailedPrecondition, "stage it first")
	for range 2 {
		must(t, f.stage(t, capability), f.publish(t, "dev", capability, false))
	}
	path := filepath.Join(f.pods, "dev")
	must(t, os.WriteFile(path, []byte("raw"), 0o600))
	stats, err := f.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: testVolume, VolumePath: path})
	if err != nil || len(stats.GetUsage()) != 1 || stats.GetUsage()[0].GetTotal() != 64*mib {
		t.Errorf("usage is %v, %v", stats, err)
	}
	expectCode(t, "unstage while published", f.unstage(t), codes.FailedPrecondition, path)
	must(t, f.unpublish(t, "dev"), f.unstage(t))

	expectCode(t, "raw data as a file system", f.stage(t, writer()), codes.FailedPrecondition, "left untouched")
}

func TestSingleWriterHasOnePath(t *testing.T) {
	f := newNodeFixture(t)
	capability := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, "")
	must(t, f.stage(t, capability), f.publish(t, "a", capability, false), f.publish(t, "a", capability, false))
	expectCode(t, "a second path", f.publish(t, "b", capability, false), codes.FailedPrecondition, "one path at a time")
}

// TestStaleAttachmentIsNotReused: a file system that is still mounted when its
// attachment has ended must never meet the next attachment.
func TestStaleAttachmentIsNotReused(t *testing.T) {
	f := newNodeFixture(t)
	must(t, f.stage(t, writer()), f.publish(t, "a", writer(), false))
	f.daemon.setAttachment(strings.Repeat("b", 32))
	before := f.daemon.count("StageVolume")
	expectCode(t, "stage", f.stage(t, writer()), codes.FailedPrecondition, "attachment that has ended: "+f.staging)
	if f.daemon.count("StageVolume") != before {
		t.Error("a new attachment was begun under the old mount")
	}
	health, err := f.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: testVolume})
	if err != nil || len(health.GetVolumeHealth().GetHealthStatuses()) != 1 {
		t.Errorf("health is %v, %v", health, err)
	}
	must(t, f.unpublish(t, "a"), f.unstage(t), f.stage(t, writer()))
}

// TestMovedDeviceIsNotReused: the same attachment shown by another device.
func TestMovedDeviceIsNotReused(t *testing.T) {
	f := newNodeFixture(t)
	must(t, f.stage(t, writer()))
	f.daemon.device = loopDevice(t)
	expectCode(t, "stage", f.stage(t, writer()), codes.FailedPrecondition, "while the volume is")
}

func TestPathsOfOthersAreLeftAlone(t *testing.T) {
	f := newNodeFixture(t)
	taken := filepath.Join(f.pods, "a")
	must(t, os.MkdirAll(f.staging, 0o750), os.MkdirAll(taken, 0o750))
	for _, path := range []string{f.staging, taken} {
		must(t, exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "none", path).Run())
		t.Cleanup(func() { must(t, exec.CommandContext(context.Background(), "umount", path).Run()) })
	}
	expectCode(t, "stage", f.stage(t, writer()), codes.FailedPrecondition, "something other than this volume")
	expectCode(t, "unstage", f.unstage(t), codes.FailedPrecondition, "something other than this volume")
	expectCode(t, "unpublish", f.unpublish(t, "a"), codes.FailedPrecondition, "something other than this volume")
}

func TestDaemonTroubleWhileStaging(t *testing.T) {
	f := newNodeFixture(t)
	for code, want := range map[codes.Code]codes.Code{
		codes.Unavailable:        codes.Unavailable,
		codes.FailedPrecondition: codes.FailedPrecondition,
		codes.Unknown:            codes.Unavailable,
	} {
		f.daemon.fail("StageVolume", status.Error(code, "trouble"))
		expectCode(t, "stage", f.stage(t, writer()), want, "trouble")
	}
	f.daemon.fail("StageVolume", nil)
	f.daemon.device = f.pods
	expectCode(t, "not a device", f.stage(t, writer()), codes.Internal, "not a block device")
}

func TestNodeDescribesItself(t *testing.T) {
	f := newNodeFixture(t)
	info, err := f.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != testNode || info.GetAccessibleTopology().GetSegments()[TopologyKey] != "n1" {
		t.Errorf("described as %v, %v", info, err)
	}
	health, err := f.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
	if err != nil || len(health.GetBackendHealth()) != 1 || health.GetBackendHealth()[0].GetMessage() != "/disks/a: input/output error" {
		t.Errorf("health is %v, %v", health, err)
	}
}
