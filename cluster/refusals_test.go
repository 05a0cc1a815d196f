package cluster

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// TestRefusalsSayOnceWhatWasAsked: the service says it, and the state machine why not.
func TestRefusalsSayOnceWhatWasAsked(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	volume, other := n.create(ctx, createRequest("data", 1)), n.create(ctx, createRequest("other", 1))
	n.snapshot(ctx, "s", other)
	larger := createRequest("data", 1)
	larger.SizeBytes *= 2
	for want, err := range map[string]error{
		`create volume "data": the name is held by volume ` + volume: second(n.volumes().CreateVolume(ctx, larger)),
		`create snapshot "s": the name is held by`:                   second(n.snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: "s", VolumeId: volume})),
		`expand volume ` + volume + `: size 8388608.0 TiB`:           second(n.volumes().ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: volume, SizeBytes: math.MaxInt64})),
	} {
		if err == nil || !strings.HasPrefix(status.Convert(err).Message(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
