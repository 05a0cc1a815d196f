package robustness

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/vfs"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness"
)

// scrubbed is a volume in use on three daemons, of which nobody reads anything.
type scrubbed struct {
	*harness.Cluster
	t        *testing.T
	binaries harness.Binaries
	volume   *holdfastv1.Volume
	data     []byte
	disks    []*holdfastv1.Disk
}

func newScrubbed(ctx context.Context, t *testing.T) *scrubbed {
	t.Helper()
	binaries, err := harness.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &scrubbed{t: t, binaries: binaries, data: make([]byte, 8*mebibyte)}
	s.Cluster = harness.New(t, harness.Options{Binaries: binaries, Nodes: 3, DaemonArgs: []string{"--frontend", "socket"}})
	for _, n := range s.Nodes {
		disk, err := n.AddDisk(ctx, "ssd")
		if err != nil {
			t.Fatal(err)
		}
		s.disks = append(s.disks, disk)
	}
	s.volume, err = s.Nodes[0].Volumes().CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
		Name: "quiet", SizeBytes: 64 * mebibyte, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rand.Read(s.data); err != nil {
		t.Fatal(err)
	}
	s.write(ctx)
	return s
}

// write fills the front of the volume and takes it out of use, so that no intent log
// excuses what is found later.
func (s *scrubbed) write(ctx context.Context) {
	s.t.Helper()
	dial, err := s.Nodes[0].Attach(ctx, s.volume.GetId())
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := dial(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	client, err := nbd.Connect(ctx, conn, nbd.ClientConfig{})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = client.WriteAt(s.data, 0)
	if err = errors.Join(err, client.Flush(), client.Close()); err != nil {
		s.t.Fatal(err)
	}
	_, err = s.Nodes[1].Volumes().UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: s.volume.GetId()})
	if err != nil {
		s.t.Fatal(err)
	}
}

// store is where the disk of a node lies.
func (s *scrubbed) store(node int) string { return s.disks[node].GetPath() }

