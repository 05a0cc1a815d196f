package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// drainTimeout bounds a test in which disks are emptied.
const drainTimeout = 3 * time.Minute

// yard is four nodes with a disk each, and a volume in use on the first.
type yard struct {
	t       *testing.T
	ctx     context.Context
	cluster *harness.Cluster
	volume  *holdfastv1.Volume
	client  *nbd.Resilient
	// leave takes the client away.
	leave func()

	// model is what was written; over ends the writer.
	model   []byte
	over    chan struct{}
	writing sync.WaitGroup
	written int
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, over: make(chan struct{})}
	y.cluster = harness.New(t, harness.Options{Binaries: binaries, Nodes: 4, DaemonArgs: []string{"--frontend", "socket"}})
	ctx, cancel := context.WithTimeout(t.Context(), drainTimeout)
	t.Cleanup(cancel)
	y.ctx = ctx
	if err := y.cluster.AddDisks(ctx, "nvme"); err != nil {
		t.Fatal(err)
	}
	y.volume = y.create("busy")
	return y
}

func (y *yard) create(name string) *holdfastv1.Volume {
	y.t.Helper()
	v, err := y.cluster.Nodes[0].Volumes().CreateVolume(y.ctx, &holdfastv1.CreateVolumeRequest{
		Name: name, SizeBytes: 32 * mib, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	})
	if err != nil {
		y.t.Fatal(err)
	}
	return v
}

// node is where a replica of the volume is, or is not; never the first node, where the
// volume is in use.
func (y *yard) node(holds bool) *harness.Node {
	y.t.Helper()
	for _, n := range y.cluster.Nodes[1:] {
		if (y.replicaOn(n) != nil) == holds {
			return n
		}
	}
	y.t.Fatal("no such node")
	return nil
}

func (y *yard) replicaOn(n *harness.Node) *holdfastv1.Replica {
	y.t.Helper()
	for _, r := range y.shown().GetReplicas() {
		if r.GetNodeId() == n.ID() {
			return r
		}
	}
	return nil
}

func (y *yard) shown() *holdfastv1.Volume {
	y.t.Helper()
	v, err := y.cluster.Nodes[0].Volumes().GetVolume(y.ctx, &holdfastv1.GetVolumeRequest{Id: y.volume.GetId()})
	if err != nil {
		y.t.Fatal(err)
	}
	return v
}

// use attaches the volume to the first node and writes to it until finish.
func (y *yard) use() {
	y.t.Helper()
	dial, err := y.cluster.Nodes[0].Attach(y.ctx, y.volume.GetId())
	if err != nil {
		y.t.Fatal(err)
	}
	y.client, err = nbd.NewResilient(nbd.ResilientConfig{
		ClientConfig: nbd.ClientConfig{MaxInFlight: 16}, Size: y.volume.GetSizeBytes(),
		Dial: func(ctx context.Context) (net.Conn, error) { return dial(ctx) },
	})
	if err != nil {
		y.t.Fatal(err)
	}
	running, cancel := context.WithCancel(context.Background())
	var client sync.WaitGroup
	client.Go(func() { _ = y.client.Run(running) })
	y.leave = func() { cancel(); client.Wait() }
	y.t.Cleanup(y.leave)
	y.model = make([]byte, y.volume.GetSizeBytes())
	y.writing.Go(y.write)
}

func (y *yard) write() {
	random := rand.New(rand.NewPCG(1, 2))
	for ; ; y.written++ {
		select {
		case <-y.over:
			return
		default:
		}
		piece := bytes.Repeat([]byte{byte(1 + y.written%255)}, block.BlockSize*(1+random.IntN(16)))
		at := random.Int64N(y.volume.GetSizeBytes()/block.BlockSize-16) * block.BlockSize
		if _, err := y.client.WriteAt(piece, at); err != nil {
			y.t.Errorf("write: %v", err)
			return
		}
		copy(y.model[at:], piece)
	}
}

// finish ends the writer and wants the volume, and each of its replicas, to hold what was
// written, and nobody else to hold a replica.
func (y *yard) finish(replicas int) {
	t := y.t
	t.Helper()
	close(y.over)
	y.writing.Wait()
	got := make([]byte, len(y.model))
	for at := 0; at < len(got); at += mib {
		if _, err := y.client.ReadAt(got[at:at+mib], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, y.model) {
		t.Error("the volume reads other bytes than were written")
	}
	y.holdfast("volume", "wait", "busy")
	y.leave()
	if _, err := y.cluster.Nodes[0].Volumes().UnpublishVolume(y.ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: y.volume.GetId()}); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(y.model)
	copies, err := y.cluster.Copies(y.ctx, y.volume.GetId())
	if err != nil || len(copies) != replicas {
		t.Fatalf("%d replicas are on the disks: %v", len(copies), err)
	}
	for _, c := range copies {
		if sums, err := c.Sums(y.ctx); err != nil || sums.Whole != want {
			t.Errorf("the replica on %s holds other bytes: %v", c.Node.Name, err)
		}
	}
	t.Logf("%d writes", y.written)
}

