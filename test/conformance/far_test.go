package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// farDisk is the size of the sparse file that is a node's disk, and farPromise how
	// often it may be promised: enough for two of the largest volumes.
	farDisk    = 2 << 40
	farPromise = "100"
	// farCreation is how soon a volume is made, whatever its size.
	farCreation = time.Second
)

// newFarLand has disks that volumes of the largest size may be on.
func newFarLand(t *testing.T) *land {
	t.Helper()
	l := &land{Cluster: newClusterWithoutDisks(t, harness.Options{DaemonArgs: []string{"--over-provisioning", farPromise}}), t: t}
	for _, n := range l.Nodes {
		l.within(func(ctx context.Context) error {
			// Few inodes: their tables are all that such a file system writes.
			disk, err := harness.NewDisk(ctx, filepath.Join(n.Dir, "sparse"), filepath.Join(n.Dir, "sparse.img"), farDisk, "-N", "4096")
			if err != nil {
				return err
			}
			_, err = n.Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: disk.StorePath(), Class: "ssd"})
			return err
		})
	}
	return l
}

// far is a device that is used at its last bytes.
type far struct {
	*os.File
	t    *testing.T
	size int64
}

func (l *land) openFar(p *pod, size int64) *far {
	l.t.Helper()
	f, err := os.OpenFile(p.target, os.O_RDWR|unix.O_DIRECT, 0)
	l.check(err)
	l.t.Cleanup(func() { _ = f.Close() })
	if end, err := f.Seek(0, 2); err != nil || end != size {
		l.t.Fatalf("the device has %d bytes, want %d, %v", end, size, err)
	}
	return &far{File: f, t: l.t, size: size}
}

// aligned is a buffer that a device takes directly, full of a letter.
func aligned(n int, letter byte) []byte {
	b := block.NewBuffer(n).Data
	copy(b, bytes.Repeat([]byte{letter}, n))
	return b
}

// put writes so many bytes, so many before the end.
func (f *far) put(before int64, n int, letter byte) {
	f.t.Helper()
	if _, err := f.WriteAt(aligned(n, letter), f.size-before); err != nil {
		f.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *far) trim(before, n int64) {
	f.t.Helper()
	at := f.size - before
	cmd := exec.CommandContext(f.t.Context(), "blkdiscard", "--offset", fmt.Sprint(at), "--length", fmt.Sprint(n), f.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
}

func (f *far) expect(before int64, n int, letter byte) {
	f.t.Helper()
	got := aligned(n, '?')
	if _, err := f.ReadAt(got, f.size-before); err != nil {
		f.t.Fatal(err)
	}
	if !bytes.Equal(got, aligned(n, letter)) {
		f.t.Errorf("%d bytes before the end read %q, want %q", before, got[:8], letter)
	}
}

// TestLargestVolume makes volumes of 64 TiB in less than a second and uses one at its
// end, as a pod would: it is written, trimmed, restored from a snapshot, grown while it is
// used, and read on another node.
func TestLargestVolume(t *testing.T) {
	const size, larger = block.MaxVolumeSize - 1<<30, block.MaxVolumeSize
	l := newFarLand(t)
	l.createsFast("timed", larger)

	p := l.volume(l.Nodes[0], "large", size, rawDevice(), nil)
	f := l.openFar(p, size)
	f.put(4*mib, 4*mib, 'a')
	f.put(size, mib, 'z')
	used := l.usedBytes(p)
	snapshot := l.snapshot(p, "kept")
	f.put(mib, mib, 'b')
	f.trim(4*mib, 2*mib)
	expect := func(f *far, missing int64) {
		t.Helper()
		f.expect(missing+4*mib, 2*mib, 0)
		f.expect(missing+2*mib, mib, 'a')
		f.expect(missing+mib, mib, 'b')
		f.expect(f.size, mib, 'z')
	}
	expect(f, 0)
	if more := l.usedBytes(p) - used; used != 5*mib || more != mib {
		t.Errorf("%d bytes are used, and %d more with the snapshot", used, more)
	}

	restored := l.volume(l.Nodes[0], "restored", size, rawDevice(), ofSnapshot(snapshot))
	past := l.openFar(restored, size)
	past.expect(4*mib, 4*mib, 'a')
	past.expect(size, mib, 'z')
	l.check(past.Close())
	l.within(restored.down)

	l.expand(p, larger)
	f.size = larger
	f.expect(mib, mib, 0)
	f.put(mib, mib, 'c')
	expect(f, larger-size)
	l.check(f.Close())
	l.within(p.down)

	moved := newPod(l.Cluster, l.Nodes[2], p.volume)
	moved.capability = p.capability
	l.within(moved.up)
	f = l.openFar(moved, larger)
	f.expect(mib, mib, 'c')
	expect(f, larger-size)
	l.check(f.Close())
	l.within(moved.down)
}

// createsFast makes and deletes volumes. The fastest counts, for the machine may be busy.
func (l *land) createsFast(name string, size int64) {
	l.t.Helper()
	fastest := time.Hour
	for n := range 3 {
		req := createRequest(fmt.Sprint(name, n))
		req.CapacityRange.RequiredBytes = size
		l.within(func(ctx context.Context) error {
			began := time.Now()
			made, err := l.controller().CreateVolume(ctx, req)
			if err != nil {
				return err
			}
			fastest = min(fastest, time.Since(began))
			_, err = l.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: made.GetVolume().GetVolumeId()})
			return err
		})
	}
	l.t.Logf("a volume of %d TiB is made in %s", size>>40, fastest)
	if fastest > farCreation {
		l.t.Errorf("a volume is made in %s at best, want %s", fastest, farCreation)
	}
}
