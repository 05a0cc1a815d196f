package engine

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// detached makes a volume that is published to nobody.
func (w *world) detached(size int64, nodes ...*node) block.VolumeID {
	w.t.Helper()
	id := w.volume(size, nodes...)
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id})
	return id
}

func (w *world) waitGivenBack(id block.VolumeID) {
	w.t.Helper()
	w.truth.wait(func(s *state.State) bool {
		v, _ := s.Volume(id)
		return v.View.Owner.IsZero()
	}, "the volume to be given back")
}

// TestBorrowedVolumeIsServedAndGivenBack, one task after the other.
func TestBorrowedVolumeIsServedAndGivenBack(t *testing.T) {
	w := newWorld(t, 2)
	id := w.detached(1 << 20)
	d := w.startDaemon(newMachine(t))
	var asking sync.WaitGroup
	var mu sync.Mutex
	epochs := map[block.Epoch]bool{}
	for range 3 {
		asking.Go(func() {
			err := d.onEngine(t.Context(), id, func(_ context.Context, e *Engine, k *keeper) error {
				v, _ := w.truth.now().Volume(id)
				if k != nil || !v.Borrowed() || v.View.Epoch != e.config.Core.View.Epoch {
					t.Errorf("served by %p at %+v", k, v.View)
				}
				await(t, "the engine to serve", e.Serving())
				mu.Lock()
				defer mu.Unlock()
				epochs[v.View.Epoch] = true
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	join(t, "the tasks", &asking)
	if len(epochs) != 3 || !w.view(id).Owner.IsZero() {
		t.Fatalf("epochs %v, view %+v", epochs, w.view(id))
	}
	if len(d.borrowers.turns)+len(d.borrowers.starts)+len(d.borrowers.waiting) != 0 {
		t.Fatalf("left behind: %+v", &d.borrowers)
	}
	// What was published meanwhile cannot be borrowed.
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[1].id})
	if err := d.Cut(t.Context(), id, block.Snapshot{}); !errors.Is(err, block.ErrUnavailable) || w.view(id).Epoch != 3 {
		t.Fatalf("borrowed though published: %v", err)
	}
}

// TestBorrowedIsGivenBackAfterTrouble: when the task takes too long, when the engine
// dies, when the daemon ends, when the attachment is taken away.
func TestBorrowedIsGivenBackAfterTrouble(t *testing.T) {
	w := newWorld(t, 1)
	id := w.detached(1 << 20)
	d := w.startDaemon(newMachine(t))
	wait := func(ctx context.Context, e *Engine, _ *keeper) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.Stopped():
			return e.gone()
		}
	}
	for name, c := range map[string]struct {
		do   func(cancel func(), e *Engine)
		want error
	}{
		"given up":    {func(cancel func(), _ *Engine) { cancel() }, context.Canceled},
		"engine dies": {func(_ func(), e *Engine) { e.says(core.Effect{Kind: core.EffectStopped, Err: block.ErrIO}) }, block.ErrDetached},
		"taken away": {func(func(), *Engine) {
			w.truth.must(state.EndAttachment{Volume: id, Attachment: w.view(id).Attachment})
		}, block.ErrDetached},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := d.onEngine(ctx, id, func(ctx context.Context, e *Engine, k *keeper) error {
				c.do(cancel, e)
				return wait(ctx, e, k)
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			w.waitGivenBack(id)
		})
	}
	err := d.onEngine(t.Context(), id, func(ctx context.Context, e *Engine, k *keeper) error {
		go func() { _ = d.stop() }()
		return wait(ctx, e, k)
	})
	if !errors.Is(err, block.ErrDetached) {
		t.Errorf("the daemon ended: %v", err)
	}
	w.waitGivenBack(id)
	if err := d.Cut(t.Context(), id, block.Snapshot{}); !errors.Is(err, block.ErrClosed) {
		t.Errorf("borrowed by a daemon that ends: %v", err)
	}
}

// TestStraysAreGivenBack: what an earlier daemon has borrowed, what a start has whose
// answer was lost, and what could not be given back at once.
func TestStraysAreGivenBack(t *testing.T) {
	w := newWorld(t, 1)
	id := w.detached(1 << 20)
	raft := nodeTruth{w.truth, w.nodes[0].id}
	if _, err := raft.BorrowVolume(t.Context(), id, block.StartID{ID: newID(t)}, false); err != nil {
		t.Fatal(err)
	}
	d := w.startDaemon(newMachine(t))
	w.waitGivenBack(id)

	w.truth.set(func(r *truth) { r.lost = 1 })
	if err := d.Cut(t.Context(), id, block.Snapshot{}); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("a lost start: %v", err)
	}
	if w.view(id).Epoch != 2 {
		t.Fatalf("view %+v", w.view(id))
	}
	w.waitGivenBack(id)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := d.onEngine(ctx, id, func(context.Context, *Engine, *keeper) error {
		w.truth.set(func(r *truth) { r.down = true })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.truth.set(func(r *truth) { r.down = false })
	w.waitGivenBack(id)
}
