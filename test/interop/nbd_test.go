package interop

import (
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

const (
	diskSize = 32 << 20
	limit    = time.Minute
)

// packages are the Debian packages of the tools.
var packages = map[string]string{
	"nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin", "qemu-img": "qemu-utils", "qemu-io": "qemu-utils",
	"fio": "fio", "nbdkit": "nbdkit",
}

// tool runs a tool and returns its standard output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install the package %s, or run `make deps`", name, packages[name])
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	command.Dir = t.TempDir()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// fixture is a server with two exports: "disk" is writable, "snapshot" is not
// and has meta contexts.
type fixture struct {
	disk, snapshot *nbdtest.Disk
	socket         string
	content        []byte
}

func (f *fixture) uri(export string) string { return "nbd+unix:///" + export + "?socket=" + f.socket }

func start(t *testing.T) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "interop")
	if err != nil {
		t.Fatal(err)
	}
	snapshot := nbdtest.Info("snapshot", diskSize, 512)
	snapshot.ReadOnly = true
	snapshot.Description = "a snapshot"
	snapshot.Contexts = []string{nbd.ContextAllocation, "holdfast:changed/earlier"}
	f := &fixture{
		disk:     nbdtest.NewMemory(nbdtest.Info("disk", diskSize, 4096)),
		snapshot: nbdtest.NewMemory(snapshot),
		socket:   filepath.Join(dir, "s"),
		content:  make([]byte, diskSize),
	}
	random := rand.NewChaCha8([32]byte{1})
	// Data in the middle, holes around it.
	_, _ = random.Read(f.content[4<<20 : 20<<20])
	if _, err := f.snapshot.Storage().WriteAt(f.content, 0); err != nil {
		t.Fatal(err)
	}
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: nbdtest.Exports{"disk": f.disk, "snapshot": f.snapshot}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		loop.Wait()
		for _, d := range []*nbdtest.Disk{f.disk, f.snapshot} {
			if opened, closed := d.Opened.Load(), d.Closed.Load(); opened != closed {
				t.Errorf("an export was opened %d times and closed %d times", opened, closed)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return f
}

// wantDisk compares the writable export with what it should hold.
func (f *fixture) wantDisk(t *testing.T, want []byte) {
	t.Helper()
	got := make([]byte, diskSize)
	if _, err := f.disk.Storage().ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the disk holds other bytes")
	}
}

func TestNbdinfo(t *testing.T) {
	f := start(t)
	var list struct {
		Protocol string `json:"protocol"`
		Exports  []struct {
			Name      string `json:"export-name"`
			Size      int64  `json:"export-size"`
			ReadOnly  bool   `json:"is_read_only"`
			Contexts  []string
			Flush     bool `json:"can_flush"`
			FUA       bool `json:"can_fua"`
			Trim      bool `json:"can_trim"`
			Zero      bool `json:"can_zero"`
			MultiConn bool `json:"can_multi_conn"`
			MinBlock  int  `json:"block_size_minimum"`
			MaxBlock  int  `json:"block_size_maximum"`
		} `json:"exports"`
	}
	out := tool(t, "nbdinfo", "--list", "--json", f.uri(""))
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if list.Protocol != "newstyle-fixed" || len(list.Exports) != 2 {
		t.Fatalf("%s", out)
	}
	for _, e := range list.Exports {
		writable := e.Name == "disk"
		if e.Size != diskSize || e.ReadOnly == writable || e.Trim != writable || e.Zero != writable ||
			!e.Flush || !e.FUA || e.MultiConn || e.MaxBlock != block.MaxTransfer {
			t.Errorf("%+v", e)
		}
		if !writable && (len(e.Contexts) != 2 || e.MinBlock != 512) {
			t.Errorf("%+v", e)
		}
	}
	if out := tool(t, "nbdinfo", f.uri("snapshot")); !strings.Contains(out, "a snapshot") {
		t.Errorf("no description in %s", out)
	}
}

func TestNbdinfoMap(t *testing.T) {
	f := start(t)
	for _, context := range []string{nbd.ContextAllocation, "holdfast:changed/earlier"} {
		var extents []struct{ Offset, Length, Type int64 }
		out := tool(t, "nbdinfo", "--map="+context, "--json", f.uri("snapshot"))
		if err := json.Unmarshal([]byte(out), &extents); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		data := int64(0)
		for _, e := range extents {
			if e.Type == 0 {
				data += e.Length
			}
		}
		if len(extents) < 3 || data != 16<<20 {
			t.Errorf("context %s: %d extents, %d bytes of data", context, len(extents), data)
		}
	}
}

