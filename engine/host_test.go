package engine

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// within is a context that ends before a test would.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// attached is the attachment that Raft shows for a volume.
func attached(w *world, id block.VolumeID) block.AttachmentID { return w.view(id).Attachment }

// TestTwoVolumes: a host stages two volumes, serves them side by side, and
// unstages them; each call may be repeated.
func TestTwoVolumes(t *testing.T) {
	w := newWorld(t, 3)
	m := newMachine(t)
	a, b := w.volume(volumeSize), w.volume(volumeSize)
	d := w.startDaemon(m)
	want := map[block.VolumeID][]byte{a: noise(t, volumeSize), b: noise(t, volumeSize)}
	var users sync.WaitGroup
	for id, data := range want {
		path, attachment, err := d.Stage(within(t), id)
		if err != nil || path == "" || attachment != attached(w, id) {
			t.Fatal(path, attachment, err)
		}
		if again, same, err := d.Stage(within(t), id); err != nil || again != path || same != attachment {
			t.Error("staged again:", again, same, err)
		}
		client := m.the(id).client
		users.Go(func() {
			if _, err := client.WriteAt(data, 0); err != nil {
				t.Error(err)
			}
			if err := client.Trim(block.Span{Offset: 1 << 20, Length: 1 << 20}); err != nil {
				t.Error(err)
			}
			clear(data[1<<20 : 2<<20])
			if err := client.Flush(); err != nil {
				t.Error(err)
			}
			got := make([]byte, volumeSize)
			if _, err := client.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
				t.Error("read differs:", err)
			}
		})
	}
	join(t, "the users of both volumes to end", &users)
	status, path, err := d.Status(within(t), a)
	if err != nil || !status.Serving || path == "" {
		t.Error(status, path, err)
	}
	for id, data := range want {
		if err := d.Unstage(within(t), id); err != nil {
			t.Fatal(err)
		}
		if err := d.Unstage(within(t), id); err != nil {
			t.Error("unstaged again:", err)
		}
		if !attached(w, id).IsZero() {
			t.Error("the attachment is alive")
		}
		w.wantEqual(id, data)
	}
	if left := m.all(); len(left) != 0 {
		t.Errorf("%d devices left", len(left))
	}
	if _, _, err := d.Status(within(t), a); !errors.Is(err, block.ErrNotFound) {
		t.Error(err)
	}
	// And once more, at once.
	if _, _, err := d.Stage(within(t), a); err != nil {
		t.Error(err)
	}
}

// load writes to a device until stopped; it fails the test at the first error,
// and returns what the device must hold in the end.
func load(t *testing.T, d *device) (stop func() []byte, writes *atomic.Int64) {
	t.Helper()
	var halt atomic.Bool
	var users sync.WaitGroup
	writes = new(atomic.Int64)
	want := make([]byte, volumeSize)
	const share = volumeSize / 4
	for user := range 4 {
		users.Go(func() {
			mine := want[user*share : (user+1)*share]
			for i := 0; !halt.Load(); i = (i + 1) % (share / 4096) {
				copy(mine[i*4096:], noise(t, 4096))
				if _, err := d.client.WriteAt(mine[i*4096:(i+1)*4096], int64(user*share+i*4096)); err != nil {
					t.Error("a write failed:", err)
					return
				}
				writes.Add(1)
			}
		})
	}
	return func() []byte {
		t.Helper()
		halt.Store(true)
		join(t, "the last writes to end", &users)
		return want
	}, writes
}