// overwrite writes other bytes into a replica of a stopped daemon, through the store, so
// that their checksums are good and no log names them.
func (s *scrubbed) overwrite(ctx context.Context, node int, span block.Span) {
	s.t.Helper()
	if err := s.Nodes[node].Stop(ctx); err != nil {
		s.t.Fatal(err)
	}
	info, err := s.Nodes[0].Cluster().GetCluster(ctx, &holdfastv1.GetClusterRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	id, err := block.ParseID(info.GetId())
	if err != nil {
		s.t.Fatal(err)
	}
	executor := vfs.NewGoExecutor(4)
	defer executor.Close()
	opened, err := store.OpenDisk(s.store(node), store.DiskOptions{Options: store.Options{
		Executor: executor, Cluster: block.ClusterID{ID: id}, Logger: slog.New(slog.DiscardHandler),
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	replica := opened.Replicas()[0]
	buf := block.NewBuffer(int(span.Length))
	for i := range buf.Data {
		buf.Data[i] = 0x5a
	}
	var errs []error
	for _, op := range []*store.Op{
		{Kind: store.Write, Offset: span.Offset, Length: span.Length, Buf: buf},
		{Kind: store.Update, Meta: &block.Update{ClearLog: block.AllRegions(replica.Size())}},
	} {
		done := make(chan error, 1)
		op.Done = func(op *store.Op) { done <- op.Err }
		replica.Submit(op)
		errs = append(errs, <-done)
	}
	if err := errors.Join(append(errs, opened.Close(), s.Nodes[node].Start(ctx))...); err != nil {
		s.t.Fatal(err)
	}
}

// flip turns over a byte of the block of a replica that holds what the volume has at an
// offset, while its daemon runs.
func (s *scrubbed) flip(node int, offset int64) {
	s.t.Helper()
	path := filepath.Join(s.store(node), "data")
	file, err := os.Open(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	want, got := s.data[offset:offset+block.BlockSize], make([]byte, block.BlockSize)
	for at := int64(0); ; at += block.BlockSize {
		if _, err := file.ReadAt(got, at); err != nil {
			s.t.Fatalf("the block at %d is not on the disk of node %d: %v", offset, node, err)
		}
		if bytes.Equal(got, want) {
			if err := harness.FlipByte(path, at+1000); err != nil {
				s.t.Fatal(err)
			}
			return
		}
	}
}

// run runs the command line against the first node.
func (s *scrubbed) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binaries.CommandLine, append([]string{"--server", s.Nodes[0].ControlAddress}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// wantMetric compares a metric of the first node.
func (s *scrubbed) wantMetric(ctx context.Context, name string, want float64) {
	s.t.Helper()
	if got, err := s.Nodes[0].Metric(ctx, http.DefaultClient, name); err != nil || got != want {
		s.t.Errorf("%s is %v (%v), want %v", name, got, err, want)
	}
}

// repairedBlocks is the metric of blocks of a disk that were repaired.
func repairedBlocks(disk string) string {
	return fmt.Sprintf("holdfast_disk_damaged_blocks_total{disk=%q,outcome=%q}", disk, "repaired")
}

// TestScrubOfAQuietVolume: bytes flip on all three disks under a volume that is in use
// and that nobody reads, and one replica holds other bytes whose checksums are good. A
// scrub finds all of it, repairs what is damaged, counts it, says on which disk and
// where it was, and leaves the difference to people.
func TestScrubOfAQuietVolume(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := newScrubbed(ctx, t)
	differing := block.Span{Offset: 3 * mebibyte, Length: block.ExtentSize}
	s.overwrite(ctx, 2, differing)
	if _, err := s.Nodes[0].Attach(ctx, s.volume.GetId()); err != nil {
		t.Fatal(err)
	}
	flipped := make([][]int64, len(s.Nodes))
	for node := range s.Nodes {
		for i := range int64(4) {
			offset := i*2*mebibyte + int64(node)*20*block.BlockSize
			s.flip(node, offset)
			flipped[node] = append(flipped[node], offset)
		}
	}

	out, err := s.run(ctx, "volume", "scrub", "quiet", "--wait")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "48KiB repaired, 64KiB differing") {
		t.Errorf("%v: %s", err, out)
	}
	s.checkFindings(ctx, flipped, differing)
	s.checkCopies(ctx, differing)
	if out, err := s.run(ctx, "volume", "show", "quiet"); err != nil || !strings.Contains(out, "replicas differ") || strings.Contains(out, "never") {
		t.Errorf("%v: %s", err, out)
	}
}

// checkFindings looks at the record, the metrics and the log of the engine's node.
func (s *scrubbed) checkFindings(ctx context.Context, flipped [][]int64, differing block.Span) {
	s.t.Helper()
	volume, err := s.Nodes[0].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: s.volume.GetId()})
	if err != nil {
		s.t.Fatal(err)
	}
	scrub := volume.GetScrub()
	if scrub.GetVerifiedAt() == nil || scrub.GetRepairedBytes() != 12*block.BlockSize || scrub.GetDifferingBytes() != differing.Length {
		s.t.Errorf("recorded is %v", scrub)
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, s.Nodes[0].Name+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	for node, offsets := range flipped {
		disk := s.disks[node].GetId()
		var found []int64
		for _, f := range scrub.GetFindings() {
			if f.GetDiskId() == disk && f.GetKind() == holdfastv1.ScrubFinding_DAMAGE_REPAIRED {
				found = append(found, f.GetOffsetBytes())
			}
		}
		if !slices.Equal(found, offsets) {
			s.t.Errorf("found at %v on disk %s, want %v", found, disk, offsets)
		}
		s.wantMetric(ctx, repairedBlocks(disk), float64(len(offsets)))
		for _, offset := range offsets {
			if !logged(string(log), "damage on a disk repaired from a peer", disk, offset) {
				s.t.Errorf("the log lacks the damage at %d on disk %s", offset, disk)
			}
		}
	}
	s.wantMetric(ctx, "holdfast_engine_scrubbed_bytes_total", float64(s.volume.GetSizeBytes()))
	if !logged(string(log), "replicas differ with good checksums", s.disks[2].GetId(), differing.Offset) {
		s.t.Error("the log lacks the difference")
	}
}

// logged reports whether a line of a log has a message, a disk and an offset.
func logged(log, message, disk string, offset int64) bool {
	for line := range strings.Lines(log) {
		if strings.Contains(line, message) && strings.Contains(line, disk) &&
			(strings.Contains(line, fmt.Sprintf("offset=%d ", offset)) || strings.Contains(line, fmt.Sprintf(`"offset":%d,`, offset))) {
			return true
		}
	}
	return false
}

// checkCopies reads every replica from its own disk.
func (s *scrubbed) checkCopies(ctx context.Context, differing block.Span) {
	s.t.Helper()
	whole := make([]byte, s.volume.GetSizeBytes())
	copy(whole, s.data)
	want, err := harness.SumsOf(ctx, bytes.NewReader(whole))
	if err != nil {
		s.t.Fatal(err)
	}
	copies, err := s.Copies(ctx, s.volume.GetId())
	if err != nil || len(copies) != len(s.Nodes) {
		s.t.Fatalf("%d copies: %v", len(copies), err)
	}
	for i, c := range copies {
		got, err := c.Sums(ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		differ := want.Differing(got)
		if i != 2 && len(differ) != 0 || i == 2 && !slices.Equal(differ, []int{int(differing.Offset / block.ExtentSize)}) {
			s.t.Errorf("the replica on %s differs in extents %v", c.Node.Name, differ)
		}
	}
}
