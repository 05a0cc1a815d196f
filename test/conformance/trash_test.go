package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// expectBytes exports a volume and wants the bytes of which this is the SHA-256.
func (c *images) expectBytes(t *testing.T, volume string, want [sha256.Size]byte) {
	t.Helper()
	c.must(t, "volume", "export", volume, c.file("out.raw"))
	got, err := os.ReadFile(c.file("out.raw"))
	if err != nil || sha256.Sum256(got) != want {
		t.Errorf("volume %s has %d bytes, or others (%v)", volume, len(got), err)
	}
	if err := os.Remove(c.file("out.raw")); err != nil {
		t.Error(err)
	}
}

// TestTrashOnTheCommandLine: a deleted volume comes back with its bytes and its
// snapshots under another name; a snapshot in the trash is made into a volume; what has
// been there for its time is gone, with its replicas.
func TestTrashOnTheCommandLine(t *testing.T) {
	c := newImages(t)
	ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
	defer cancel()
	first, second := sha256.Sum256(c.disk(t, "first", 64*mib)), sha256.Sum256(c.disk(t, "second", 64*mib))
	c.must(t, "cluster", "settings", "--trash-keep", "7d")
	c.must(t, "volume", "import", "db", c.file("first.raw"))
	c.must(t, "snapshot", "create", "db", "of-first")
	c.must(t, "volume", "import", "db", c.file("second.raw"))
	if said := c.must(t, "volume", "delete", "db", "--with-snapshots"); !strings.Contains(said, "holdfast trash restore db") {
		t.Errorf("deletion says %s", said)
	}
	waitNoVolumes(ctx, t, func() string { return c.must(t, "volume", "list", "-o", "json") })
	c.expectTrash(t, 64*mib)

	c.must(t, "volume", "create", "of-snapshot", "--from-snapshot", "of-first")
	c.expectBytes(t, "of-snapshot", first)
	c.must(t, "volume", "import", "db", c.file("first.raw"))
	if out, err := c.holdfast(ctx, "trash", "restore", "db"); err == nil || !strings.Contains(out, "--as NAME") {
		t.Errorf("restored over another volume: %s", out)
	}
	c.must(t, "trash", "restore", "db", "--as", "back")
	c.expectBytes(t, "back", second)
	c.expectBytes(t, "db", first)
	c.must(t, "volume", "create", "of-back", "--from-snapshot", "of-first")
	c.expectBytes(t, "of-back", first)

	c.must(t, "cluster", "settings", "--trash-keep", "1s")
	for _, volume := range []string{"back", "db", "of-snapshot", "of-back"} {
		c.must(t, "volume", "delete", volume, "--with-snapshots")
	}
	waitNoVolumes(ctx, t, func() string { return c.must(t, "trash", "list", "-o", "json") })
	waitNoVolumes(ctx, t, func() string { return c.must(t, "volume", "list", "-o", "json") })
	for _, n := range c.Nodes {
		if held, err := n.Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{}); err != nil || len(held.GetReplicas()) != 0 {
			t.Errorf("node %s still has %v, %v", n.Name, held, err)
		}
	}
}

// expectTrash wants one volume of a size in the trash, which takes the random parts of
// its disk twice: its own and those of its snapshot.
func (c *images) expectTrash(t *testing.T, size int64) {
	t.Helper()
	var list []struct {
		Name      string
		SizeBytes int64
		Snapshots int
		Usage     struct{ UsedBytes, SnapshotBytes int64 }
	}
	if err := json.Unmarshal([]byte(c.must(t, "trash", "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	const random, slack = 4 * mib, 128 << 10
	if len(list) != 1 || list[0].Name != "db" || list[0].SizeBytes != size || list[0].Snapshots != 1 ||
		list[0].Usage.SnapshotBytes < random || list[0].Usage.SnapshotBytes > random+slack || list[0].Usage.UsedBytes < 2*random || list[0].Usage.UsedBytes > 2*random+2*slack {
		t.Errorf("in the trash are %+v", list)
	}
}

// TestTrashThroughCSI: a volume that CSI has deleted is gone for it, its name is free,
// and when it is restored a pod finds its file system on another node.
func TestTrashThroughCSI(t *testing.T) {
	l := newLand(t)
	week := int64(7 * 24 * time.Hour / time.Second)
	l.within(func(ctx context.Context) error {
		_, err := l.Nodes[2].Cluster().SetSettings(ctx, &holdfastv1.SetSettingsRequest{TrashKeepSeconds: &week})
		return err
	})
	p := l.volume(l.Nodes[0], "kept", 64*mib, fileSystem(), nil)
	l.write(p, "precious")
	l.within(p.down)
	for range 2 {
		l.within(func(ctx context.Context) error {
			_, err := l.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: p.volume})
			return err
		})
	}
	l.within(func(ctx context.Context) error {
		list, err := l.controller().ListVolumes(ctx, &csi.ListVolumesRequest{})
		if len(list.GetEntries()) != 0 {
			t.Errorf("listed are %v", list)
		}
		return err
	})
	for what, ask := range map[string]func(ctx context.Context) error{
		"get": func(ctx context.Context) error {
			_, err := l.controller().ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: p.volume})
			return err
		},
		"publish": p.up,
		"snapshot": func(ctx context.Context) error {
			_, err := l.controller().CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: p.volume})
			return err
		},
	} {
		l.within(func(ctx context.Context) error {
			if err := ask(ctx); status.Code(err) != codes.NotFound {
				t.Errorf("%s of a volume in the trash: %v", what, err)
			}
			return nil
		})
	}
	if other := l.volume(l.Nodes[0], "kept", 64*mib, fileSystem(), nil); other.volume == p.volume {
		t.Error("the same name is the volume in the trash")
	} else {
		l.within(other.down)
	}
	l.within(func(ctx context.Context) error {
		_, err := l.Nodes[1].Volumes().RestoreVolume(ctx, &holdfastv1.RestoreVolumeRequest{Id: p.volume, Name: "restored"})
		return err
	})
	back := newPod(l.Cluster, l.Nodes[2], p.volume)
	l.within(back.up)
	l.expect(back, "precious")
	l.within(back.down)
}