// TestDaemonRestarts: a daemon is replaced again and again under load; the next
// one takes the device over, no request fails, and nothing is lost.
func TestDaemonRestarts(t *testing.T) {
	w := newWorld(t, 3)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	attachment := attached(w, id)
	stop, writes := load(t, m.the(id))
	for range 3 {
		before := writes.Load()
		eventually(t, "writes to go on", func() bool { return writes.Load() > before+50 || t.Failed() })
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Stage(within(t), id); !errors.Is(err, block.ErrClosed) {
			t.Error("a host that has ended stages:", err)
		}
		if err := d.Unstage(within(t), id); !errors.Is(err, block.ErrClosed) {
			t.Error("a host that has ended unstages:", err)
		}
		d = w.startDaemon(m)
	}
	before := writes.Load()
	eventually(t, "writes to go on", func() bool { return writes.Load() > before+50 || t.Failed() })
	want := stop()
	if got := attached(w, id); got != attachment {
		t.Errorf("attachment became %s", got)
	}
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, want)
}

// TestStopsWhileFrozen: a daemon that is told to stop while I/O waits for a quorum
// ends soon, and no request fails: the next daemon serves them.
func TestStopsWhileFrozen(t *testing.T) {
	w := newWorld(t, 2)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	stop, writes := load(t, m.the(id))
	eventually(t, "writes", func() bool { return writes.Load() > 10 })
	w.truth.set(func(r *truth) { r.down = true })
	w.nodes[1].kill()
	eventually(t, "the volume to freeze", func() bool {
		status, _, err := d.Status(within(t), id)
		return err == nil && status.Frozen != nil
	})
	began := time.Now()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > leaveTimeout+10*time.Second {
		t.Errorf("the end of the daemon took %v", took)
	}
	d = w.startDaemon(m)
	// It waits for the quorum, and says so.
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := d.Stage(short, id); !errors.Is(err, block.ErrUnavailable) {
		t.Error(err)
	}
	w.truth.set(func(r *truth) { r.down = false })
	before := writes.Load()
	eventually(t, "writes to go on", func() bool { return writes.Load() > before+10 || t.Failed() })
	want := stop()
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, want, w.nodes[0])
}

// TestEngineReplaced: an engine that stops by itself is followed by another, and
// the users of the device notice nothing.
func TestEngineReplaced(t *testing.T) {
	w := newWorld(t, 3)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	stop, writes := load(t, m.the(id))
	for range 2 {
		before := writes.Load()
		eventually(t, "writes to go on", func() bool { return writes.Load() > before+50 || t.Failed() })
		// Somebody raises the epoch.
		w.startEngine(id).Abort()
	}
	before := writes.Load()
	eventually(t, "writes to go on", func() bool { return writes.Load() > before+50 || t.Failed() })
	want := stop()
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, want)
}

// TestAttachmentIsTakenAway: when Raft ends the attachment, the device goes, in
// use or not, and its I/O fails; that the driver refuses at first changes nothing.
func TestAttachmentIsTakenAway(t *testing.T) {
	w := newWorld(t, 3)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	client := m.the(id).client
	if _, err := client.WriteAt(noise(t, 4096), 0); err != nil {
		t.Fatal(err)
	}
	m.setRefuse(block.ErrUnavailable)
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id, EndAttachment: true})
	// It fails at once, or waits for a server until the device is gone.
	data := noise(t, 4096)
	var users sync.WaitGroup
	users.Go(func() {
		for {
			if _, err := client.WriteAt(data, 0); err != nil {
				return
			}
		}
	})
	eventually(t, "the engine to go", func() bool {
		_, _, err := d.Stage(within(t), id)
		return errors.Is(err, block.ErrUnavailable)
	})
	if len(m.all()) != 1 {
		t.Error("the device is gone though the driver refused")
	}
	m.setRefuse(nil)
	eventually(t, "the device to go", func() bool { return len(m.all()) == 0 })
	join(t, "I/O to fail", &users)
	if err := d.Unstage(within(t), id); err != nil {
		t.Error(err)
	}
	if _, _, err := d.Stage(within(t), id); !errors.Is(err, block.ErrDetached) {
		t.Error("staged though it is not published:", err)
	}
}

