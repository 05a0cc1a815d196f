package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/test/harness"
)

// images is a cluster that shows volumes as sockets, and a folder of image files.
type images struct {
	*harness.Cluster
	dir string
}

func newImages(t *testing.T) *images {
	t.Helper()
	c := harness.New(t, harness.Options{Binaries: binaries, DaemonArgs: []string{"--frontend", "socket"}})
	if err := c.AddDisks(t.Context(), "nvme"); err != nil {
		t.Fatal(err)
	}
	return &images{Cluster: c, dir: t.TempDir()}
}

func (c *images) file(name string) string { return filepath.Join(c.dir, name) }

// holdfast runs the command line and returns both its streams.
func (c *images) holdfast(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, binaries.CommandLine, append([]string{"--server", "unix://" + c.Nodes[0].Socket}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *images) must(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
	defer cancel()
	out, err := c.holdfast(ctx, args...)
	if err != nil {
		t.Fatalf("holdfast %v: %v: %s", args, err, out)
	}
	return out
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// disk makes a raw image of a size whose beginning and end are random, and the same as
// qcow2; it returns the bytes.
func (c *images) disk(t *testing.T, name string, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	for _, part := range [][]byte{content[:3*mib+5], content[size-mib:]} {
		if _, err := rand.Read(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(c.file(name+".raw"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", c.file(name+".raw"), c.file(name+".qcow2"))
	return content
}

// TestImportAndExport: what goes into a volume comes out of it, in both formats, and
// the volume is free afterwards.
func TestImportAndExport(t *testing.T) {
	c := newImages(t)
	first, second := c.disk(t, "first", 64*mib), c.disk(t, "second", 32*mib)
	if said := c.must(t, "volume", "import", "db", c.file("first.qcow2")); !strings.Contains(said, "Volume db filled from") {
		t.Errorf("import says %s", said)
	}
	c.expectExport(t, first)
	// The larger volume keeps what lies behind the image.
	c.must(t, "volume", "import", "db", c.file("second.raw"))
	c.expectExport(t, append(bytes.Clone(second), first[len(second):]...))
	if list := c.must(t, "volume", "list", "-o", "json"); !strings.Contains(list, `"publishedTo": ""`) || strings.Contains(list, `"epoch": 0,`) {
		t.Errorf("afterwards the volumes are %s", list)
	}
}

// expectExport exports volume db in both formats and wants these bytes.
func (c *images) expectExport(t *testing.T, want []byte) {
	t.Helper()
	for _, name := range []string{"out.raw", "out.qcow2"} {
		c.must(t, "volume", "export", "db", c.file(name))
		qemuImg(t, "convert", "-f", strings.TrimPrefix(filepath.Ext(name), "."), "-O", "raw", c.file(name), c.file("flat"))
		got, err := os.ReadFile(c.file("flat"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("exported as %s, the volume has %d bytes, of %d, or others (%v)", name, len(got), len(want), err)
		}
		if err := os.Remove(c.file(name)); err != nil {
			t.Error(err)
		}
	}
}

// damage makes a qcow2 file one that can be opened and not be read: the first entry of
// its first table points to where no second table can be.
func damage(t *testing.T, file string) {
	t.Helper()
	const tableOffset = 40 // in the header, 8 bytes, big-endian
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	table := binary.BigEndian.Uint64(image[tableOffset:])
	binary.BigEndian.PutUint64(image[table:], 1<<63|0x200)
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestImagesThatFail leave nothing behind: no volume that was made for them, no
// attachment, no file.
func TestImagesThatFail(t *testing.T) {
	c := newImages(t)
	c.disk(t, "disk", 64*mib)
	damage(t, c.file("disk.qcow2"))
	if out, err := c.holdfast(t.Context(), "volume", "import", "db", c.file("disk.qcow2")); err == nil {
		t.Errorf("a damaged image is imported: %s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
	defer cancel()
	waitNoVolumes(ctx, t, func() string { return c.must(t, "volume", "list", "-o", "json") })
	c.must(t, "volume", "create", "db", "--size", "64MiB")
	if out, err := c.holdfast(t.Context(), "volume", "export", "db", c.file("missing/db.raw")); err == nil {
		t.Errorf("exported into no folder: %s", out)
	}
	if out, err := c.holdfast(t.Context(), "--timeout", "1ms", "volume", "export", "db", c.file("db.raw")); err == nil {
		t.Errorf("exported in no time: %s", out)
	}
	for _, name := range []string{"db.raw", "db.raw.partial"} {
		if _, err := os.Stat(c.file(name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	c.must(t, "volume", "delete", "db")
}
