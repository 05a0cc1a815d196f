package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// replace begins to move the replica of a volume on one node to another, and makes it.
func (w *world) replace(id block.VolumeID, from, to *node) (old, next block.ReplicaID) {
	w.t.Helper()
	view := w.view(id)
	i := slices.IndexFunc(view.Replicas, func(m block.Member) bool { return m.Node == from.id })
	old, next = view.Replicas[i].ID, block.ReplicaID{ID: newID(w.t)}
	w.truth.must(state.ReplaceReplica{
		Volume: id, Old: old, New: state.Placement{Replica: next, Node: to.id, Disk: to.disk}, DecidedAt: w.truth.now().Index(),
	})
	if err := to.host.CreateReplica(to.disk, next, id, view.Size); err != nil {
		w.t.Fatal(err)
	}
	w.truth.must(state.ReplicaReady{Replica: next, Incarnation: to.store.Incarnation()})
	return old, next
}

// retired reports whether a replica was replaced and two are in sync.
func retired(id block.VolumeID, old block.ReplicaID) func(*state.State) bool {
	return func(s *state.State) bool {
		v, _ := s.Volume(id)
		return v.IsRetired(old) && v.View.InSync() == 2
	}
}

// TestResyncOfADetachedVolume moves a replica while nobody uses the volume.
func TestResyncOfADetachedVolume(t *testing.T) {
	w := newWorld(t, 3)
	id := w.volume(4<<20, w.nodes[:2]...)
	data := noise(t, 4<<20)
	e := w.startEngine(id)
	for at := 0; at < len(data); at += block.MaxTransfer {
		write(t, e, int64(at), data[at:at+block.MaxTransfer])
	}
	if err := e.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id, EndAttachment: true})
	d := w.startDaemon(newMachine(t))
	old, next := w.replace(id, w.nodes[0], w.nodes[2])
	if err := d.Resync(t.Context(), id, []block.ReplicaID{next}); err != nil {
		t.Fatal(err)
	}
	w.waitGivenBack(id)
	if view := w.view(id); !retired(id, old)(w.truth.now()) || view.Member(next) == nil {
		t.Fatalf("view %+v", view)
	}
	w.wantEqual(id, data, w.nodes[1:]...)
	// There is nothing left to do, and a volume that is published is not borrowed.
	if err := d.Resync(t.Context(), id, []block.ReplicaID{old, next}); err != nil {
		t.Fatal(err)
	}
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[1].id})
	if err := d.Resync(t.Context(), id, nil); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("resynced though published: %v", err)
	}
}

// TestResyncYields to whoever wants the volume.
func TestResyncYields(t *testing.T) {
	for name, want := range map[string]func(w *world, d *daemon, id block.VolumeID){
		"publication": func(w *world, _ *daemon, id block.VolumeID) {
			w.truth.must(state.Publish{Volume: id, Node: w.nodes[1].id})
		},
		"deletion": func(w *world, _ *daemon, id block.VolumeID) { w.truth.must(state.DeleteVolume{Volume: id}) },
		"work": func(w *world, d *daemon, id block.VolumeID) {
			err := d.onEngine(w.t.Context(), id, func(context.Context, *Engine, *keeper) error { return nil })
			if err != nil {
				w.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			id := w.volume(1<<20, w.nodes[:2]...)
			w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id})
			d := w.startDaemon(newMachine(t))
			_, next := w.replace(id, w.nodes[0], w.nodes[2])
			w.nodes[2].kill()
			ended := make(chan error, 1)
			var resyncing sync.WaitGroup
			resyncing.Go(func() { ended <- d.Resync(t.Context(), id, []block.ReplicaID{next}) })
			w.truth.wait(func(s *state.State) bool {
				v, _ := s.Volume(id)
				return v.Yields
			}, "the volume to be borrowed")
			want(w, d, id)
			join(t, "the resync", &resyncing)
			if err := <-ended; !errors.Is(err, block.ErrUnavailable) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// TestReplicaIsReplacedWhileInUse: the engine of a device does it by itself, and so does
// the next one, if it dies halfway.
func TestReplicaIsReplacedWhileInUse(t *testing.T) {
	for name, dies := range map[string]bool{"engine lives": false, "engine dies": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			id := w.volume(volumeSize, w.nodes[:2]...)
			m := newMachine(t)
			d := w.startDaemon(m)
			if _, _, err := d.Stage(within(t), id); err != nil {
				t.Fatal(err)
			}
			stop, writes := load(t, m.the(id))
			if dies {
				w.nodes[2].kill()
			}
			old, _ := w.replace(id, w.nodes[0], w.nodes[2])
			if dies {
				if err := d.stop(); err != nil {
					t.Fatal(err)
				}
				w.nodes[2].serve()
				d = w.startDaemon(m)
			}
			w.truth.wait(retired(id, old), "the old replica to be replaced")
			before := writes.Load()
			eventually(t, "writes to go on", func() bool { return writes.Load() > before+50 || t.Failed() })
			want := stop()
			if err := d.Unstage(within(t), id); err != nil {
				t.Fatal(err)
			}
			w.wantEqual(id, want, w.nodes[1:]...)
		})
	}
}