// TestStageAfterAnotherNode: a node that was cut off, and does not know yet that its
// attachment was ended, does not show that one's device when the volume comes back.
func TestStageAfterAnotherNode(t *testing.T) {
	w := newWorld(t, 3)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	_, first, err := d.Stage(within(t), id)
	if err != nil {
		t.Fatal(err)
	}
	w.truth.set(func(r *truth) { r.old = r.state })
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id, EndAttachment: true})
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[0].id})
	if _, _, err := d.Stage(within(t), id); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("staged with the device of an attachment that was ended: %v", err)
	}
	w.truth.set(func(r *truth) { r.old = nil })
	var second block.AttachmentID
	eventually(t, "the volume to be staged", func() bool {
		_, second, err = d.Stage(within(t), id)
		if err != nil && !errors.Is(err, block.ErrUnavailable) && !errors.Is(err, block.ErrDetached) {
			t.Fatal(err)
		}
		return err == nil
	})
	if second == first || second != attached(w, id) {
		t.Errorf("staged with attachment %v after %v, while Raft shows %v", second, first, attached(w, id))
	}
}

// TestLeftovers: devices that Raft does not know are removed by the next daemon,
// also if that fails at first; an attachment without a device ends.
func TestLeftovers(t *testing.T) {
	w := newWorld(t, 1)
	m := newMachine(t)
	gone, rebooted := w.volume(volumeSize), w.volume(volumeSize)
	d := w.startDaemon(m)
	for _, id := range []block.VolumeID{gone, rebooted} {
		if _, _, err := d.Stage(within(t), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	w.truth.must(state.EndAttachment{Volume: gone, Attachment: attached(w, gone)})
	if err := m.Remove(t.Context(), m.the(rebooted).id); err != nil {
		t.Fatal(err)
	}
	m.setRefuse(block.ErrUnavailable)
	d = w.startDaemon(m)
	if err := d.known(within(t)); err != nil {
		t.Fatal(err)
	}
	m.setRefuse(nil)
	eventually(t, "the leftover device to go", func() bool { return len(m.all()) == 0 })
	w.truth.wait(func(s *state.State) bool {
		v, _ := s.Volume(rebooted)
		return v.View.Attachment.IsZero()
	}, "the attachment without a device to end")
}

// TestLostStart: a start that was committed and not heard of is asked for again,
// under its own ID; a second fresh one would be refused for ever.
func TestLostStart(t *testing.T) {
	w := newWorld(t, 1)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	w.truth.set(func(r *truth) { r.lost = 2 })
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	if epoch := w.view(id).Epoch; epoch != 1 {
		t.Errorf("three requests for one start made %d epochs", epoch)
	}
}

// TestStartOfAnEarlierDaemon: a fresh start of a daemon that is dead lands after the
// next one has looked for attachments. Nobody has a device of it; the volume can be
// staged all the same.
func TestStartOfAnEarlierDaemon(t *testing.T) {
	w := newWorld(t, 1)
	id := w.volume(volumeSize)
	d := w.startDaemon(newMachine(t))
	await(t, "the host", d.adopted)
	w.truth.must(state.StartEngine{
		Volume: id, Node: w.nodes[0].id, Start: block.StartID{ID: newID(t)}, NewAttachment: block.AttachmentID{ID: newID(t)},
	})
	late := attached(w, id)
	_, attachment, err := d.Stage(within(t), id)
	if err != nil || attachment == late {
		t.Errorf("staged with attachment %s after the late %s: %v", attachment, late, err)
	}
}

// TestUnstageFails: an attempt that cannot succeed tells everybody who waits for
// it, and may be repeated; who gave up waiting does no harm.
func TestUnstageFails(t *testing.T) {
	w := newWorld(t, 1)
	m := newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(m)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	m.setRefuse(block.ErrInUse)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Unstage(over, id); err == nil {
		t.Error("unstaged though the device is in use")
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := d.Unstage(within(t), id); !errors.Is(err, block.ErrInUse) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := m.the(id).client.WriteAt(noise(t, 4096), 0); err != nil {
		t.Error("the device does not work after an attempt that failed:", err)
	}
	m.setRefuse(nil)
	w.truth.set(func(r *truth) { r.down = true })
	if err := d.Unstage(within(t), id); !errors.Is(err, block.ErrUnavailable) {
		t.Error(err)
	}
	w.truth.set(func(r *truth) { r.down = false })
	if err := d.Unstage(within(t), id); err != nil {
		t.Error(err)
	}
	if !attached(w, id).IsZero() || len(m.all()) != 0 {
		t.Error("not all is gone")
	}
}

// TestUnstageBeforeServing: a volume can be unstaged while no engine can serve it.
func TestUnstageBeforeServing(t *testing.T) {
	w := newWorld(t, 2)
	m := newMachine(t)
	id := w.volume(volumeSize, w.nodes[0], w.nodes[1])
	m.setRefuse(block.ErrUnavailable)
	d := w.startDaemon(m)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := d.Stage(short, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, _, err := d.Status(within(t), id); err != nil {
		t.Error(err)
	}
	m.setRefuse(nil)
	if err := d.Unstage(within(t), id); err != nil {
		t.Error(err)
	}
	if !attached(w, id).IsZero() {
		t.Error("the attachment is alive")
	}
}

// TestHostConfig: what is missing is said.
func TestHostConfig(t *testing.T) {
	w := newWorld(t, 1)
	good := w.startDaemon(newMachine(t)).config
	for name, spoil := range map[string]func(*HostConfig){
		"node":    func(c *HostConfig) { c.Node = block.NodeID{} },
		"truth":   func(c *HostConfig) { c.Truth = nil },
		"devices": func(c *HostConfig) { c.Devices = nil },
		"timing":  func(c *HostConfig) { c.Timing.Lease = 0 },
		"limits":  func(c *HostConfig) { c.Limits.Requests = 0 },
	} {
		config := good
		spoil(&config)
		if _, err := NewHost(config); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("host without %s: %v", name, err)
		}
	}
}

var _ Devices = (*machine)(nil)

var _ frontend.Device = (*deviceServer)(nil)

// TestOldDevice: a volume is moved to another machine while the daemon here is down,
// written there, and moved back. The device of the first time is still here and
// writes: its writes are refused, and it goes (rule 2).
func TestOldDevice(t *testing.T) {
	w := newWorld(t, 3)
	here, there := newMachine(t), newMachine(t)
	id := w.volume(volumeSize)
	d := w.startDaemon(here)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	old := here.the(id)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[0].id, EndAttachment: true})
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[1].id})
	other := w.startDaemon(there, func(c *HostConfig) {
		c.Node, c.Truth, c.Dialer = w.nodes[1].id, nodeTruth{w.truth, w.nodes[1].id}, w.nodes[1]
	})
	if _, _, err := other.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	newer := noise(t, volumeSize)
	if _, err := there.the(id).client.WriteAt(newer, 0); err != nil {
		t.Fatal(err)
	}
	if err := other.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	w.truth.must(state.Unpublish{Volume: id, Node: w.nodes[1].id})
	w.truth.must(state.Publish{Volume: id, Node: w.nodes[0].id})
	refused := make(chan error, 1)
	dirty := noise(t, 4096)
	var users sync.WaitGroup
	defer users.Wait()
	users.Go(func() {
		_, err := old.client.WriteAt(dirty, 0)
		refused <- err
	})
	d = w.startDaemon(here)
	if _, _, err := d.Stage(within(t), id); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-refused:
		if err == nil {
			t.Error("a write of the old device was carried out")
		}
	case <-within(t).Done():
		t.Fatal("a write of the old device is not answered")
	}
	if now := here.the(id); now == old || len(here.all()) != 1 {
		t.Error("the old device is still there")
	}
	if err := d.Unstage(within(t), id); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, newer)
}
