package robustness

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// TestSnapshotThatRots: bytes flip in a snapshot of a volume that nobody has attached. A
// client of the snapshot reads what was there, and the disk has it back; a scrub of the
// detached volume finds what nobody has read, on another disk.
func TestSnapshotThatRots(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := newScrubbed(ctx, t)
	snapshot, err := s.Nodes[1].Snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{
		Name: "before", VolumeId: s.volume.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	const read, unread = 3 * mebibyte, 5 * mebibyte
	s.flip(0, read)
	s.flip(1, unread)

	client, err := s.Nodes[0].Export(ctx, "snapshot/"+snapshot.GetId())
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(s.data))
	_, err = client.ReadAt(got, 0)
	if err := errors.Join(err, client.Close()); err != nil || !bytes.Equal(got, s.data) {
		t.Fatalf("the snapshot on the disk that has lost a part of it: %v", err)
	}
	s.wantMetric(ctx, repairedBlocks(s.disks[0].GetId()), 1)

	out, err := s.run(ctx, "volume", "scrub", "quiet", "--wait")
	if err != nil || !strings.Contains(out, "4KiB repaired") {
		t.Errorf("%v: %s", err, out)
	}
	volume, err := s.Nodes[0].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: s.volume.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	found := volume.GetScrub().GetFindings()
	if len(found) != 1 || found[0].GetDiskId() != s.disks[1].GetId() || found[0].GetSnapshotId() != snapshot.GetId() ||
		found[0].GetOffsetBytes() != unread || found[0].GetLengthBytes() != block.BlockSize {
		t.Errorf("found %v", found)
	}
	if volume.GetScrub().GetVerifiedAt() == nil || volume.GetAttachmentId() != "" {
		t.Errorf("after the scrub of a detached volume: %v", volume)
	}
}
