package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// revertWork does what an engine does of a revert.
func (n *node) revertWork(ctx context.Context, volume, snapshot string) error {
	id, err := parseVolumeID(volume)
	if err != nil {
		return err
	}
	to, err := parseSnapshotID(snapshot)
	if err != nil {
		return err
	}
	v, err := n.BorrowVolume(ctx, id, block.StartID{ID: newTestID(n.t)}, false)
	if err != nil {
		return fmt.Errorf("%w: %s", block.ErrUnavailable, err.Error())
	}
	defer func() { _ = n.EndAttachment(ctx, id, v.View.Attachment) }()
	if !v.RevertBegun() || v.Revert.To != to {
		n.t.Errorf("asked to revert %+v to %s", v.Revert, snapshot)
	}
	return n.EndRevert(ctx, id, to, v.View.Epoch)
}

func (g group) setRevert(f func(n *node) func(ctx context.Context, volume, snapshot string) error) {
	for _, n := range g {
		n.host.setRevert(f(n))
	}
}

func (n *node) revert(ctx context.Context, volume, snapshot string) (*holdfastv1.Volume, error) {
	return n.volumes().RevertVolume(ctx, &holdfastv1.RevertVolumeRequest{Id: volume, SnapshotId: snapshot})
}

func (n *node) waitReverted(ctx context.Context, volume string) {
	n.t.Helper()
	waitFor(ctx, n.t, "the end of the revert", func() bool { v := n.volume(volume); return !v.Reverting() && v.View.Owner.IsZero() })
}