// TestSpaceOfSnapshots: a snapshot is refused with figures once those there are hold
// what they may, and taken when they may hold more, or hold less.
func TestSpaceOfSnapshots(t *testing.T) {
	c := newImages(t)
	first, second := c.disk(t, "first", 64*mib), c.disk(t, "second", 64*mib)
	if bytes.Equal(first, second) {
		t.Fatal("chance")
	}
	c.must(t, "volume", "create", "db", "--size", "64MiB", "--max-snapshot-space", "5%")
	c.must(t, "volume", "import", "db", c.file("first.raw"))
	c.must(t, "snapshot", "create", "db", "s1")
	c.must(t, "snapshot", "create", "db", "s2")
	c.must(t, "volume", "import", "db", c.file("second.raw"))
	out, err := c.holdfast(t.Context(), "snapshot", "create", "db", "s3")
	if err == nil || !strings.Contains(out, `the 2 snapshots of volume "db" hold 4 MiB and may hold 3 MiB (5% of its size)`) {
		t.Errorf("past the bound: %s, %v", out, err)
	}
	c.must(t, "volume", "set", "db", "--max-snapshot-space", "1GiB")
	c.must(t, "snapshot", "create", "db", "s3")
	c.must(t, "volume", "set", "db", "--max-snapshot-space", "1MiB")
	if out, err := c.holdfast(t.Context(), "snapshot", "create", "db", "s4"); err == nil {
		t.Errorf("past the new bound: %s", out)
	}
	// What two of them hold is held until both are gone.
	c.must(t, "snapshot", "delete", "s1")
	if out, err := c.holdfast(t.Context(), "snapshot", "create", "db", "s4"); err == nil {
		t.Errorf("with one of two gone: %s", out)
	}
	c.must(t, "snapshot", "delete", "s2")
	c.must(t, "snapshot", "create", "db", "s4")
	if shown := c.must(t, "volume", "show", "db"); !strings.Contains(shown, "They hold:") || !strings.Contains(shown, "1MiB at most") {
		t.Errorf("shown is %s", shown)
	}
}

// TestGrowthThatNobodyAsksForAgain: its caller has hung up, and the daemon that was
// asked is killed; when the volume is free it grows.
func TestGrowthThatNobodyAsksForAgain(t *testing.T) {
	l := newLand(t)
	p := l.volume(l.Nodes[0], "grown", 64*mib, fileSystem(), nil)
	l.within(p.down)
	volume := func(ctx context.Context) *holdfastv1.Volume {
		v, err := l.Nodes[2].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: p.volume})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	l.within(func(ctx context.Context) error {
		// While it is allowed to a node that has not taken it, nobody may touch it.
		if _, err := l.Nodes[1].Volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: p.volume, NodeId: l.Nodes[1].ID()}); err != nil {
			return err
		}
		calling, hangUp := context.WithTimeout(ctx, 2*time.Second)
		defer hangUp()
		if v, err := l.Nodes[0].Volumes().ExpandVolume(calling, &holdfastv1.ExpandVolumeRequest{Id: p.volume, SizeBytes: 128 * mib}); err == nil {
			t.Errorf("grown by nobody: %v", v)
		}
		if err := l.Nodes[0].Kill(); err != nil {
			return err
		}
		if v := volume(ctx); v.GetExpandingToBytes() != 128*mib || v.GetSizeBytes() != 64*mib {
			t.Errorf("after the intent the volume is %v", v)
		}
		if _, err := l.Nodes[2].Volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: p.volume}); err != nil {
			return err
		}
		return harness.Wait(ctx, "growth that nobody asks for again", func(ctx context.Context) error {
			if v := volume(ctx); v.GetSizeBytes() != 128*mib || v.GetExpandingToBytes() != 0 {
				return status.Errorf(codes.Unavailable, "the volume is %v", v)
			}
			return nil
		})
	})
}

// TestFullDiskNamesTheTrash: what there is to be had back is in the warning.
func TestFullDiskNamesTheTrash(t *testing.T) {
	c := &images{Cluster: harness.New(t, harness.Options{Binaries: binaries, DaemonArgs: []string{"--frontend", "socket"}}), dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
	defer cancel()
	small, err := harness.NewDisk(ctx, filepath.Join(c.Dir, "small"), filepath.Join(c.Dir, "small.img"), 600*mib)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes[0].Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: small.StorePath()}); err != nil {
		t.Fatal(err)
	}
	// More than nine tenths of what it offers.
	content := make([]byte, 272*mib)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.file("disk.raw"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	c.must(t, "cluster", "settings", "--trash-keep", "7d")
	c.must(t, "volume", "import", "db", c.file("disk.raw"), "--replicas", "1")
	c.must(t, "volume", "delete", "db")
	said := func(want string) {
		t.Helper()
		err := harness.Wait(ctx, "a list with "+want, func(context.Context) error {
			if list := c.must(t, "disk", "list", "-o", "json"); !strings.Contains(list, want) {
				return errors.New("the disks are " + list)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	said("is free; the trash takes 272 MiB of the disk (volumes: 1), see holdfast trash list")
	c.must(t, "trash", "purge", "db")
	said(`"warning": ""`)
}
