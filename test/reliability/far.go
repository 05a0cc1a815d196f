package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// farBytes is how much is written at either end of a large volume.
const farBytes = 16 * mebibyte

// createLarge measures how long it takes to make a volume of the largest size, and uses
// it at its far end.
func createLarge(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newBedWith(ctx, room{used: farBytes, size: block.MaxVolumeSize, sparse: true})
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	result := row{Name: "create", What: "a volume of 64 TiB is made", Limit: 1, Unit: "s"}
	for i := range r.samples() {
		began := time.Now()
		id, err := b.create(ctx, fmt.Sprintf("large-%d", i), block.MaxVolumeSize)
		if err != nil {
			return nil, fmt.Errorf("make volume: %w", err)
		}
		result.Samples = append(result.Samples, time.Since(began).Seconds())
		if _, err := b.node(0).Volumes().DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: id}); err != nil {
			return nil, fmt.Errorf("delete volume: %w", err)
		}
		if err := b.promised(ctx, block.MaxVolumeSize); err != nil {
			return nil, err
		}
	}
	took, err := b.useFarEnd(ctx)
	if err != nil {
		return nil, err
	}
	result.Notes = append(result.Notes, fmt.Sprintf("%d MiB were written in its last bytes, flushed and read back in %d ms", farBytes/mebibyte, took.Milliseconds()))
	if err := fill(ctx, b.device, b.ledger, pieces(b.whole(), mebibyte)); err != nil {
		return nil, err
	}
	return []row{result}, r.verify(ctx, b)
}

// promised waits until each disk is promised to volumes of so many bytes, and no more:
// deleted ones go in the background.
func (b *bed) promised(ctx context.Context, bytes int64) error {
	return b.until(ctx, "deleted volumes to go", func(ctx context.Context) error {
		list, err := b.node(0).Cluster().ListDisks(ctx, &holdfastv1.ListDisksRequest{})
		if err != nil {
			return err
		}
		for _, d := range list.GetDisks() {
			if d.GetProvisionedBytes() > bytes {
				return fmt.Errorf("%d bytes are promised on %s", d.GetProvisionedBytes(), d.GetPath())
			}
		}
		return nil
	})
}

// useFarEnd writes the last bytes of the volume, which the ledger does not reach, and
// finds them in the volume and in each replica.
func (b *bed) useFarEnd(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	client, err := b.device.get(ctx)
	if err != nil {
		return 0, err
	}
	offset := int64(block.MaxVolumeSize - farBytes)
	want := make([]byte, farBytes)
	_, _ = rand.NewChaCha8([32]byte{64}).Read(want) // it never fails
	if _, err := client.WriteAt(want, offset); err != nil {
		return 0, fmt.Errorf("write the far end: %w", err)
	}
	if err := errors.Join(client.Flush(), holds(client, offset, want)); err != nil {
		return 0, fmt.Errorf("read the far end: %w", err)
	}
	took := time.Since(began)
	copies, err := b.cluster.Copies(ctx, b.volume)
	if err != nil {
		return 0, err
	}
	if len(copies) != replicas {
		return 0, fmt.Errorf("read the far end: %d replicas are served", len(copies))
	}
	for _, c := range copies {
		export, err := c.Node.Export(ctx, c.Export)
		if err != nil {
			return 0, err
		}
		if err := errors.Join(holds(export, offset, want), export.Close()); err != nil {
			return 0, fmt.Errorf("read the far end on %s: %w", c.Node.Name, err)
		}
	}
	return took, nil
}

// holds reports as lost what does not read as it was written.
func holds(from io.ReaderAt, offset int64, want []byte) error {
	got := make([]byte, len(want))
	if _, err := from.ReadAt(got, offset); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: %d bytes at %d read as something else", errLost, len(want), offset)
	}
	return nil
}
