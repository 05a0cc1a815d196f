package driver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/driver/mount"
)

const xfsSize = 300 * mib

// newXFSFixture is a node fixture whose device can hold an XFS.
func newXFSFixture(t *testing.T) *nodeFixture {
	t.Helper()
	f := newNodeFixture(t)
	f.resize(t, xfsSize)
	return f
}

// resize gives the device of the fixture another size, as ControllerExpandVolume does.
func (f *nodeFixture) resize(t *testing.T, size int64) {
	t.Helper()
	file, err := exec.CommandContext(t.Context(), "losetup", "--noheadings", "--output", "BACK-FILE", f.daemon.device).Output()
	must(t, err, os.Truncate(strings.TrimSpace(string(file)), size))
	must(t, exec.CommandContext(t.Context(), "losetup", "--set-capacity", f.daemon.device).Run())
}

func xfsWriter() *csi.VolumeCapability {
	return mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "xfs")
}

func (f *nodeFixture) expand(t *testing.T, path string, required int64) (int64, error) {
	t.Helper()
	response, err := f.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId: testVolume, VolumePath: path, CapacityRange: &csi.CapacityRange{RequiredBytes: required},
	})
	return response.GetCapacityBytes(), err
}

// expectSize wants a file system of that size, less what XFS keeps for itself.
func (f *nodeFixture) expectSize(t *testing.T, size int64) {
	t.Helper()
	u, err := f.mounter.FileSystemUsage(f.staging)
	if err != nil || u.TotalBytes > size-60*mib || u.TotalBytes < size-70*mib {
		t.Errorf("the file system has %d MiB on a device of %d, %v", u.TotalBytes/mib, size/mib, err)
	}
}

func TestNodeExpansion(t *testing.T) {
	f := newXFSFixture(t)
	pod := filepath.Join(f.pods, "a")
	_, err := f.expand(t, pod, xfsSize)
	expectCode(t, "before it is staged", err, codes.NotFound, "is not at "+pod)
	must(t, f.stage(t, xfsWriter()), f.publish(t, "a", xfsWriter(), true))
	f.expectSize(t, xfsSize)

	const larger = xfsSize + 100*mib
	_, err = f.expand(t, pod, larger)
	expectCode(t, "before the device has grown", err, codes.Unavailable, "call again")
	f.expectSize(t, xfsSize)
	f.resize(t, larger)
	// The pod reads only; the file system is mounted for writing below it.
	for range 2 {
		if size, err := f.expand(t, pod, larger); err != nil || size != larger {
			t.Errorf("expansion answers %d, %v", size, err)
		}
		f.expectSize(t, larger)
	}
	f.resize(t, larger+100*mib)
	if size, err := f.expand(t, f.staging, 0); err != nil || size != larger+100*mib {
		t.Errorf("expansion to whatever there is answers %d, %v", size, err)
	}
	f.expectSize(t, larger+100*mib)
}

func TestRefusedNodeExpansions(t *testing.T) {
	f := newXFSFixture(t)
	must(t, f.stage(t, xfsWriter()), f.unstage(t))
	readOnly := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, "xfs")
	must(t, f.stage(t, readOnly))
	_, err := f.expand(t, f.staging, xfsSize)
	expectCode(t, "read-only", err, codes.FailedPrecondition, "mounted read-only")
	_, err = f.expand(t, f.staging, -1)
	expectCode(t, "a size below zero", err, codes.InvalidArgument, "above zero")
	_, err = f.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId: testVolume, VolumePath: f.staging, CapacityRange: &csi.CapacityRange{LimitBytes: mib},
	})
	expectCode(t, "a limit below the size", err, codes.OutOfRange, "more than the limit")
	_, err = f.expand(t, "", xfsSize)
	expectCode(t, "no path", err, codes.InvalidArgument, "no volume path")
	_, err = f.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{VolumePath: f.staging})
	expectCode(t, "no ID", err, codes.InvalidArgument, "no volume ID")
	f.daemon.setAttachment(strings.Repeat("b", 32))
	_, err = f.expand(t, f.staging, xfsSize)
	expectCode(t, "an attachment that has ended", err, codes.FailedPrecondition, f.staging)
}

func TestNodeExpansionOfADevice(t *testing.T) {
	f := newNodeFixture(t)
	capability := blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	must(t, f.stage(t, capability), f.publish(t, "dev", capability, false))
	f.resize(t, 80*mib)
	if size, err := f.expand(t, filepath.Join(f.pods, "dev"), 80*mib); err != nil || size != 80*mib {
		t.Errorf("expansion answers %d, %v", size, err)
	}
	response, err := f.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId: testVolume, VolumePath: f.staging, VolumeCapability: capability,
	})
	if err != nil {
		t.Errorf("expansion by the path of staging answers %v, %v", response, err)
	}
}

// stuntedGrowth is a mounter that fails to grow as long as it has an error.
type stuntedGrowth struct {
	mounter
	err error
}

func (m *stuntedGrowth) Grow(ctx context.Context, device, target, fsType string) error {
	if m.err != nil {
		return m.err
	}
	return m.mounter.Grow(ctx, device, target, fsType)
}

// TestStagingGrowsTheFileSystem: what was restored into a larger volume is as large as
// that when a pod sees it, also if the first attempt failed after mounting.
func TestStagingGrowsTheFileSystem(t *testing.T) {
	f := newXFSFixture(t)
	must(t, f.stage(t, xfsWriter()), f.unstage(t))
	const larger = xfsSize + 100*mib
	f.resize(t, larger)
	stunted := &stuntedGrowth{mounter: f.mounter, err: errors.New("planted")}
	f.mounter = stunted
	expectCode(t, "stage", f.stage(t, xfsWriter()), codes.Internal, "planted")
	f.expectSize(t, xfsSize)
	stunted.err = nil
	must(t, f.stage(t, xfsWriter()))
	f.expectSize(t, larger)
	must(t, f.unstage(t))

	stunted.err = errors.New("a read-only file system was to grow")
	must(t, f.stage(t, mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, "xfs")))
}

// TestCloneBesideItsSource: two volumes of the same bytes are staged on one node.
func TestCloneBesideItsSource(t *testing.T) {
	source := newXFSFixture(t)
	must(t, source.stage(t, xfsWriter()))
	row := filepath.Join(source.staging, "row")
	must(t, os.WriteFile(row, []byte("kept"), 0o600), exec.CommandContext(t.Context(), "sync", row, source.staging).Run())

	clone := newXFSFixture(t)
	must(t, exec.CommandContext(t.Context(), "dd", "if="+source.daemon.device, "of="+clone.daemon.device, "bs=1M", "status=none").Run())
	// The fixture's volumes share an ID, which those of a cluster never do.
	clone.daemon.volume.Id = otherVolume
	stage := &csi.NodeStageVolumeRequest{VolumeId: otherVolume, StagingTargetPath: clone.staging, VolumeCapability: xfsWriter()}
	if _, err := clone.NodeStageVolume(t.Context(), stage); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, mount.New().Unmount(clone.staging)) })
	if got, err := os.ReadFile(filepath.Join(clone.staging, "row")); err != nil || string(got) != "kept" {
		t.Errorf("the clone reads %q, %v", got, err)
	}
}
