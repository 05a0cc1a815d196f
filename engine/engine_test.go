package engine

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
)

const volumeSize = 8 << 20

// TestServes: what is written, zeroed and flushed is on every replica, and read
// back; the metrics tell of it.
func TestServes(t *testing.T) {
	w := newWorld(t, 3)
	id := w.volume(volumeSize)
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMetrics(registry); err == nil {
		t.Error("the same metrics were registered twice")
	}
	e := w.startEngine(id, func(c *Config) { c.Metrics = metrics })
	want := make([]byte, volumeSize)
	put := func(offset int64, data []byte) { write(t, e, offset, data); copy(want[offset:], data) }

	put(0, noise(t, 4096))
	put(1<<20-512, noise(t, 1<<20))
	put(512, noise(t, 512))
	do(t, e, core.Request{Kind: core.ZeroRequest, Offset: 1<<20 + 1024, Length: 100 << 10}, nil)
	clear(want[1<<20+1024 : 1<<20+1024+100<<10])
	do(t, e, core.Request{Kind: core.WriteRequest, Offset: 4 << 20, ForceUnitAccess: true}, noise(t, 8192))
	copy(want[4<<20:], do(t, e, core.Request{Kind: core.ReadRequest, Offset: 4 << 20, Length: 8192}, nil))
	do(t, e, core.Request{Kind: core.FlushRequest}, nil)
	if got := do(t, e, core.Request{Kind: core.ReadRequest, Offset: 1<<20 - 512, Length: 1 << 20}, nil); !bytes.Equal(got, want[1<<20-512:2<<20-512]) {
		t.Error("read differs from what was written")
	}
	await(t, "serving", e.Serving())

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := e.Status(ctx)
	if err != nil || !status.Serving || status.View.InSync() != 3 {
		t.Errorf("status %+v: %v", status, err)
	}
	if err := e.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	w.wantEqual(id, want)
	for name, want := range map[string]float64{
		"request_bytes_total read":       8192 + 1<<20,
		"request_bytes_total write":      4096 + 1<<20 + 512 + 8192,
		"request_bytes_total zero":       100 << 10,
		"request_duration_seconds write": 4,
		"request_duration_seconds read":  2,
		"request_duration_seconds flush": 1,
		"request_failures_total write":   0,
		"starts_total":                   1,
		"events_total member_lost":       0,
		"repaired_bytes_total":           0,
	} {
		if got := counted(t, registry, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// counted is the value of a metric, or how often a histogram was told something.
// The name goes without its first part, and with the value of its label.
func counted(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	name, label, _ := strings.Cut(name, " ")
	for _, family := range families {
		if family.GetName() != "holdfast_engine_"+name {
			continue
		}
		for _, metric := range family.GetMetric() {
			if label == "" || metric.GetLabel()[0].GetValue() == label {
				return metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no metric %s %s", name, label)
	return 0
}

// TestRefuses: what cannot be is refused, and harms nobody.
func TestRefuses(t *testing.T) {
	w := newWorld(t, 1)
	id := w.volume(volumeSize)
	e := w.startEngine(id)
	for name, r := range map[string]core.Request{
		"no kind":      {Length: 512},
		"unknown kind": {Kind: core.FlushRequest + 1, Length: 512},
		"past the end": {Kind: core.ReadRequest, Offset: volumeSize, Length: 512},
		"no sectors":   {Kind: core.ReadRequest, Length: 100},
		"no data":      {Kind: core.WriteRequest, Length: 512},
	} {
		if _, err := submit(t, e, r, nil).wait(); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended := make(chan error, 1)
	backend{e}.Submit(nbd.NewRequest(nbd.KindStatus, block.Span{Length: 512}, nil, false, func(err error, _ *block.Buffer) { ended <- err }))
	if err := <-ended; !errors.Is(err, block.ErrInvalid) {
		t.Errorf("status request: %v", err)
	}
	write(t, e, 0, noise(t, 512))

	for name, spoil := range map[string]func(*Config){
		"dialer":   func(c *Config) { c.Dialer = nil },
		"clock":    func(c *Config) { c.Clock = nil },
		"view":     func(c *Config) { c.Core.View = block.View{} },
		"proposer": func(c *Config) { c.Proposer = nil },
		"logger":   func(c *Config) { c.Logger = nil },
	} {
		config := e.config
		spoil(&config)
		if _, err := New(config); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("engine without %s: %v", name, err)
		}
	}
}

// TestReplicaDiesAndComesBack: a member that dies is removed, what was going on
// goes on, and when it is back it gets what it missed and is admitted.
func TestReplicaDiesAndComesBack(t *testing.T) {
	w := newWorld(t, 3)
	id := w.volume(volumeSize)
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	e := w.startEngine(id, func(c *Config) { c.Metrics = metrics })
	want := noise(t, volumeSize)
	for at := 0; at < volumeSize; at += 1 << 20 {
		write(t, e, int64(at), want[at:at+1<<20])
	}
	w.nodes[2].kill()
	for at := 0; at < volumeSize; at += 3 << 20 {
		data := noise(t, 64<<10)
		copy(want[at:], data)
		write(t, e, int64(at), data)
	}
	w.waitInSync(id, 2)
	do(t, e, core.Request{Kind: core.FlushRequest}, nil)
	w.wantEqual(id, want, w.nodes[:2]...)
	w.nodes[2].serve()
	w.waitInSync(id, 3)
	do(t, e, core.Request{Kind: core.FlushRequest}, nil)
	w.wantEqual(id, want)
	for _, name := range []string{
		"events_total member_lost", "events_total resync_started", "events_total admitted", "resync_copied_bytes_total",
	} {
		if counted(t, registry, name) == 0 {
			t.Errorf("%s did not rise", name)
		}
	}
}

// TestHungReplica: a peer that stops reading, with the writer of its link stuck in
// a full socket, is removed when its deadline has passed, and the link with its
// goroutines is gone.
func TestHungReplica(t *testing.T) {
	w := newWorld(t, 3)
	id := w.volume(64 << 20)
	e := w.startEngine(id)
	write(t, e, 0, noise(t, 4096))
	w.nodes[1].hang()
	began := time.Now()
	var pending []*outcome
	for at := range int64(48) {
		pending = append(pending, submit(t, e, core.Request{Kind: core.WriteRequest, Offset: at << 20}, noise(t, 1<<20)))
	}
	for _, o := range pending {
		if _, err := o.wait(); err != nil {
			t.Error(err)
		}
	}
	w.waitInSync(id, 2)
	if took := time.Since(began); took > 10*time.Second+time.Duration(testTiming().ReplicaDeadline) {
		t.Errorf("a hanging replica stopped the volume for %v", took)
	}
	w.nodes[1].thaw()
	w.waitInSync(id, 3)
}

// TestHungAtHandshake: a node that accepts connections and then says nothing does
// not keep the others from serving.
func TestHungAtHandshake(t *testing.T) {
	w := newWorld(t, 3)
	id := w.volume(volumeSize)
	w.nodes[1].hang()
	e := w.startEngine(id)
	write(t, e, 0, noise(t, 4096))
	w.waitInSync(id, 2)
}

// TestEndsInTheMiddle: whatever ends an engine, and when, each request is answered
// once, and late ones too.
func TestEndsInTheMiddle(t *testing.T) {
	for name, end := range map[string]func(w *world, id block.VolumeID, e *Engine){
		"abort": func(_ *world, _ block.VolumeID, e *Engine) { e.Abort() },
		"newer engine": func(w *world, id block.VolumeID, e *Engine) {
			w.startEngine(id)
			e.Observe(w.view(id))
		},
		"broken invariant": func(_ *world, _ block.VolumeID, e *Engine) {
			e.post(job{look: func(*core.Core) { invariant.Assert(false, "planted") }})
		},
		"end of attachment": func(w *world, id block.VolumeID, e *Engine) {
			w.truth.must(state.EndAttachment{Volume: id, Attachment: w.view(id).Attachment})
			e.Observe(w.view(id))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			id := w.volume(volumeSize)
			e := w.startEngine(id)
			write(t, e, 0, noise(t, 4096))
			data := noise(t, 16<<10)
			var clients sync.WaitGroup
			outcomes := make([]*outcome, 1200)
			for c := range 4 {
				clients.Go(func() {
					for i := c * 300; i < (c+1)*300; i++ {
						r := core.Request{Kind: core.WriteRequest, Offset: int64(i%128) << 14}
						if i%3 == 0 {
							r = core.Request{Kind: core.ReadRequest, Offset: int64(i%128) << 14, Length: 16 << 10}
							outcomes[i] = submit(t, e, r, nil)
							continue
						}
						outcomes[i] = submit(t, e, r, data)
					}
				})
			}
			end(w, id, e)
			clients.Wait()
			await(t, "the end of the engine", e.Stopped())
			if e.Err() == nil {
				t.Error("the engine does not know why it ended")
			}
			for _, o := range outcomes {
				if _, err := o.wait(); err != nil && !errors.Is(err, e.Err()) && !errors.Is(err, block.ErrDetached) {
					t.Fatalf("%v, the engine ended by %v", err, e.Err())
				}
			}
			if _, err := submit(t, e, core.Request{Kind: core.FlushRequest}, nil).wait(); err == nil {
				t.Error("an engine that has ended flushes")
			}
			if name == "broken invariant" && !errors.Is(e.Err(), block.ErrUnavailable) {
				t.Errorf("requests are blamed for a broken invariant: %v", e.Err())
			}
		})
	}
}

// TestMoreThanTheCoreTakes: a frontend that does not hold back waits in the table,
// up to a bound.
func TestMoreThanTheCoreTakes(t *testing.T) {
	w := newWorld(t, 1)
	id := w.volume(volumeSize)
	const limit = 4
	var e *Engine
	raft := nodeTruth{w.truth, w.nodes[0].id}
	started, err := raft.StartEngine(t.Context(), id, block.AttachmentID{}, block.StartID{ID: newID(t)})
	if err != nil {
		t.Fatal(err)
	}
	limits := core.Limits{}.Default()
	limits.Requests = limit
	e, err = New(Config{
		Core:   core.Config{Node: w.nodes[0].id, Cluster: w.id, View: started.View, MinInSync: 1, Timing: testTiming(), Limits: limits},
		Dialer: w.nodes[0], Proposer: raft, Clock: clock.System{}, Logger: w.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	data := noise(t, 4096)
	var pending []*outcome
	for i := range int64(limit + waitingFactor*limit) {
		pending = append(pending, submit(t, e, core.Request{Kind: core.WriteRequest, Offset: i % 8 << 12}, data))
	}
	if _, err := submit(t, e, core.Request{Kind: core.FlushRequest}, nil).wait(); !errors.Is(err, block.ErrUnavailable) {
		t.Errorf("more than the bound: %v", err)
	}
	w.run(e)
	for _, o := range pending {
		if _, err := o.wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestProposalsGoAstray: outcomes that are lost, and proposals that are never
// answered, end in the right view all the same.
func TestProposalsGoAstray(t *testing.T) {
	t.Run("lost", func(t *testing.T) {
		w := newWorld(t, 3)
		id := w.volume(volumeSize)
		e := w.startEngine(id)
		write(t, e, 0, noise(t, 4096))
		w.truth.set(func(r *truth) { r.lost = 3 })
		w.nodes[1].kill()
		write(t, e, 4096, noise(t, 4096))
		w.waitInSync(id, 2)
	})
	t.Run("silent", func(t *testing.T) {
		w := newWorld(t, 2)
		id := w.volume(volumeSize)
		e := w.startEngine(id)
		write(t, e, 0, noise(t, 4096))
		w.truth.set(func(r *truth) { r.silent = true })
		w.nodes[1].kill()
		o := submit(t, e, core.Request{Kind: core.WriteRequest}, noise(t, 4096))
		eventually(t, "the volume to freeze", func() bool {
			status, err := e.Status(t.Context())
			return err == nil && status.Frozen != nil
		})
		select {
		case <-o.done:
			t.Fatal("acknowledged though the removal is not committed")
		default:
		}
		// The end does not wait for the proposal.
		e.Abort()
		if _, err := o.wait(); !errors.Is(err, block.ErrDetached) {
			t.Error(err)
		}
	})
}

// TestNonsense: a replica whose answers are wrong is taken for broken; the engine
// and its other replicas go on.
func TestNonsense(t *testing.T) {
	for name, spoil := range map[string]func(rep *block.Reply){
		"short read":     func(rep *block.Reply) { shorten(rep) },
		"error":          func(rep *block.Reply) { fail(rep, block.OpWrite, block.ErrProtocol) },
		"invalid":        func(rep *block.Reply) { fail(rep, block.OpFlush, block.ErrInvalid) },
		"disk failed":    func(rep *block.Reply) { fail(rep, block.OpWrite, block.ErrDiskFailed) },
		"unknown answer": func(rep *block.Reply) { rep.Seq += 1 << 40 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			id := w.volume(volumeSize)
			// The replica beside the engine is the one that is read.
			liar := w.nodes[1]
			if name == "short read" {
				liar = w.nodes[0]
			}
			var lies sync.WaitGroup
			lying := &liarAcceptor{Acceptor: liar.host, spoil: spoil}
			defer lies.Wait()
			if liar == w.nodes[0] {
				e := w.startEngine(id, func(c *Config) { c.Dialer = localThrough{node: liar, acceptor: lying} })
				serveDespite(t, w, id, e, lying)
				return
			}
			liar.kill()
			liar.accept = lying
			liar.serve()
			serveDespite(t, w, id, w.startEngine(id), lying)
		})
	}
}

// serveDespite writes and reads while a replica lies, until it has been removed.
func serveDespite(t *testing.T, w *world, id block.VolumeID, e *Engine, liar *liarAcceptor) {
	t.Helper()
	data := noise(t, 64<<10)
	write(t, e, 0, data)
	liar.begin()
	deadline := time.Now().Add(patience)
	for inSync(w, id) == 3 {
		write(t, e, 0, data)
		do(t, e, core.Request{Kind: core.FlushRequest}, nil)
		if got := do(t, e, core.Request{Kind: core.ReadRequest, Length: 64 << 10}, nil); !bytes.Equal(got, data) {
			t.Fatal("read differs from what was written")
		}
		if time.Now().After(deadline) {
			t.Fatal("a replica that lies was not removed")
		}
	}
	select {
	case <-e.Stopped():
		t.Errorf("the engine ended: %v", e.Err())
	default:
	}
}

func inSync(w *world, id block.VolumeID) int {
	view := w.view(id)
	return view.InSync()
}

func shorten(rep *block.Reply) {
	if rep.Op == block.OpRead && rep.Buf != nil {
		rep.Buf.Data = rep.Buf.Data[:512]
	}
}

func fail(rep *block.Reply, op block.Op, err error) {
	if rep.Op == op {
		rep.Err = err
	}
}

// liarAcceptor is a replica server whose answers are spoilt once begin was called.
type liarAcceptor struct {
	wire.Acceptor
	spoil func(rep *block.Reply)

	mu    sync.Mutex
	lying bool
}

func (l *liarAcceptor) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lying = true
}

func (l *liarAcceptor) Accept(reply wire.Reply) wire.Session {
	return l.Acceptor.Accept(func(rep block.Reply, own *turn.Turn) {
		l.mu.Lock()
		lying := l.lying
		l.mu.Unlock()
		if lying && rep.Op != block.OpOpen {
			l.spoil(&rep)
		}
		reply(rep, own)
	})
}

// localThrough links the local replica through an acceptor of the test.
type localThrough struct {
	*node
	acceptor wire.Acceptor
}

func (d localThrough) Dial(ctx context.Context, member block.Member, recv wire.Receiver) (wire.Link, error) {
	if member.Node == d.id {
		return wire.Local(d.acceptor, recv), nil
	}
	return d.node.Dial(ctx, member, recv)
}

// TestDetachTimesOut: a detach that cannot be done now says so, and is done later.
func TestDetachTimesOut(t *testing.T) {
	w := newWorld(t, 2)
	id := w.volume(volumeSize)
	e := w.startEngine(id)
	write(t, e, 0, noise(t, 4096))
	w.truth.set(func(r *truth) { r.down = true })
	w.nodes[1].kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Detach(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), id.String()) {
		t.Error(err)
	}
	w.truth.set(func(r *truth) { r.down = false })
	await(t, "the end of the engine", e.Stopped())
	if err := e.Err(); err != nil {
		t.Error(err)
	}
}

// TestNonsenseAtOpen: a replica that introduces itself wrongly does not keep the
// others from serving.
func TestNonsenseAtOpen(t *testing.T) {
	for name, spoil := range map[string]func(rep *block.Reply){
		"nothing opened":     func(rep *block.Reply) { rep.Opened = nil },
		"log beyond the end": func(rep *block.Reply) { rep.Opened.Log.Add(1 << 12) },
		"dirty sets of strangers": func(rep *block.Reply) {
			rep.Opened.Dirty = []block.DirtySet{{Replica: block.ReplicaID{ID: block.ID{9}}, Removal: 7}}
		},
		"no space and no size": func(rep *block.Reply) { rep.Opened.Size, rep.Opened.Free = -1, -1 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			id := w.volume(volumeSize)
			liar := w.nodes[1]
			liar.kill()
			liar.accept = openingLiar{Acceptor: liar.host, spoil: spoil}
			liar.serve()
			e := w.startEngine(id)
			data := noise(t, 64<<10)
			write(t, e, volumeSize-64<<10, data)
			do(t, e, core.Request{Kind: core.FlushRequest}, nil)
			if got := do(t, e, core.Request{Kind: core.ReadRequest, Offset: volumeSize - 64<<10, Length: 64 << 10}, nil); !bytes.Equal(got, data) {
				t.Error("read differs from what was written")
			}
		})
	}
}

// openingLiar is a replica server whose first answers are spoilt.
type openingLiar struct {
	wire.Acceptor
	spoil func(rep *block.Reply)
}

func (l openingLiar) Accept(reply wire.Reply) wire.Session {
	return l.Acceptor.Accept(func(rep block.Reply, own *turn.Turn) {
		if rep.Op == block.OpOpen && rep.Opened != nil {
			l.spoil(&rep)
		}
		reply(rep, own)
	})
}
