package interop

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/nbd"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// bed is a cluster whose volumes are sockets, and what a test does with it.
type bed struct {
	*harness.Cluster
	t   *testing.T
	ctx context.Context
}

func newBed(t *testing.T, nodes int) *bed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*limit)
	t.Cleanup(cancel)
	binaries, err := harness.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, ctx: ctx, Cluster: harness.New(t, harness.Options{Binaries: binaries, Nodes: nodes, DaemonArgs: []string{"--frontend", "socket"}})}
	for _, n := range b.Nodes {
		if _, err := n.AddDisk(ctx, "ssd"); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// attach attaches a volume and connects to it; the returned function undoes both.
func (b *bed) attach(node *harness.Node, volume string) (*nbd.Client, func()) {
	b.t.Helper()
	client := b.connect(must(node.Attach(b.ctx, volume))(b.t))
	return client, func() {
		b.t.Helper()
		if err := client.Close(); err != nil {
			b.t.Error(err)
		}
		_, err := node.Volumes().UnpublishVolume(b.ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: volume})
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) connect(dial func(context.Context) (net.Conn, error)) *nbd.Client {
	b.t.Helper()
	conn := must(dial(b.ctx))(b.t)
	return must(nbd.Connect(b.ctx, conn, nbd.ClientConfig{}))(b.t)
}

func (b *bed) write(c *nbd.Client, offset int64, with byte) {
	b.t.Helper()
	if _, err := c.WriteAt(bytes.Repeat([]byte{with}, 1<<20), offset); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) want(c *nbd.Client, offset int64, with byte) {
	b.t.Helper()
	got := make([]byte, 1<<20)
	if _, err := c.ReadAt(got, offset); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{with}, len(got))) {
		b.t.Errorf("the MiB at %d begins with %d, want %d (%v)", offset>>20, got[0], with, err)
	}
}

