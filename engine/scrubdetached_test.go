package engine

import (
	"testing"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// filledAndDetached is a volume that was filled and that nobody has attached any more.
func (w *world) filledAndDetached(m *machine, d *daemon) (id block.VolumeID, data []byte) {
	w.t.Helper()
	id = w.volume(volumeSize)
	data = w.filled(m, d, id)
	if err := d.Unstage(within(w.t), id); err != nil {
		w.t.Fatal(err)
	}
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id, EndAttachment: true})
	return id, data
}

// TestScrubOfADetachedVolume: a volume that nobody has attached is verified when it is
// due or asked for, and given back.
func TestScrubOfADetachedVolume(t *testing.T) {
	for name, begin := range map[string]func(r *scrubTruth, id block.VolumeID){
		"due":   func(r *scrubTruth, _ block.VolumeID) { r.change(func(r *scrubTruth) { r.due = true }) },
		"asked": func(r *scrubTruth, id block.VolumeID) { r.ask(id) },
	} {
		t.Run(name, func(t *testing.T) {
			w, m := newWorld(t, 2), newMachine(t)
			d, truth := w.scrubbingDaemon(m)
			id, data := w.filledAndDetached(m, d)
			w.nodes[1].rot(data[4096 : 4096+block.BlockSize])
			begin(truth, id)
			record := truth.ended(id)
			if record.Verified != record.Ended || record.Found.Repaired != block.BlockSize {
				t.Errorf("recorded %+v", record)
			}
			w.waitGivenBack(id)
			w.wantEqual(id, data)
		})
	}
}

// TestDetachedScrubYields: whoever publishes the volume has it at once, and the walk goes
// on with the engine of the device.
func TestDetachedScrubYields(t *testing.T) {
	w, m := newWorld(t, 2), newMachine(t)
	d, truth := w.scrubbingDaemon(m)
	id, data := w.filledAndDetached(m, d)
	truth.change(func(r *scrubTruth) { r.due, r.rate = true, 1 })
	w.truth.wait(func(s *state.State) bool {
		v, _ := s.Volume(id)
		return v.Borrowed() && s.Scrub(id).Began != 0
	}, "a scrub of the detached volume")
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[0].id})
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	truth.change(func(r *scrubTruth) { r.rate = 0 })
	if record := truth.ended(id); record.Verified != record.Ended {
		t.Errorf("recorded %+v", record)
	}
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, data)
}