// holdfast runs the command line against the first node.
func (y *yard) holdfast(args ...string) string {
	y.t.Helper()
	out, err := y.try(args...)
	if err != nil {
		y.t.Fatal(err)
	}
	return out
}

func (y *yard) try(args ...string) (string, error) {
	cmd := exec.CommandContext(y.ctx, binaries.CommandLine, append([]string{"--server", "unix://" + y.cluster.Nodes[0].Socket}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("holdfast %v: %w: %s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// wait polls the volume.
func (y *yard) wait(what string, holds func(*holdfastv1.Volume) bool) {
	y.t.Helper()
	err := harness.Wait(y.ctx, what, func(context.Context) error {
		if v := y.shown(); !holds(v) {
			return fmt.Errorf("the volume is %v", v)
		}
		return nil
	})
	if err != nil {
		y.t.Fatal(err)
	}
}

// TestDrainUnderLoad empties a disk while a volume on it is written to and another one is
// not in use, and kills the daemons of the new and of the old replica on the way.
func TestDrainUnderLoad(t *testing.T) {
	y := newYard(t)
	y.create("idle")
	y.use()
	old, next := y.node(true), y.node(false)
	disk := y.replicaOn(old).GetDiskId()
	if _, err := y.try("disk", "remove", disk); err == nil {
		t.Fatal("a disk with replicas was removed")
	}
	var draining sync.WaitGroup
	drained := make(chan error, 1)
	draining.Go(func() {
		_, err := y.try("disk", "drain", disk)
		drained <- err
	})
	defer draining.Wait()
	y.wait("a fourth replica", func(v *holdfastv1.Volume) bool { return len(v.GetReplicas()) == 4 })
	for _, n := range []*harness.Node{next, old} {
		if err := errors.Join(n.Kill(), n.Start(y.ctx)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if y.replicaOn(old) != nil || y.replicaOn(next) == nil {
		t.Errorf("the replicas are %v", y.shown().GetReplicas())
	}
	y.holdfast("disk", "remove", disk)
	y.finish(3)
}

// TestReplaceALostDisk: a machine is gone for good, and a disk of another one takes the
// place of its disk, while the volume is in use.
func TestReplaceALostDisk(t *testing.T) {
	y := newYard(t)
	y.use()
	old, next := y.node(true), y.node(false)
	disk := y.replicaOn(old).GetDiskId()
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(next.Dir, "disks", "new")
	if err := os.Mkdir(path, 0o750); err != nil {
		t.Fatal(err)
	}
	y.holdfast("disk", "replace", disk, path, "--to-node", next.Name)
	if r := y.replicaOn(next); r == nil || !r.GetInSync() || y.replicaOn(old) != nil {
		t.Errorf("the replicas are %v", y.shown().GetReplicas())
	}
	if _, err := y.try("disk", "remove", disk); err == nil || !strings.Contains(err.Error(), "being deleted") {
		t.Errorf("removed: %v", err)
	}
	y.holdfast("disk", "remove", disk, "--lost")
	y.finish(3)
}

// TestDiskMovesToAnotherNode with the replica on it, while the volume is in use.
func TestDiskMovesToAnotherNode(t *testing.T) {
	y := newYard(t)
	y.use()
	old, next := y.node(true), y.node(false)
	replica := y.replicaOn(old)
	var path string
	disks, err := old.Cluster().ListDisks(y.ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks.GetDisks() {
		if d.GetId() == replica.GetDiskId() {
			path = d.GetPath()
		}
	}
	if err := old.Stop(y.ctx); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(next.Dir, "disks", "moved")
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	// Its first node is back, alive and without it.
	if err := old.Start(y.ctx); err != nil {
		t.Fatal(err)
	}
	err = harness.Wait(y.ctx, "the disk to be taken over", func(context.Context) error {
		_, err := y.try("disk", "add", moved, "--node", next.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	y.wait("the replica to be in sync where it is now", func(v *holdfastv1.Volume) bool {
		r := y.replicaOn(next)
		return r.GetId() == replica.GetId() && r.GetInSync() && r.GetDiskId() == replica.GetDiskId()
	})
	y.finish(3)
}