func TestNbdcopy(t *testing.T) {
	f := start(t)
	tool(t, "nbdcopy", f.uri("snapshot"), f.uri("disk"))
	f.wantDisk(t, f.content)
	file := filepath.Join(t.TempDir(), "copy")
	tool(t, "nbdcopy", "--requests=128", f.uri("disk"), file)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, f.content) {
		t.Errorf("the copy differs (%v)", err)
	}
	tool(t, "nbdcopy", "--flush", "--allocated", file, f.uri("disk"))
	f.wantDisk(t, f.content)
	if f.disk.Flushes.Load() == 0 {
		t.Error("--flush did not become a flush")
	}
}

func TestQemuImg(t *testing.T) {
	f := start(t)
	tool(t, "qemu-img", "convert", "-n", "-O", "raw", f.uri("snapshot"), f.uri("disk"))
	f.wantDisk(t, f.content)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", f.uri("snapshot"), f.uri("disk"))
	var extents []struct {
		Length int64 `json:"length"`
		Data   bool  `json:"data"`
	}
	out := tool(t, "qemu-img", "map", "-f", "raw", "--output=json", f.uri("snapshot"))
	if err := json.Unmarshal([]byte(out), &extents); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	data := int64(0)
	for _, e := range extents {
		if e.Data {
			data += e.Length
		}
	}
	if data != 16<<20 {
		t.Errorf("map tells of %d bytes of data: %s", data, out)
	}
	// The comparison is worth something only if it can fail.
	if _, err := f.disk.Storage().WriteAt([]byte("planted"), 5<<20); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), path, "compare", "-f", "raw", "-F", "raw", f.uri("snapshot"), f.uri("disk")).Run(); err == nil {
		t.Error("qemu-img calls disks equal that differ")
	}
}

func TestQemuIO(t *testing.T) {
	f := start(t)
	out := tool(t, "qemu-io", "-f", "raw", "-d", "unmap",
		"-c", "write -P 0xab 0 2M",
		"-c", "write -f -P 0xcd 4k 8k",
		"-c", "flush",
		"-c", "read -P 0xab 0 4k",
		"-c", "read -P 0xcd 4k 8k",
		"-c", "write -z 0 4k",
		"-c", "read -P 0 0 4k",
		"-c", "discard 12k 64k",
		"-c", "read -P 0 12k 64k",
		"-c", "read -P 0xab 76k 1M",
		f.uri("disk"))
	if strings.Contains(out, "verification failed") || strings.Contains(out, "error") {
		t.Error(out)
	}
	if f.disk.Durable.Load() == 0 || f.disk.Flushes.Load() == 0 {
		t.Errorf("%d durable writes, %d flushes", f.disk.Durable.Load(), f.disk.Flushes.Load())
	}
}

func TestFio(t *testing.T) {
	f := start(t)
	tool(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+f.uri("disk"), "--rw=randwrite", "--bsrange=4k-256k",
		"--iodepth=64", "--size=24M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--randseed=1")
	if n := f.disk.Submitted.Load(); n < 100 {
		t.Errorf("%d requests", n)
	}
}

// TestClientAgainstNbdkit puts our client in front of a server of others.
func TestClientAgainstNbdkit(t *testing.T) {
	path, err := exec.LookPath("nbdkit")
	if err != nil {
		t.Fatalf("nbdkit is missing: install the package %s, or run `make deps`", packages["nbdkit"])
	}
	dir, err := os.MkdirTemp("/tmp", "interop")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := exec.CommandContext(ctx, path, "--foreground", "--unix", socket, "memory", "32M")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	for _, structured := range []bool{false, true} {
		config := nbd.ClientConfig{Structured: structured}
		if structured {
			config.Contexts = []string{nbd.ContextAllocation}
		}
		client, err := nbd.Connect(ctx, dialWhenUp(t, ctx, socket), config)
		if err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("holdfast"), 4096)
		if _, err := client.WriteAt(data, 1<<20); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := client.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Fatal("read back:", err)
		}
		if err := client.Flush(); err != nil {
			t.Fatal(err)
		}
		if structured {
			status, err := client.BlockStatus(block.Span{Length: 2 << 20})
			if err != nil || len(status[nbd.ContextAllocation]) == 0 || status[nbd.ContextAllocation][0].Flags&nbd.StateHole == 0 {
				t.Fatal(status, err)
			}
		}
		if err := client.Trim(block.Span{Offset: 1 << 20, Length: 64 << 10}); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// dialWhenUp dials until the server listens.
func dialWhenUp(t *testing.T, ctx context.Context, socket string) net.Conn {
	t.Helper()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nbdkit did not come up:", err)
		}
	}
}
