package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// idlePause and loadedPause are the longest that a snapshot may stop writes for, in
	// milliseconds.
	idlePause, loadedPause = 20, 100
	// usedBytes are written before snapshots are taken, whatever the size of the volume.
	usedBytes = 1024 * mebibyte
	// shotsEach is how many snapshots are taken in one resync, behindShots what a replica
	// lacks then.
	shotsEach   = 5
	behindShots = 256 * mebibyte
)

// sizes are those of the volumes of which snapshots are taken. The large one needs sparse
// disks, whose syncs are slow: the small one on such disks says what of its pause is
// theirs.
func sizes() []struct {
	name, short string
	want        room
} {
	return []struct {
		name, short string
		want        room
	}{
		{"2 GiB", "2g", room{used: usedBytes, size: 2 << 30}},
		{"2 GiB on sparse disks", "2g-sparse", room{used: usedBytes, size: 2 << 30, sparse: true}},
		{"64 TiB on sparse disks", "64t-sparse", room{used: usedBytes, size: block.MaxVolumeSize, sparse: true}},
	}
}

// snapshots measures for how long the creation of a snapshot stops writes.
func snapshots(ctx context.Context, r *runner) ([]row, error) {
	var results []row
	for _, size := range sizes() {
		idle := row{Name: "snapshot-idle-" + size.short, What: "pause by a snapshot of " + size.name + ", one writer", Limit: idlePause, Unit: "ms"}
		loaded := row{Name: "snapshot-loaded-" + size.short, What: "pause by a snapshot of " + size.name + ", 16 writers and a resync", Limit: loadedPause, Unit: "ms"}
		if err := r.snapshotsOf(ctx, size.want, &idle, &loaded); err != nil {
			return nil, fmt.Errorf("%s: %w", size.name, err)
		}
		results = append(results, idle, loaded)
	}
	return results, nil
}

// snapshotsOf takes the samples of a volume of one size.
func (r *runner) snapshotsOf(ctx context.Context, want room, idle, loaded *row) error {
	b, err := r.newBedWith(ctx, want)
	if err != nil {
		return err
	}
	defer r.clean(ctx, b)
	if err := fill(ctx, b.device, b.ledger, pieces(b.whole(), mebibyte)); err != nil {
		return err
	}
	one := startLoad(ctx, shape{area: block.Span{Length: hotBytes}, depth: 1}, b.device, b.ledger, b.meter)
	for range r.samples() {
		if err := b.sampleSnapshot(ctx, one, idle); err != nil {
			return errors.Join(err, one.stop())
		}
		r.saySamples(*idle)
	}
	if err := one.stop(); err != nil {
		return err
	}
	for len(loaded.Samples) < r.samples() {
		if err := b.snapshotsInResync(ctx, min(shotsEach, r.samples()-len(loaded.Samples)), loaded); err != nil {
			return err
		}
		r.saySamples(*loaded)
	}
	return r.verify(ctx, b)
}

// snapshotsInResync takes samples under full load while a replica comes back. The load
// ends first: the resync would yield to it for a minute.
func (b *bed) snapshotsInResync(ctx context.Context, samples int, result *row) (err error) {
	if err := b.inSync(ctx); err != nil {
		return err
	}
	victim, err := b.victim(ctx, false)
	if err != nil {
		return err
	}
	if err := b.node(victim).Kill(); err != nil {
		return err
	}
	if err := fill(ctx, b.device, b.ledger, pieces(block.Span{Offset: b.size - behindShots, Length: behindShots}, mebibyte)); err != nil {
		return err
	}
	load := startLoad(ctx, shape{area: block.Span{Length: hotBytes}, depth: 16}, b.device, b.ledger, b.meter)
	defer func() { err = errors.Join(err, load.stop()) }()
	if err := b.node(victim).Start(ctx); err != nil {
		return err
	}
	for range samples {
		if err := b.sampleSnapshot(ctx, load, result); err != nil {
			return err
		}
	}
	return nil
}

// sampleSnapshot takes one sample: the longest time without an acknowledged write from
// the call for a snapshot until writes flow after it. Then the snapshot is deleted.
func (b *bed) sampleSnapshot(ctx context.Context, load *load, result *row) error {
	if err := b.flows(ctx, load); err != nil {
		return err
	}
	b.meter.mark()
	id, err := b.snapshot(ctx)
	if err != nil {
		return err
	}
	if err := b.flows(ctx, load); err != nil {
		return err
	}
	result.Samples = append(result.Samples, float64(b.meter.pause().Microseconds())/1000)
	return b.deleteSnapshot(ctx, id)
}

// snapshot takes one and returns its ID.
func (b *bed) snapshot(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	s, err := b.node(b.home).Snapshots().CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: "sample", VolumeId: b.volume})
	if err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return s.GetId(), nil
}

func (b *bed) deleteSnapshot(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if _, err := b.node(b.home).Snapshots().DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: id}); err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	return nil
}

// snapshotDelete measures how soon the space of a snapshot is back on every disk.
func snapshotDelete(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newFilledBed(ctx, usedBytes)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	result := row{Name: "snapshot-delete", What: "space back after a snapshot is deleted, 100 MiB", Limit: 2, Unit: "s"}
	for range r.samples() {
		took, err := b.spaceAfterDelete(ctx)
		if err != nil {
			return nil, err
		}
		result.Samples = append(result.Samples, took.Seconds())
	}
	return []row{result}, r.verify(ctx, b)
}

// errSpace: a snapshot takes no space, or does not give it back.
var errSpace = errors.New("space does not add up")

// spaceAfterDelete takes one sample: from the call that deletes a snapshot until each
// disk has given back what that was said to free.
func (b *bed) spaceAfterDelete(ctx context.Context) (time.Duration, error) {
	id, err := b.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	if err := fill(ctx, b.device, b.ledger, b.contiguous()); err != nil {
		return 0, err
	}
	s, err := b.node(b.home).Snapshots().GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Id: id, WithUsage: true})
	if err != nil {
		return 0, fmt.Errorf("look at snapshot: %w", err)
	}
	frees := s.GetUsage().GetFreedIfDeletedBytes()
	if frees < rewritten/2 {
		return 0, fmt.Errorf("%w: %d bytes were rewritten, and the snapshot frees %d", errSpace, rewritten, frees)
	}
	held, err := b.used(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.deleteSnapshot(ctx, id); err != nil {
		return 0, err
	}
	err = b.until(ctx, "space to come back", func(ctx context.Context) error {
		now, err := b.used(ctx)
		if err != nil {
			return err
		}
		for i := range now {
			if now[i] > held[i]-frees {
				return fmt.Errorf("%w: %d bytes on %s, %d with the snapshot, which frees %d", errSpace, now[i], b.node(i).Name, held[i], frees)
			}
		}
		return nil
	})
	return time.Since(began), err
}

// used is what the volume takes on each node.
func (b *bed) used(ctx context.Context) ([]int64, error) {
	var all []int64
	for _, n := range b.cluster.Nodes {
		list, err := n.Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{VolumeId: b.volume})
		if err != nil {
			return nil, fmt.Errorf("list replicas on %s: %w", n.Name, err)
		}
		sum := int64(0)
		for _, r := range list.GetReplicas() {
			sum += r.GetUsedBytes()
		}
		all = append(all, sum)
	}
	return all, nil
}
