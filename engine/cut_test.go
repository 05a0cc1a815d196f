package engine

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// says has the core say something, in the place of one that would.
func (e *Engine) says(effect core.Effect) {
	e.post(job{look: func(*core.Core) { e.perform(effect) }})
}

// TestCutsTakeTurns: each is told its own end, in the order in which they come.
func TestCutsTakeTurns(t *testing.T) {
	var c cuts
	c.init()
	first, second := block.SnapshotID{ID: newID(t)}, block.SnapshotID{ID: newID(t)}
	c.end(first, nil) // nobody waits
	<-c.turn
	done := c.begin(first)
	c.end(second, block.ErrIO) // of an earlier one
	select {
	case err := <-done:
		t.Fatalf("another's end was told: %v", err)
	case <-c.turn:
		t.Fatal("the turn was passed on by another's end")
	default:
	}
	c.end(first, block.ErrUnavailable)
	c.end(first, nil)
	if err := <-done; !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("end %v", err)
	}
	<-c.turn
	done = c.begin(second)
	c.end(second, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestCutEndsWithItsEngine: who waits for a cut, or for his turn, is not left waiting.
func TestCutEndsWithItsEngine(t *testing.T) {
	w := newWorld(t, 1)
	e := w.startEngine(w.volume(1 << 20))
	await(t, "the engine to serve", e.Serving())
	<-e.cuts.turn // somebody's cut is under way
	var asking sync.WaitGroup
	results := make([]error, 3)
	for i := range results {
		asking.Go(func() { results[i] = e.Cut(t.Context(), block.Snapshot{ID: block.SnapshotID{ID: newID(t)}}) })
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Cut(over, block.Snapshot{}); !errors.Is(err, block.ErrUnavailable) {
		t.Errorf("cut after its context: %v", err)
	}
	e.Abort()
	join(t, "the cuts to end", &asking)
	for _, err := range results {
		if !errors.Is(err, block.ErrUnavailable) {
			t.Errorf("cut of a stopped engine: %v", err)
		}
	}
}

// reserve makes the record of a snapshot.
func (w *world) reserve(volume block.VolumeID) block.Snapshot {
	w.t.Helper()
	id := newID(w.t)
	w.truth.must(state.CreateSnapshot{Snapshot: block.SnapshotID{ID: id}, Name: id.String(), Volume: volume, Created: 7, DecidedAt: w.truth.now().Index()})
	return block.Snapshot{ID: block.SnapshotID{ID: id}, Created: 7}
}

// wantCuts fails unless every node's replica holds exactly the cuts of the view, valid.
func (w *world) wantCuts(volume block.VolumeID) {
	w.t.Helper()
	view := w.view(volume)
	for _, n := range w.nodes {
		for _, m := range view.Replicas {
			if m.Node != n.id {
				continue
			}
			r, err := n.store.Replica(m.ID)
			if err != nil {
				w.t.Fatal(err)
			}
			cuts := r.Cuts()
			if len(cuts) != len(view.Snapshots) {
				w.t.Errorf("node %s has cuts %+v, the view %+v", n.id.Short(), cuts, view.Snapshots)
				continue
			}
			for i, c := range cuts {
				if c.Snapshot != view.Snapshots[i].ID || !c.Valid {
					w.t.Errorf("node %s has cuts %+v, the view %+v", n.id.Short(), cuts, view.Snapshots)
				}
			}
		}
	}
}

// TestCutThatWasBegunIsSpent: whatever its end, its ID is not asked for again.
func TestCutThatWasBegunIsSpent(t *testing.T) {
	for name, end := range map[string]func(e *Engine, id block.SnapshotID, cancel func()){
		"given up": func(e *Engine, id block.SnapshotID, _ func()) {
			e.says(core.Effect{Kind: core.EffectCut, Snapshot: id, Err: block.ErrUnavailable})
		},
		"not waited for":  func(_ *Engine, _ block.SnapshotID, cancel func()) { cancel() },
		"the engine ends": func(e *Engine, _ block.SnapshotID, _ func()) { e.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			id := w.volume(1 << 20)
			e := w.startEngine(id)
			await(t, "the engine to serve", e.Serving())
			w.truth.set(func(r *truth) { r.silent = true })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			snapshot := w.reserve(id)
			result := make(chan error, 1)
			var asking sync.WaitGroup
			asking.Go(func() { result <- e.Cut(ctx, snapshot) })
			eventually(t, "the cut to begin", func() bool {
				e.cuts.mu.Lock()
				defer e.cuts.mu.Unlock()
				return e.cuts.done != nil
			})
			end(e, snapshot.ID, cancel)
			join(t, name, &asking)
			if err := <-result; !errors.Is(err, block.ErrConflict) || errors.Is(err, block.ErrUnavailable) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestHostTakesSnapshots of a volume that is staged, under load, and of one that is
// not; the members hold what Raft lists.
func TestHostTakesSnapshots(t *testing.T) {
	w := newWorld(t, 3)
	staged, detached := w.volume(4<<20), w.detached(4<<20)
	m := newMachine(t)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(t.Context(), staged); err != nil {
		t.Fatal(err)
	}
	device := m.the(staged)
	over := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-over:
				return
			default:
			}
			if _, err := device.client.WriteAt(bytes.Repeat([]byte{byte(n)}, 64<<10), int64(n%64)<<16); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for _, volume := range []block.VolumeID{staged, detached} {
		for range 5 {
			if err := d.Cut(t.Context(), volume, w.reserve(volume)); err != nil {
				t.Fatal(err)
			}
		}
		var asking sync.WaitGroup
		for range 3 {
			snapshot := w.reserve(volume)
			asking.Go(func() {
				if err := d.Cut(t.Context(), volume, snapshot); err != nil {
					t.Error(err)
				}
			})
		}
		join(t, "the snapshots", &asking)
		w.wantCuts(volume)
		if n := len(w.view(volume).Snapshots); n != 8 {
			t.Errorf("%d snapshots", n)
		}
		// One that is taken already, and one that nobody has reserved.
		if err := d.Cut(t.Context(), volume, w.view(volume).Snapshots[3]); err != nil {
			t.Error(err)
		}
		if err := d.Cut(t.Context(), volume, block.Snapshot{ID: block.SnapshotID{ID: newID(t)}}); !errors.Is(err, block.ErrConflict) {
			t.Errorf("an unreserved snapshot: %v", err)
		}
	}
	close(over)
	join(t, "the writer", &writing)
	w.waitGivenBack(detached)
}

// TestHostGrowsVolumes, staged and not, and finishes what an earlier daemon has begun.
func TestHostGrowsVolumes(t *testing.T) {
	w := newWorld(t, 3)
	staged, detached := w.volume(1<<20), w.detached(1<<20)
	m := newMachine(t)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(t.Context(), staged); err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte{9}, 4096)
	for _, volume := range []block.VolumeID{staged, detached} {
		w.truth.must(state.GrowVolume{Volume: volume, Size: 8 << 20})
		if err := d.Grow(t.Context(), volume, 8<<20); err != nil {
			t.Fatal(err)
		}
		if size := w.view(volume).Size; size != 8<<20 {
			t.Fatalf("size %d", size)
		}
	}
	device := m.the(staged)
	if size := device.shows(); size != 8<<20 {
		t.Fatalf("a device of %d bytes", size)
	}
	if _, err := device.client.WriteAt(page, 8<<20-4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8192)
	if _, err := device.client.ReadAt(got, 8<<20-8192); err != nil || !bytes.Equal(got, append(make([]byte, 4096), page...)) {
		t.Fatalf("the end reads as %v..., %v", got[:8], err)
	}
	// The intent alone is enough for an engine that serves.
	w.truth.must(state.GrowVolume{Volume: staged, Size: 9 << 20})
	eventually(t, "the device to grow", func() bool { return device.shows() == 9<<20 })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	w.truth.must(state.GrowVolume{Volume: staged, Size: 10 << 20})
	w.startDaemon(m)
	eventually(t, "the device to grow", func() bool { return device.shows() == 10<<20 })
	if _, err := device.client.WriteAt(page, 10<<20-4096); err != nil {
		t.Fatal(err)
	}
}

// TestGrowthIsToldToEverybody: the size is what the core says is committed.
func TestGrowthIsToldToEverybody(t *testing.T) {
	w := newWorld(t, 1)
	e := w.startEngine(w.volume(1 << 20))
	await(t, "the engine to serve", e.Serving())
	var asking sync.WaitGroup
	results := make([]error, 3)
	for i := range results {
		asking.Go(func() { results[i] = e.Grow(t.Context(), int64(i+2)<<20) })
	}
	for _, size := range []int64{2 << 20, 4 << 20, 3 << 20} {
		e.says(core.Effect{Kind: core.EffectResized, Size: size})
	}
	join(t, "the growth", &asking)
	if err := errors.Join(results...); err != nil {
		t.Fatal(err)
	}
	if size, _ := e.Size(); size != 4<<20 {
		t.Fatalf("size %d", size)
	}
	if err := e.Grow(t.Context(), 1<<20); err != nil {
		t.Fatalf("what it has: %v", err)
	}
	asking.Go(func() { results[0] = e.Grow(t.Context(), 8<<20) })
	e.Abort()
	join(t, "the last growth to end", &asking)
	if !errors.Is(results[0], block.ErrDetached) {
		t.Fatalf("growth of a stopped engine: %v", results[0])
	}
}

// TestDeviceGrowsWithItsVolume, also when it refuses at first.
func TestDeviceGrowsWithItsVolume(t *testing.T) {
	w := newWorld(t, 1)
	id := w.volume(1 << 20)
	m := newMachine(t)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if size := m.the(id).shows(); size != 1<<20 {
		t.Fatalf("a device of %d bytes", size)
	}
	d.mu.Lock()
	k := d.keepers[id]
	d.mu.Unlock()
	e, err := k.serving()
	if err != nil {
		t.Fatal(err)
	}
	m.setRefuse(block.ErrIO)
	e.says(core.Effect{Kind: core.EffectResized, Size: 2 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	eventually(t, "the device to refuse", func() bool { _, _, err := k.shown.now(); return err != nil })
	cancel()
	if err := d.Grow(ctx, id, 2<<20); !errors.Is(err, block.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		t.Fatalf("grown with a device that refuses: %v", err)
	}
	m.setRefuse(nil)
	if err := d.Grow(t.Context(), id, 2<<20); err != nil {
		t.Fatal(err)
	}
	if size := m.the(id).shows(); size != 2<<20 {
		t.Fatalf("a device of %d bytes", size)
	}
}
