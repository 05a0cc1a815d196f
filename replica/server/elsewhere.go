package server

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/replica/store"
)

// Elsewhere is where an export finds what its own disk has lost of a snapshot.
type Elsewhere interface {
	// ReadSnapshot reads a part of a snapshot of a volume from another in-sync replica
	// than the given one, verified there. It waits for the network, for a bounded time.
	ReadSnapshot(ctx context.Context, volume block.VolumeID, other block.ReplicaID, snapshot block.SnapshotID, span block.Span) ([]byte, error)
	// Repaired tells of bytes that a disk of this host has back.
	Repaired(r Repaired)
}

// Repaired are bytes of a snapshot that a disk had lost.
type Repaired struct {
	Disk     block.DiskID
	Volume   block.VolumeID
	Replica  block.ReplicaID
	Snapshot block.SnapshotID
	Span     block.Span
}

// SetElsewhere lets snapshots that are exported from now on be repaired when a read
// comes upon damage.
func (h *Host) SetElsewhere(e Elsewhere) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.elsewhere = e
}

// mending repairs for the reads of one export. Close ends it.
type mending struct {
	elsewhere Elsewhere
	ctx       context.Context //nolint:containedctx // It ends with the export: a read of a client brings none.
	cancel    context.CancelFunc

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

func newMending(e Elsewhere) *mending {
	if e == nil {
		return nil
	}
	m := &mending{elsewhere: e}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// begin does work, unless the export is closed.
func (m *mending) begin(work func()) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.work.Go(work)
	return true
}

func (m *mending) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
}

// mend repairs the damage in a read's range, and reads once more.
//
// For rule 30, nothing need be held: a valid cut never changes. And the store takes
// only the bytes that it has lost, whoever brings them, so that this needs no session.
func (e *export) mend(r *nbd.Request) {
	if err := e.mendSpan(e.mending.ctx, block.Span{Offset: r.Offset, Length: r.Length}); err != nil {
		r.Complete(fmt.Errorf("read export %s: %w: %w", e.name, block.ErrChecksum, err), nil)
		return
	}
	e.submitRead(r, func(error) bool { return false })
}

func (e *export) mendSpan(ctx context.Context, span block.Span) error {
	first := span.Offset / block.ExtentSize * block.ExtentSize
	for at := first; at < span.End(); at += block.ExtentSize {
		op := &store.Op{Kind: store.Hash, Offset: at, Length: min(block.ExtentSize, e.size-at), Snapshot: e.snapshot}
		if err := e.do(ctx, op); err != nil {
			return err
		}
		for bad := op.Hashes[0].Bad; bad != 0; {
			b := bits.TrailingZeros16(bad)
			n := bits.TrailingZeros16(^(bad >> b))
			bad &^= uint16(1<<n-1) << b
			from := at + int64(b)*block.BlockSize
			if err := e.mendRun(ctx, block.Span{Offset: from, Length: min(int64(n)*block.BlockSize, e.size-from)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *export) mendRun(ctx context.Context, span block.Span) error {
	replica := e.door.replica
	data, err := e.mending.elsewhere.ReadSnapshot(ctx, replica.Volume(), replica.ID(), e.snapshot, span)
	if err != nil {
		return fmt.Errorf("read elsewhere: %w", err)
	}
	if int64(len(data)) != span.Length {
		return fmt.Errorf("%d bytes from elsewhere for %d: %w", len(data), span.Length, block.ErrProtocol)
	}
	buf := block.NewBuffer(len(data))
	defer buf.Release()
	copy(buf.Data, data)
	op := &store.Op{Kind: store.Repair, Flags: block.FlagResync | block.FlagRepair, Offset: span.Offset, Length: span.Length,
		Snapshot: e.snapshot, Buf: buf.Retain()}
	if err := e.do(ctx, op); err != nil {
		return err
	}
	e.mending.elsewhere.Repaired(Repaired{
		Disk: e.door.disk.ID(), Volume: replica.Volume(), Replica: replica.ID(), Snapshot: e.snapshot, Span: span,
	})
	return nil
}

// do waits for an operation past the door. What it holds is given back when it has
// ended, which may be after ctx.
func (e *export) do(ctx context.Context, op *store.Op) error {
	done := make(chan error, 1)
	err := e.door.inspect(op, func(op *store.Op) {
		op.Buf.Release()
		done <- op.Err
	})
	if err != nil {
		op.Buf.Release()
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", block.ErrUnavailable, ctx.Err())
	}
}

// damaged reports whether a read has come upon damage that may be repaired.
func (e *export) damaged(err error) bool {
	return !e.snapshot.IsZero() && errors.Is(err, block.ErrChecksum)
}
