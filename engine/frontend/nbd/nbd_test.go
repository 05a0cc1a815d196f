package nbd

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd/kernel"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// What needs a kernel with NBD is proven in a guest (device_e2e_test.go). Here
// stands what the driver makes of the files by which the kernel shows devices.

// sysfs is a directory that looks like the kernel's, with these identifiers.
func sysfs(t *testing.T, identifiers ...string) kernel.Sysfs {
	t.Helper()
	root := t.TempDir()
	for i, identifier := range identifiers {
		dir := filepath.Join(root, "block", "nbd"+strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if identifier == "" {
			continue // not in use: the kernel shows no such file
		}
		if err := os.WriteFile(filepath.Join(dir, "backend"), []byte(identifier+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return kernel.Sysfs(root)
}

func drawID(t *testing.T) block.ID {
	t.Helper()
	id, err := block.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func drawIdentity(t *testing.T) frontend.Identity {
	t.Helper()
	return frontend.Identity{Volume: block.VolumeID{ID: drawID(t)}, Attachment: block.AttachmentID{ID: drawID(t)}}
}

// TestOwnDevices: a driver sees its own devices among those of other nodes and of
// other programs, and touches no others.
func TestOwnDevices(t *testing.T) {
	own, other := &Driver{Node: block.NodeID{ID: drawID(t)}}, &Driver{Node: block.NodeID{ID: drawID(t)}}
	first, second, theirs := drawIdentity(t), drawIdentity(t), drawIdentity(t)
	own.Sysfs = sysfs(t,
		own.identifier(first), "", "qemu", other.identifier(theirs), own.identifier(second),
		own.Node.String()+"/nonsense", own.Node.String(), "/", first.String())
	list, err := own.List(t.Context())
	if err != nil || len(list) != 2 || !slices.Contains(list, first) || !slices.Contains(list, second) {
		t.Errorf("list: %v %v", list, err)
	}
	for id, want := range map[frontend.Identity]int{first: 0, second: 4, theirs: kernel.AnyIndex} {
		if index, err := own.find(id); err != nil || index != want {
			t.Errorf("device %s has index %d (%v), want %d", id, index, err, want)
		}
	}
	// It is not this node's, so there is nothing to remove.
	if err := own.Remove(t.Context(), theirs); err != nil {
		t.Error(err)
	}
	empty := &Driver{Node: own.Node, Sysfs: sysfs(t)}
	if list, err := empty.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a kernel without devices: %v %v", list, err)
	}
}

// TestRefusals: what cannot be a device is refused before the kernel is asked; a
// kernel that is asked in vain is said to be without NBD, and nothing is left open.
func TestRefusals(t *testing.T) {
	d := &Driver{Node: block.NodeID{ID: drawID(t)}, Sysfs: sysfs(t), NetNS: filepath.Join(t.TempDir(), "no-such-namespace")}
	id := drawIdentity(t)
	spec := frontend.Spec{Volume: id.Volume, Attachment: id.Attachment, Size: 1 << 20, Backend: nbdtest.NewMemory(nbdtest.Info("", 1<<20, 4096))}
	if d.Name() != "nbd" {
		t.Error(d.Name())
	}
	if err := d.Available(t.Context()); err == nil {
		t.Error("available through a namespace that does not exist")
	}
	for name, open := range map[string]func(context.Context, frontend.Spec) (frontend.Device, error){"attach": d.Attach, "adopt": d.Adopt} {
		if device, err := open(t.Context(), frontend.Spec{}); device != nil || !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%s of nothing: %v %v", name, device, err)
		}
		if device, err := open(t.Context(), spec); device != nil || err == nil {
			t.Errorf("%s without a kernel: %v %v", name, device, err)
		}
	}
}
