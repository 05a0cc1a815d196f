package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/engine/frontend/socket"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// TestSocketFrontend: the path of such a device is what the tools take as it is, in
// a directory that has to be escaped; one after the other, since a device has one
// client; also after the daemon has changed.
func TestSocketFrontend(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "inter op+")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	disk := nbdtest.NewMemory(nbdtest.Info("", diskSize, 4096))
	driver := &socket.Driver{RunDir: filepath.Join(dir, "s")}
	spec := frontend.Spec{
		Volume: block.VolumeID{ID: block.ID{1}}, Attachment: block.AttachmentID{ID: block.ID{2}},
		Size: diskSize, Backend: disk,
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	device, err := driver.Attach(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	uri := device.Path()

	var info struct {
		Exports []struct {
			Size     int64 `json:"export-size"`
			MinBlock int   `json:"block_size_minimum"`
		} `json:"exports"`
	}
	out := tool(t, "nbdinfo", "--json", uri)
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Exports) != 1 ||
		info.Exports[0].Size != diskSize || info.Exports[0].MinBlock != 4096 {
		t.Errorf("nbdinfo says %s (%v)", out, err)
	}
	content := make([]byte, diskSize)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(content)
	file := filepath.Join(dir, "content")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri)
	tool(t, "fio", "--name=read", "--ioengine=nbd", "--uri="+uri, "--rw=randread", "--bs=4k", "--iodepth=16", "--size=4M")

	if err := device.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if device, err = driver.Adopt(ctx, spec); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
	copied := filepath.Join(dir, "copied")
	tool(t, "nbdcopy", uri, copied)
	if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy differs (%v)", err)
	}
	if err := device.Detach(ctx); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(driver.RunDir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestSocketSurvivesItsDaemon: a client that reconnects goes on by the same path
// after the daemon was killed, and after it was stopped in order; nothing it was
// told is lost and no request fails.
func TestSocketSurvivesItsDaemon(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*limit)
	defer cancel()
	binaries, err := harness.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cluster := harness.New(t, harness.Options{Binaries: binaries, Nodes: 1, DaemonArgs: []string{"--frontend", "socket"}})
	node := cluster.Nodes[0]
	if _, err := node.AddDisk(ctx, "ssd"); err != nil {
		t.Fatal(err)
	}
	volume, err := node.Volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
		Name: "v", SizeBytes: diskSize, Parameters: &holdfastv1.VolumeParameters{Replicas: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume.GetId(), NodeId: node.ID()}); err != nil {
		t.Fatal(err)
	}
	stage := func() string {
		staged, err := node.Agent().StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: volume.GetId()})
		if err != nil {
			t.Fatal(err)
		}
		return staged.GetDevicePath()
	}
	path := stage()
	client := dialForever(t, path)
	pattern := func(round int) []byte { return bytes.Repeat([]byte{byte(round + 1)}, 1<<20) }
	for round, end := range []func() error{node.Kill, func() error { return node.Stop(ctx) }} {
		if _, err := client.WriteAt(pattern(round), int64(round)<<20); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		// It is asked of a daemon that is not there yet.
		flushed := make(chan error, 1)
		var flushing sync.WaitGroup
		flushing.Go(func() { flushed <- client.Flush() })
		if err := node.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-flushed; err != nil {
			t.Errorf("a flush across the restart: %v", err)
		}
		flushing.Wait()
		if again := stage(); again != path {
			t.Errorf("staged again, the path is %s, not %s", again, path)
		}
	}
	for round := range 2 {
		got := make([]byte, 1<<20)
		if _, err := client.ReadAt(got, int64(round)<<20); err != nil || !bytes.Equal(got, pattern(round)) {
			t.Errorf("what was written before restart %d is not there (%v)", round+1, err)
		}
	}
	if client.Connections() != 3 {
		t.Errorf("%d connections", client.Connections())
	}
}

// dialForever is a client of a socket that reconnects until the test ends.
func dialForever(t *testing.T, uri string) *nbd.Resilient {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	client, err := nbd.NewResilient(nbd.ResilientConfig{Size: diskSize, Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", u.Query().Get("socket"))
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return client
}
