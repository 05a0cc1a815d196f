package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// TestLargestVolume creates a volume of 64 TiB through the API, on disks that are
// large enough, and shows how long it takes; a disk that is not has no room for it.
func TestLargestVolume(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	request := createRequest("large", 3)
	request.SizeBytes = block.MaxVolumeSize
	if _, err := g[0].volumes().CreateVolume(ctx, request); err == nil || !strings.Contains(err.Error(), "64.0 TiB free on different nodes are needed") {
		t.Fatalf("created on disks of 64 GiB: %v", err)
	}
	for _, member := range g {
		id := member.host.Disks()[0].ID.String()
		member.host.report("/disk", func(d *DiskReport) { d.Capacity, d.Free = 2*block.MaxVolumeSize, 2*block.MaxVolumeSize })
		for _, other := range g {
			waitFor(ctx, t, "the space to be known", func() bool { return other.diskOf(t, id).GetFreeBytes() > block.MaxVolumeSize })
		}
	}
	began := time.Now()
	created, err := g[1].volumes().CreateVolume(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("created in %s", time.Since(began))
	if created.GetState() != holdfastv1.Volume_READY || created.GetSizeBytes() != block.MaxVolumeSize || len(created.GetReplicas()) != 3 {
		t.Errorf("created %v", created)
	}
	v := g[2].attach(ctx, created.GetId())
	if v.View.Size != block.MaxVolumeSize || v.View.InSync() != 3 {
		t.Errorf("view %+v", v.View)
	}
}
