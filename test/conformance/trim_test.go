package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// TestTrimBySchedule: what a pod has deleted comes back to the disks, without anybody
// asking for it.
func TestTrimBySchedule(t *testing.T) {
	l := newLand(t, "--trim-interval", "1s")
	p := l.volume(l.Nodes[0], "trimmed", 64*mib, fileSystem(), nil)
	l.write(p, "kept")
	before := l.usedBytes(p)
	large := filepath.Join(p.target, "large")
	l.check(os.WriteFile(large, bytes.Repeat([]byte("gone"), 6*mib), 0o600))
	l.syncFileSystem(p)
	if grown := l.usedBytes(p) - before; grown < 20*mib {
		t.Fatalf("24 MiB took %d MiB on a disk", grown/mib)
	}
	l.check(os.Remove(large))
	l.syncFileSystem(p)
	l.within(func(ctx context.Context) error {
		return harness.Wait(ctx, "the space to come back", func(context.Context) error {
			if left := l.usedBytes(p) - before; left > 4*mib {
				return fmt.Errorf("%d MiB are still there", left/mib)
			}
			return nil
		})
	})
	l.expect(p, "kept")
	l.within(p.down)
}

// usedBytes is what the replica of a volume takes on the disk of the pod's node.
func (l *land) usedBytes(p *pod) (used int64) {
	l.t.Helper()
	l.within(func(ctx context.Context) error {
		list, err := p.node.Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{VolumeId: p.volume})
		for _, replica := range list.GetReplicas() {
			used += replica.GetUsedBytes()
		}
		return err
	})
	return used
}
