package engine

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// writeTo writes to a volume that is published to nobody.
func (w *world) writeTo(d *daemon, id block.VolumeID, offset int64, data []byte) {
	w.t.Helper()
	err := d.onEngine(w.t.Context(), id, func(_ context.Context, e *Engine, _ *keeper) error {
		for at := 0; at < len(data); at += block.MaxTransfer {
			write(w.t, e, offset+int64(at), data[at:min(at+block.MaxTransfer, len(data))])
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// wanted is a volume with a snapshot of some content, that has other content now and is to
// be reverted; and what it is to be.
func (w *world) wanted(d *daemon, nodes ...*node) (block.VolumeID, block.SnapshotID, []byte) {
	w.t.Helper()
	const size = 40 << 20
	id := w.detached(size, nodes...)
	want := make([]byte, size)
	copy(want[3<<20:], noise(w.t, 2<<20))
	copy(want[20<<20+4096:], noise(w.t, 300<<10))
	w.writeTo(d, id, 3<<20, want[3<<20:5<<20])
	w.writeTo(d, id, 20<<20, want[20<<20:21<<20])
	snapshot := w.reserve(id)
	if err := d.Cut(w.t.Context(), id, snapshot); err != nil {
		w.t.Fatal(err)
	}
	w.writeTo(d, id, 4<<20+512, noise(w.t, 3<<20))
	w.writeTo(d, id, 30<<20, noise(w.t, 5<<20))
	w.truth.must(state.RevertVolume{Volume: id, Snapshot: snapshot.ID})
	return id, snapshot.ID, want
}

func (w *world) isReverting(id block.VolumeID) bool {
	v, _ := w.truth.now().Volume(id)
	return v.Reverting()
}

// TestHostReverts, and only what Raft wants, once.
func TestHostReverts(t *testing.T) {
	w := newWorld(t, 3)
	d := w.startDaemon(newMachine(t))
	id, snapshot, want := w.wanted(d)
	if err := d.Revert(t.Context(), id, block.SnapshotID{ID: newID(t)}); !errors.Is(err, block.ErrConflict) {
		t.Errorf("to what nobody wants: %v", err)
	}
	if err := d.Revert(t.Context(), id, snapshot); err != nil {
		t.Fatal(err)
	}
	if w.isReverting(id) {
		t.Error("Raft was not told")
	}
	w.waitGivenBack(id)
	w.wantEqual(id, want)

	// A request that comes late finds other content, which stays.
	more := noise(t, 4096)
	w.writeTo(d, id, 0, more)
	copy(want, more)
	if err := d.Revert(t.Context(), id, snapshot); !errors.Is(err, block.ErrConflict) {
		t.Errorf("late: %v", err)
	}
	w.wantEqual(id, want)
	if err := d.Revert(t.Context(), w.detached(1<<20), snapshot); !errors.Is(err, block.ErrConflict) {
		t.Errorf("of another volume: %v", err)
	}
}

// TestRevertGoesOn where it was cut short: by its caller, by the end of the engine, with a
// replica away, and unheard by Raft.
func TestRevertGoesOn(t *testing.T) {
	w := newWorld(t, 3)
	m := newMachine(t)
	d := w.startDaemon(m)
	id, snapshot, want := w.wanted(d)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Revert(ctx, id, snapshot); err == nil {
		t.Fatal("done without time")
	}
	w.waitGivenBack(id)
	err := d.onEngine(t.Context(), id, func(ctx context.Context, e *Engine, _ *keeper) error {
		e.Abort()
		return e.revertTo(ctx, snapshot)
	})
	if !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("with an engine that ends: %v", err)
	}
	w.nodes[2].kill()
	if err := d.Revert(t.Context(), id, snapshot); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, want, w.nodes[:2]...)
	w.nodes[2].serve()
	err = d.onEngine(t.Context(), id, func(context.Context, *Engine, *keeper) error {
		w.waitInSync(id, 3)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, want)
}

// TestReplicaIsReplacedWhileReverted: the engine that reverts a volume lets the replica go
// whose place is taken, and goes on with the one that has come.
func TestReplicaIsReplacedWhileReverted(t *testing.T) {
	w := newWorld(t, 3)
	d := w.startDaemon(newMachine(t))
	id, snapshot, want := w.wanted(d, w.nodes[:2]...)
	old, _ := w.replace(id, w.nodes[0], w.nodes[2])
	err := d.onEngine(t.Context(), id, func(ctx context.Context, e *Engine, _ *keeper) error {
		w.truth.wait(retired(id, old), "the old replica to be replaced")
		return e.revertTo(ctx, snapshot)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.waitGivenBack(id)
	if err := d.Revert(t.Context(), id, snapshot); err != nil || w.isReverting(id) {
		t.Fatalf("once more: %v, reverting %v", err, w.isReverting(id))
	}
	w.wantEqual(id, want, w.nodes[1:]...)
}

// TestRevertTellsItsProgress, and what keeps it from going on.
func TestRevertTellsItsProgress(t *testing.T) {
	w := newWorld(t, 2)
	d := w.startDaemon(newMachine(t))
	id, snapshot, _ := w.wanted(d)
	if _, running := d.Reverting(id); running {
		t.Error("it is under way before it began")
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := d.onEngine(ctx, id, func(ctx context.Context, e *Engine, _ *keeper) error {
		if err := e.revertTo(ctx, snapshot); err != nil {
			return err
		}
		at, running := d.Reverting(id)
		if !running || at.Total < 8<<20 || at.Total > 9<<20 || at.Done != at.Total {
			t.Errorf("at the end: %+v, %v", at, running)
		}
		if status, path, err := d.Status(ctx, id); err != nil || path != "" || !status.Serving {
			t.Errorf("status %+v of %q: %v", status, path, err)
		}
		// One that no replica has. What the core and Raft's stand-in read stays as it is.
		lost := block.SnapshotID{ID: block.ID{1}}
		e.config.Core.View.Snapshots = slices.Clone(e.config.Core.View.Snapshots)
		e.config.Core.View.Snapshots[0].ID = lost
		done := make(chan error, 1)
		go func() { done <- d.revert(ctx, e, lost) }()
		eventually(t, "trouble to be told", func() bool { at, _ := d.Reverting(id); return at.Trouble != nil })
		cancel()
		return <-done
	})
	if !errors.Is(err, block.ErrInvalid) {
		t.Errorf("without the snapshot: %v", err)
	}
}

// TestRevertLeavesEqualBytesAlone: what was written again as it was costs no space.
func TestRevertLeavesEqualBytesAlone(t *testing.T) {
	w := newWorld(t, 1)
	d := w.startDaemon(newMachine(t))
	id := w.detached(8 << 20)
	data := noise(t, 1<<20)
	w.writeTo(d, id, 0, data)
	snapshot := w.reserve(id)
	if err := d.Cut(t.Context(), id, snapshot); err != nil {
		t.Fatal(err)
	}
	w.writeTo(d, id, 0, data)
	before := w.nodes[0].store.Space().Free
	w.truth.must(state.RevertVolume{Volume: id, Snapshot: snapshot.ID})
	if err := d.Revert(t.Context(), id, snapshot.ID); err != nil {
		t.Fatal(err)
	}
	if after := w.nodes[0].store.Space().Free; after < before {
		t.Errorf("%d bytes were free, now %d", before, after)
	}
	if !bytes.Equal(w.nodes[0].content(id)[:1<<20], data) {
		t.Error("the content is another")
	}
}
