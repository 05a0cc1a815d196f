package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/engine/frontend/socket"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
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
