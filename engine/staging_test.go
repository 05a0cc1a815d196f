package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// TestUnstageWhileStaging: who waits for a volume to be staged is told at once when
// it is unstaged meanwhile, whatever it was waiting for, and nothing is left of it.
func TestUnstageWhileStaging(t *testing.T) {
	for name, hinder := range map[string]struct{ begin, end func(w *world, m *machine) }{
		"no quorum": {
			func(w *world, _ *machine) { w.truth.set(func(r *truth) { r.down = true }) },
			func(w *world, _ *machine) { w.truth.set(func(r *truth) { r.down = false }) },
		},
		"no replica": {
			func(w *world, _ *machine) { w.nodes[1].kill() },
			func(w *world, _ *machine) { w.nodes[1].serve() },
		},
		"no device": {
			func(_ *world, m *machine) { m.setRefuse(block.ErrUnavailable) },
			func(_ *world, m *machine) { m.setRefuse(nil) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			m := newMachine(t)
			id := w.volume(volumeSize, w.nodes[1])
			w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[1].id})
			w.truth.must(state.Publish{Volume: id, Node: w.nodes[0].id})
			d := w.startDaemon(m)
			await(t, "the host", d.adopted)
			hinder.begin(w, m)
			staged := make(chan error, 2)
			var callers sync.WaitGroup
			for range 2 {
				callers.Go(func() {
					_, _, err := d.Stage(within(t), id)
					staged <- err
				})
			}
			eventually(t, "the keeper of the volume", func() bool {
				_, _, err := d.Status(within(t), id)
				return err == nil
			})
			unstaged := make(chan error, 1)
			callers.Go(func() { unstaged <- d.Unstage(within(t), id) })
			if name == "no device" || name == "no quorum" {
				// The end of the attachment, or of its device, waits for the same.
				eventually(t, "unstaging to be asked for", func() bool { return asksEnd(d, id) || len(unstaged) > 0 })
				hinder.end(w, m)
			}
			join(t, "all who staged and unstaged", &callers)
			late := 0 // of the two, one may have come when all was over
			for range 2 {
				if err := <-staged; err == nil {
					late++
				} else if !errors.Is(err, block.ErrUnavailable) {
					t.Error("staged and unstaged:", err)
				}
			}
			if err := <-unstaged; err != nil {
				t.Error(err)
			}
			if late > 1 || len(m.all()) != late {
				t.Errorf("staged and unstaged: %d were given a device, %d are there", late, len(m.all()))
			}
			if err := d.Unstage(within(t), id); err != nil {
				t.Error(err)
			}
			if !attached(w, id).IsZero() || len(m.all()) != 0 {
				t.Error("something is left")
			}
			if name == "no replica" {
				hinder.end(w, m)
			}
			if _, _, err := d.Stage(within(t), id); err != nil {
				t.Error("staged again:", err)
			}
		})
	}
}

// TestStageSaysWhatItWaitsFor: who stages a volume whose in-sync replicas are all
// away is told so before his time is over, and where they are.
func TestStageSaysWhatItWaitsFor(t *testing.T) {
	w := newWorld(t, 2)
	id := w.volume(volumeSize, w.nodes[1])
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[1].id})
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[0].id})
	w.nodes[1].kill()
	d := w.startDaemon(newMachine(t))
	await(t, "the host", d.adopted)
	ctx, cancel := context.WithTimeout(within(t), time.Duration(testTiming().AttachWait)+3*time.Second)
	defer cancel()
	_, _, err := d.Stage(ctx, id)
	if ctx.Err() != nil {
		t.Error("the answer came too late")
	}
	if !errors.Is(err, block.ErrUnavailable) {
		t.Error("staged without a replica:", err)
	}
	for _, want := range []string{"no in-sync replica can be reached", w.nodes[1].id.String()} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not tell %q", err, want)
		}
	}
}

// asksEnd reports whether unstaging was asked for, or is over.
func asksEnd(d *daemon, id block.VolumeID) bool {
	d.mu.Lock()
	k := d.keepers[id]
	d.mu.Unlock()
	return k == nil || k.mustEnd()
}

// TestStageWhileUnstaging: a device that is being removed is given to nobody.
func TestStageWhileUnstaging(t *testing.T) {
	w := newWorld(t, 1)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	first := attached(w, id)
	begun, goOn := make(chan struct{}), make(chan struct{})
	m.mu.Lock()
	m.removing = sync.OnceFunc(func() { close(begun); <-goOn })
	m.mu.Unlock()
	var unstaging sync.WaitGroup
	unstaging.Go(func() {
		if err := d.Unstage(within(t), id); err != nil {
			t.Error(err)
		}
	})
	await(t, "the removal of the device", begun)
	for range 2 {
		if path, _, err := d.Stage(within(t), id); !errors.Is(err, block.ErrUnavailable) {
			t.Errorf("%s was staged while it is removed: %v", path, err)
		}
	}
	close(goOn)
	join(t, "unstaging", &unstaging)
	if _, second, err := d.Stage(within(t), id); err != nil || second == first {
		t.Error("staged again:", second, err)
	}
}

// TestStagingStorm: many stage and unstage one volume at once, some giving up early.
// There is never a second device of it, whoever is given one is given the one that
// Raft shows at some moment, and in the end all is as the last one asked.
func TestStagingStorm(t *testing.T) {
	w := newWorld(t, 1)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	var staged, unstaged atomic.Int64
	var callers sync.WaitGroup
	limit := within(t)
	for caller := range 6 {
		callers.Go(func() {
			// A stage beside an unstage is refused at once, so that all of few may be.
			for n := 0; n < 15 || staged.Load() == 0 && limit.Err() == nil; n++ {
				ctx, cancel := within(t), func() {}
				if (caller+n)%5 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(n%15)*time.Millisecond)
				}
				var err error
				if caller%2 == 0 {
					_, _, err = d.Stage(ctx, id)
				} else {
					err = d.Unstage(ctx, id)
				}
				cancel()
				switch {
				case err == nil && caller%2 == 0:
					staged.Add(1)
				case err == nil:
					unstaged.Add(1)
				case !errors.Is(err, block.ErrUnavailable) && !errors.Is(err, block.ErrDetached) && !errors.Is(err, context.DeadlineExceeded):
					t.Error(err)
				}
			}
		})
	}
	join(t, "all callers", &callers)
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	if !attached(w, id).IsZero() || len(m.all()) != 0 {
		t.Error("something is left after the last unstaging")
	}
	if m.most != 1 || staged.Load() == 0 || unstaged.Load() == 0 {
		t.Errorf("%d devices at once; %d times staged, %d unstaged", m.most, staged.Load(), unstaged.Load())
	}
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Error(err)
	}
}