// TestSnapshotsClonesAndGrowth on real daemons and disks: each is asked of another node
// than the one that does it, of volumes that are attached and of ones that are not.
func TestSnapshotsClonesAndGrowth(t *testing.T) {
	const size = 16 << 20
	b := newBed(t, 3)
	first, second, third := b.Nodes[0], b.Nodes[1], b.Nodes[2]
	three := &holdfastv1.VolumeParameters{Replicas: 3}
	volume := must(second.Volumes().CreateVolume(b.ctx, &holdfastv1.CreateVolumeRequest{Name: "v", SizeBytes: size, Parameters: three}))(t).GetId()
	snapshot := func(node *harness.Node, name string) *holdfastv1.Snapshot {
		t.Helper()
		r := must(node.Snapshots().CreateSnapshot(b.ctx, &holdfastv1.CreateSnapshotRequest{Name: name, VolumeId: volume}))(t)
		if !r.GetReady() || time.Since(r.GetCreated().AsTime()) > time.Hour {
			t.Fatalf("snapshot %v", r)
		}
		return r
	}

	empty := snapshot(third, "empty")
	client, detach := b.attach(first, volume)
	b.write(client, 0, 1)
	one := snapshot(second, "one")
	b.write(client, 0, 2)
	grown := must(third.Volumes().ExpandVolume(b.ctx, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: 2 * size}))(t)
	if grown.GetSizeBytes() != 2*size || grown.GetSnapshotCount() != 2 {
		t.Fatalf("grown: %v", grown)
	}
	detach()
	client, detach = b.attach(second, volume)
	if got := client.Info().Size; got != 2*size {
		t.Fatalf("a device of %d bytes", got)
	}
	b.want(client, 0, 2)
	b.want(client, 2*size-1<<20, 0)
	b.write(client, 2*size-1<<20, 3)
	detach()
	two := snapshot(first, "two")
	// The first MiB was written anew after it; nothing was after the second.
	for id, unique := range map[string]int64{one.GetId(): 1 << 20, two.GetId(): 0, empty.GetId(): 0} {
		r := must(third.Snapshots().GetSnapshot(b.ctx, &holdfastv1.GetSnapshotRequest{Id: id, WithUsage: true}))(t)
		if r.GetUsage() == nil || r.GetUsage().GetUniqueBytes() != unique || r.GetUsage().GetFreedIfDeletedBytes() != unique {
			t.Errorf("snapshot %s takes %v, want %d bytes", r.GetName(), r.GetUsage(), unique)
		}
	}
	if one.GetSizeBytes() != size || two.GetSizeBytes() != 2*size {
		t.Fatalf("snapshots of %d and %d bytes", one.GetSizeBytes(), two.GetSizeBytes())
	}

	create := func(name string, change func(*holdfastv1.CreateVolumeRequest)) string {
		t.Helper()
		req := &holdfastv1.CreateVolumeRequest{Name: name, SizeBytes: 2 * size, Parameters: three}
		change(req)
		return must(third.Volumes().CreateVolume(b.ctx, req))(t).GetId()
	}
	fromOne := create("from-one", func(r *holdfastv1.CreateVolumeRequest) { r.SourceSnapshotId = one.GetId() })
	clone := create("clone", func(r *holdfastv1.CreateVolumeRequest) { r.SourceVolumeId = volume })
	if got := must(first.Volumes().ExpandVolume(b.ctx, &holdfastv1.ExpandVolumeRequest{Id: fromOne, SizeBytes: 3 * size}))(t); got.GetSizeBytes() != 3*size {
		t.Fatalf("grown: %v", got)
	}
	for _, r := range []*holdfastv1.Snapshot{one, empty} {
		if _, err := second.Snapshots().DeleteSnapshot(b.ctx, &holdfastv1.DeleteSnapshotRequest{Id: r.GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	client, detach = b.attach(third, fromOne)
	b.want(client, 0, 1)
	b.want(client, size-1<<20, 0)
	b.want(client, 3*size-1<<20, 0)
	b.write(client, 0, 4)
	detach()
	client, detach = b.attach(third, clone)
	b.want(client, 0, 2)
	b.want(client, 2*size-1<<20, 3)
	b.write(client, 0, 5)
	detach()
	client, detach = b.attach(first, volume)
	b.want(client, 0, 2)
	detach()

	list := must(third.Snapshots().ListSnapshots(b.ctx, &holdfastv1.ListSnapshotsRequest{}))(t).GetSnapshots()
	if len(list) != 1 || list[0].GetId() != two.GetId() {
		t.Fatalf("snapshots left: %v", list)
	}
	for _, id := range []string{volume, fromOne, clone} {
		if _, err := third.Volumes().DeleteVolume(b.ctx, &holdfastv1.DeleteVolumeRequest{Id: id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.Snapshots().GetSnapshot(b.ctx, &holdfastv1.GetSnapshotRequest{Name: "two"}); status.Code(err) != codes.NotFound {
		t.Fatalf("a snapshot outlived its volume: %v", err)
	}
}

// TestSnapshotWithoutANode: with a node down, the members that are left hold the
// snapshots; a copy of one is made where they are.
func TestSnapshotWithoutANode(t *testing.T) {
	const size = 8 << 20
	b := newBed(t, 3)
	first, second, third := b.Nodes[0], b.Nodes[1], b.Nodes[2]
	volume := must(first.Volumes().CreateVolume(b.ctx, &holdfastv1.CreateVolumeRequest{
		Name: "v", SizeBytes: size, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	}))(t).GetId()
	client, detach := b.attach(first, volume)
	b.write(client, 0, 1)
	if err := third.Kill(); err != nil {
		t.Fatal(err)
	}
	b.write(client, 0, 2)
	r := must(second.Snapshots().CreateSnapshot(b.ctx, &holdfastv1.CreateSnapshotRequest{Name: "s", VolumeId: volume}))(t)
	b.write(client, 0, 3)
	if err := third.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	waitInSync := func(volume string) {
		t.Helper()
		err := harness.Wait(b.ctx, "everybody to be in sync", func(ctx context.Context) error {
			v, err := first.Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume})
			if err == nil && len(v.GetReplicas()) != 3 {
				return status.Errorf(codes.Internal, "%v", v)
			}
			for _, m := range v.GetReplicas() {
				if !m.GetInSync() {
					err = status.Errorf(codes.Unavailable, "%v", v)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	waitInSync(volume)
	copied := must(second.Volumes().CreateVolume(b.ctx, &holdfastv1.CreateVolumeRequest{
		Name: "copy", SizeBytes: size, Parameters: &holdfastv1.VolumeParameters{Replicas: 3}, SourceSnapshotId: r.GetId(),
	}))(t).GetId()
	detach()
	// Of the node that was away alone.
	client, detach = b.attach(third, copied)
	waitInSync(copied)
	b.want(client, 0, 2)
	detach()
}

// TestWorkersAreKilled: daemons die in the midst of snapshots and growth of a volume
// that nobody has attached. What was answered is there, what was not answered can be
// asked for again, and the volume can be attached.
func TestWorkersAreKilled(t *testing.T) {
	const size, rounds = 8 << 20, 2
	b := newBed(t, 3)
	volume := must(b.Nodes[0].Volumes().CreateVolume(b.ctx, &holdfastv1.CreateVolumeRequest{
		Name: "v", SizeBytes: size, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	}))(t).GetId()
	want := map[string]string{}
	for round := range rounds {
		victim, asked := b.Nodes[round+1], b.Nodes[0] // the first one may still be the only voter
		name := fmt.Sprint("s", round)
		request := func() (string, error) {
			ctx, cancel := context.WithTimeout(b.ctx, limit)
			defer cancel()
			r, err := asked.Snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: name, VolumeId: volume})
			if err != nil {
				return "", err
			}
			_, err = asked.Volumes().ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: int64(round+2) * size})
			return r.GetId(), err
		}
		var id string
		var err error
		var asking sync.WaitGroup
		asking.Go(func() { id, err = request() })
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		asking.Wait()
		if err != nil {
			t.Logf("round %d: %v", round, err)
		}
		if err := victim.Start(b.ctx); err != nil {
			t.Fatal(err)
		}
		again := must(request())(t)
		if id != "" && again != id {
			t.Errorf("round %d: snapshot %s, and %s when it was asked for again", round, id, again)
		}
		want[name] = again
	}
	for _, r := range must(b.Nodes[0].Snapshots().ListSnapshots(b.ctx, &holdfastv1.ListSnapshotsRequest{}))(t).GetSnapshots() {
		if !r.GetReady() || want[r.GetName()] != r.GetId() {
			t.Errorf("unexpected %v", r)
		}
		delete(want, r.GetName())
	}
	if len(want) != 0 {
		t.Errorf("these are missing: %v", want)
	}
	client, detach := b.attach(b.Nodes[0], volume)
	if got := client.Info().Size; got != (rounds+1)*size {
		t.Errorf("a device of %d bytes", got)
	}
	b.write(client, rounds*size, 1)
	b.want(client, rounds*size, 1)
	detach()
}