// TestRevert: what the volume was is kept first, its node does the rest, and all the while
// nobody can publish it. Asked again it is the same.
func TestRevert(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	volume := g[1].create(ctx, createRequest("data", 2))
	snapshot := g[1].snapshot(ctx, "monday", volume)
	release := make(chan struct{})
	g.setRevert(func(n *node) func(context.Context, string, string) error {
		return func(ctx context.Context, volume, snapshot string) error {
			select {
			case <-release:
				return n.revertWork(ctx, volume, snapshot)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	var kept string
	for range 2 {
		v, err := g[2].revert(ctx, volume, snapshot.GetId())
		if err != nil {
			t.Fatal(err)
		}
		r := v.GetRevert()
		if r.GetDone() || r.GetSnapshotId() != snapshot.GetId() || !strings.HasPrefix(r.GetKeptAs(), keptPrefix) || kept != "" && r.GetKeptAs() != kept {
			t.Fatalf("under way: %v", r)
		}
		kept = r.GetKeptAs()
	}
	if r, ok := g[0].State().SnapshotByName(kept); !ok || !r.Ready() {
		t.Fatalf("kept is %+v", r)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := g[1].volumes().PublishVolume(short, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: g[1].NodeID().String()})
	if !errors.Is(err, block.ErrUnavailable) || !strings.Contains(err.Error(), "being reverted") || !strings.Contains(err.Error(), "% is done") {
		t.Errorf("published: %v", err)
	}
	published := make(chan error, 1)
	go func() {
		_, err := g[1].volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: g[1].NodeID().String()})
		published <- err
	}()
	close(release)
	g[0].waitReverted(ctx, volume)
	if err := <-published; err != nil {
		t.Errorf("publish, with time to wait: %v", err)
	}
	if v, err := g[0].revert(ctx, volume, snapshot.GetId()); err != nil || !v.GetRevert().GetDone() {
		t.Errorf("asked again: %v, %v", v.GetRevert(), err)
	}
}

// TestRevertOutlivesItsLeader, and nodes that fail.
func TestRevertOutlivesItsLeader(t *testing.T) {
	g := newGroup(t, 3)
	ctx := testContext(t)
	volume := g[1].create(ctx, createRequest("data", 3))
	snapshot := g[1].snapshot(ctx, "monday", volume)
	asked := make(chan struct{}, 64)
	g.setRevert(func(n *node) func(context.Context, string, string) error {
		return func(context.Context, string, string) error {
			asked <- struct{}{}
			return fmt.Errorf("a replica: %w", block.ErrUnavailable)
		}
	})
	if _, err := g[1].revert(ctx, volume, snapshot.GetId()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		<-asked
	}
	leader := 0
	waitFor(ctx, t, "a leader", func() bool {
		for i, n := range g {
			if n.leading.Load() {
				leader = i
				return true
			}
		}
		return false
	})
	g[leader].halt()
	g.setRevert(func(n *node) func(context.Context, string, string) error { return n.revertWork })
	other := g[(leader+1)%3]
	other.waitReverted(ctx, volume)
}

// TestRevertsThatCannotBe: the answers say why, and leave the volume as it is.
func TestRevertsThatCannotBe(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	req := createRequest("data", 1)
	req.Parameters.MaxSnapshots = 2
	volume, other := n.create(ctx, req), n.create(ctx, createRequest("other", 1))
	mine, its := n.snapshot(ctx, "mine", volume), n.snapshot(ctx, "its", other)
	refused := func(what, volume, snapshot string, want error, text string) {
		t.Helper()
		if _, err := n.revert(ctx, volume, snapshot); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("no volume", "", mine.GetId(), block.ErrInvalid, "volume")
	refused("no snapshot", volume, "", block.ErrInvalid, "snapshot")
	refused("an unknown snapshot", volume, newTestID(t).String(), block.ErrNotFound, "snapshot")
	refused("another's snapshot", volume, its.GetId(), block.ErrInvalid, "one of volume")
	// Nobody takes the snapshot that is to keep what the volume is.
	n.host.setWork(func(context.Context, string, block.Proposal) error { return fmt.Errorf("frozen: %w", block.ErrInvalid) })
	refused("the head cannot be kept", volume, mine.GetId(), block.ErrInvalid, "nothing was changed")
	if v := n.volume(volume); v.Revert != nil {
		t.Errorf("left behind: %+v", v.Revert)
	}
	n.host.setWork(func(context.Context, string, block.Proposal) error {
		return fmt.Errorf("frozen: %w", block.ErrUnavailable)
	})
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := n.revert(short, volume, mine.GetId()); !errors.Is(err, block.ErrUnavailable) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("the head cannot be kept in time: %v", err)
	}
	if v := n.volume(volume); v.Revert != nil {
		t.Errorf("left behind: %+v", v.Revert)
	}
	n.host.setWork(n.engineWork)
	n.snapshot(ctx, "second", volume)
	refused("no room", volume, mine.GetId(), block.ErrNoCapacity, "2 snapshots of 2")
	n.host.setRevert(n.revertWork)
	if _, err := n.volumes().RevertVolume(ctx, &holdfastv1.RevertVolumeRequest{Id: volume, SnapshotId: mine.GetId(), DiscardHead: true}); err != nil {
		t.Errorf("without keeping it: %v", err)
	}
	n.waitReverted(ctx, volume)
	n.attach(ctx, volume)
	refused("attached", volume, mine.GetId(), block.ErrInUse, "unpublish it first")
}

// TestDeletedWhileReverted: nobody has to wait for the end.
func TestDeletedWhileReverted(t *testing.T) {
	g := newGroup(t, 1)
	ctx := testContext(t)
	n := g[0]
	volume := n.create(ctx, createRequest("data", 1))
	snapshot := n.snapshot(ctx, "monday", volume)
	began, ended := make(chan struct{}, 8), make(chan struct{}, 8)
	n.host.setRevert(func(ctx context.Context, _, _ string) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return ctx.Err()
	})
	if _, err := n.revert(ctx, volume, snapshot.GetId()); err != nil {
		t.Fatal(err)
	}
	<-began
	if _, err := n.volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume}); err != nil {
		t.Fatal(err)
	}
	<-ended
}
