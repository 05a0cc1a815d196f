package interop

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// mapped is an entry of a map of nbdinfo.
type mapped struct{ Offset, Length, Type int64 }

// spansOf are the parts of an export for which a context has one of these types.
func spansOf(t *testing.T, uri, context string, types ...int64) []block.Span {
	t.Helper()
	var entries []mapped
	out := tool(t, "nbdinfo", "--map="+context, "--json", uri)
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var spans []block.Span
	for _, e := range entries {
		if !slices.Contains(types, e.Type) {
			continue
		}
		if n := len(spans); n > 0 && spans[n-1].End() == e.Offset {
			spans[n-1].Length += e.Length
		} else {
			spans = append(spans, block.Span{Offset: e.Offset, Length: e.Length})
		}
	}
	return spans
}

// TestSnapshotExportsWithTools reads snapshots of a volume that is in use from the
// nodes' data addresses, with tools of others.
func TestSnapshotExportsWithTools(t *testing.T) {
	const (
		size   = 64 << 20
		mib    = 1 << 20
		extent = block.ExtentSize
	)
	b := newBed(t, 3)
	volume := must(b.Nodes[0].Volumes().CreateVolume(b.ctx, &holdfastv1.CreateVolumeRequest{
		Name: "v", SizeBytes: size, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	}))(t).GetId()
	client, detach := b.attach(b.Nodes[0], volume)
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{2})
	write := func(offset, length int64) {
		t.Helper()
		_, _ = random.Read(content[offset : offset+length])
		if _, err := client.WriteAt(content[offset:offset+length], offset); err != nil {
			t.Fatal(err)
		}
	}
	// What each snapshot must hold is what was written by then.
	held := map[string][]byte{}
	snapshot := func(node *harness.Node, name string) string {
		t.Helper()
		id := must(node.Snapshots().CreateSnapshot(b.ctx, &holdfastv1.CreateSnapshotRequest{Name: name, VolumeId: volume}))(t).GetId()
		held[id] = slices.Clone(content)
		return id
	}
	uri := func(n *harness.Node, id string) string { return "nbd://" + n.DataAddress + "/snapshot/" + id }

	write(4*mib, 8*mib)
	first := snapshot(b.Nodes[1], "first")
	write(5*mib, mib)          // over what the first holds
	write(32*mib, extent)      // where nothing was
	write(size-extent, extent) // to the last byte
	second := snapshot(b.Nodes[2], "second")
	write(4*mib, 16*mib)

	for _, n := range b.Nodes {
		t.Run(n.Name, func(t *testing.T) {
			var list struct {
				Exports []struct {
					Name     string `json:"export-name"`
					Size     int64  `json:"export-size"`
					ReadOnly bool   `json:"is_read_only"`
					Contexts []string
				} `json:"exports"`
			}
			out := tool(t, "nbdinfo", "--list", "--json", "nbd://"+n.DataAddress)
			if err := json.Unmarshal([]byte(out), &list); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			contexts := map[string][]string{}
			for _, e := range list.Exports {
				contexts[e.Name] = e.Contexts
				if e.Size != size || !e.ReadOnly {
					t.Errorf("%+v", e)
				}
			}
			if len(list.Exports) != 3 || !slices.Equal(contexts["snapshot/"+first], []string{nbd.ContextAllocation}) ||
				!slices.Equal(contexts["snapshot/"+second], []string{nbd.ContextAllocation, "holdfast:changed/" + first}) {
				t.Errorf("the exports are %s", out)
			}
			want := []block.Span{{Offset: 4 * mib, Length: 8 * mib}}
			if got := spansOf(t, uri(n, first), nbd.ContextAllocation, 0); !slices.Equal(got, want) {
				t.Errorf("the first has data at %v, want %v", got, want)
			}
			want = append(want, block.Span{Offset: 32 * mib, Length: extent}, block.Span{Offset: size - extent, Length: extent})
			if got := spansOf(t, uri(n, second), nbd.ContextAllocation, 0); !slices.Equal(got, want) {
				t.Errorf("the second has data at %v, want %v", got, want)
			}
			want[0] = block.Span{Offset: 5 * mib, Length: mib}
			if got := spansOf(t, uri(n, second), "holdfast:changed/"+first, 1); !slices.Equal(got, want) {
				t.Errorf("changed is %v, want %v", got, want)
			}
			for id, want := range held {
				file := filepath.Join(t.TempDir(), "copy")
				tool(t, "nbdcopy", uri(n, id), file)
				if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
					t.Errorf("the copy of %s differs from what was written by then (%v)", id, err)
				}
			}
		})
	}
	compare := func(one, other string) []string {
		return []string{"compare", "-f", "raw", "-F", "raw", one, other}
	}
	for _, id := range []string{first, second} {
		tool(t, "qemu-img", compare(uri(b.Nodes[0], id), uri(b.Nodes[1], id))...)
		tool(t, "qemu-img", compare(uri(b.Nodes[1], id), uri(b.Nodes[2], id))...)
	}
	// The comparison is worth something only if it can fail.
	if exec.CommandContext(b.ctx, "qemu-img", compare(uri(b.Nodes[0], first), uri(b.Nodes[1], second))...).Run() == nil {
		t.Error("qemu-img calls two snapshots equal that differ")
	}
	detach()
}
