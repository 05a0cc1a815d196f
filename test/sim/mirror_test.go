package sim

import (
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// plainMirror is a core that knows no trouble but lost connections: it sends
// every request to all replicas in turn and never removes one. It is what the
// harness is tested with, so that a failure is the harness's own.
type plainMirror struct {
	cfg     core.Config
	effects []core.Effect
	members []*plainMember
	serving bool
	stopped bool
	waiting []core.Request
	// current is the one request in work, answered by those in done.
	current *core.Request
	done    map[block.ReplicaID]bool
	flushes uint64
}

type plainMember struct {
	id      block.ReplicaID
	session block.Session
	open    bool
	retry   block.Instant
	seq     uint64
}

func newPlainMirror(cfg core.Config, _ block.Instant) (machine, error) {
	m := &plainMirror{cfg: cfg, done: make(map[block.ReplicaID]bool)}
	for _, r := range cfg.View.Replicas {
		m.members = append(m.members, &plainMember{id: r.ID})
	}
	return m, nil
}

func (m *plainMirror) Effects() []core.Effect { return m.effects }

// Status shows the members without a revision: no replica is told of any.
func (m *plainMirror) Status() core.Status {
	return core.Status{Serving: m.serving, View: block.View{Replicas: m.cfg.View.Replicas}}
}

func (m *plainMirror) Step(ev core.Event) {
	m.effects = nil
	if m.stopped {
		return
	}
	switch ev.Kind {
	case core.EventTick:
		m.connect(ev.Now)
	case core.EventRequest:
		m.waiting = append(m.waiting, ev.Request)
		m.next()
	case core.EventReply:
		m.reply(&ev)
	case core.EventLost:
		if p := m.member(ev.Replica); p.session == ev.Session {
			p.open, p.retry = false, ev.Now+block.Instant(50*millisecond)
		}
	case core.EventDetach, core.EventAbort:
		m.stop(nil)
	}
}

func (m *plainMirror) member(id block.ReplicaID) *plainMember {
	for _, p := range m.members {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (m *plainMirror) connect(now block.Instant) {
	for _, p := range m.members {
		if p.open || now < p.retry {
			continue
		}
		p.session++
		p.seq++
		p.retry = now + block.Instant(second)
		v := m.cfg.View
		m.effects = append(m.effects, core.Effect{Kind: core.EffectConnect, Replica: p.id, Request: block.Request{
			Op: block.OpOpen, Epoch: v.Epoch, Session: p.session, Seq: p.seq, Open: &block.Open{
				Cluster: m.cfg.Cluster, Volume: v.Volume, Replica: p.id, Size: v.Size,
				Fence: block.Fence{Incarnation: v.Cluster, Generation: v.Generation, Epoch: v.Epoch, Session: p.session},
			}}})
	}
}

func (m *plainMirror) reply(ev *core.Event) {
	p, rep := m.member(ev.Replica), &ev.Reply
	switch {
	case rep.Session != p.session:
		rep.Buf.Release()
	case errors.Is(rep.Err, block.ErrStaleEpoch):
		m.stop(rep.Err)
	case rep.Op == block.OpOpen && rep.Err == nil:
		p.open = true
		m.serve()
		if m.current != nil {
			m.send(p)
		}
	case rep.Err != nil:
		panic(fmt.Sprintf("plain mirror: %v", rep.Err))
	case rep.Seq == p.seq && m.current != nil && !m.done[p.id]:
		m.answered(p, rep)
	default:
		rep.Buf.Release()
	}
}

func (m *plainMirror) serve() {
	for _, p := range m.members {
		if !p.open {
			return
		}
	}
	if !m.serving {
		m.serving = true
		m.effects = append(m.effects, core.Effect{Kind: core.EffectServing})
	}
	m.next()
}

func (m *plainMirror) next() {
	if !m.serving || m.current != nil || len(m.waiting) == 0 {
		return
	}
	m.current = &m.waiting[0]
	m.waiting = m.waiting[1:]
	clear(m.done)
	m.flushes++
	for _, p := range m.members {
		if p.open {
			m.send(p)
		}
	}
}

func (m *plainMirror) send(p *plainMember) {
	r := m.current
	if r.Kind == core.ReadRequest && p != m.members[0] || m.done[p.id] {
		return
	}
	p.seq++
	req := block.Request{Epoch: m.cfg.View.Epoch, Session: p.session, Seq: p.seq, Offset: r.Offset, Length: r.Length}
	switch r.Kind {
	case core.ReadRequest:
		req.Op = block.OpRead
	case core.WriteRequest:
		req.Op, req.Buf = block.OpWrite, r.Buf.Retain()
	case core.ZeroRequest:
		req.Op = block.OpZero
	case core.FlushRequest:
		req.Op, req.Flush = block.OpFlush, block.FlushNumber{Epoch: m.cfg.View.Epoch, N: m.flushes}
	}
	m.effects = append(m.effects, core.Effect{Kind: core.EffectSend, Replica: p.id, Request: req})
}

func (m *plainMirror) answered(p *plainMember, rep *block.Reply) {
	m.done[p.id] = true
	if m.current.Kind != core.ReadRequest {
		for _, q := range m.members {
			if !m.done[q.id] {
				return
			}
		}
	}
	m.current.Buf.Release()
	tag := m.current.Tag
	m.current = nil
	m.effects = append(m.effects, core.Effect{Kind: core.EffectComplete, Tag: tag, Buf: rep.Buf})
	m.next()
}

func (m *plainMirror) stop(err error) {
	m.stopped = true
	if m.current != nil {
		m.waiting = append(m.waiting, *m.current)
	}
	for _, r := range m.waiting {
		r.Buf.Release()
		m.effects = append(m.effects, core.Effect{Kind: core.EffectComplete, Tag: r.Tag, Err: block.ErrDetached})
	}
	m.effects = append(m.effects, core.Effect{Kind: core.EffectStopped, Err: err})
}

// mirrorOptions are for a world of the plain mirror.
func mirrorOptions(seed uint64) Options {
	o := SeedOptions(seed, 4000)
	o.NewCore = newPlainMirror
	o.RaftFaults, o.Managed, o.Replaced = false, false, false
	o.Faults = []fault{
		{"break connection", 1, breakConnection}, {"slow link", 1, slowLink}, {"slow disk", 1, slowDisk},
		{"cut one way", 1, cutOneWay}, {"pause node", 1, pauseNode},
	}
	return o
}

// TestHarness runs the plain mirror in trouble that it can stand.
func TestHarness(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a := run(t, mirrorOptions(seed))
		if b := run(t, mirrorOptions(seed)); a.Hash != b.Hash {
			t.Fatalf("seed %d: two traces", seed)
		}
		if a.Operations < 50 {
			t.Fatalf("seed %d: only %d requests", seed, a.Operations)
		}
	}
}

// TestEqualRefusesDifference writes to one replica behind everybody's back.
func TestEqualRefusesDifference(t *testing.T) {
	w := quietWorld(t)
	v := w.volumes[0]
	r, err := w.nodeOf(v.replicas[1]).storage.store.Replica(v.replicas[1])
	if err != nil {
		t.Fatal(err)
	}
	buf := block.NewBuffer(block.SectorSize)
	defer buf.Release()
	fill(buf.Data, v.tag, 1<<40, 0)
	done := false
	op := &store.Op{Kind: store.Write, Length: block.SectorSize, Buf: buf, Done: func(*store.Op) { done = true }}
	r.Submit(op)
	w.advance(func() bool { return done })
	w.expect(t, "")
	w.compare()
	w.expect(t, "equal-replicas")
}

// TestProgressRefusesSilence swallows the answers of one replica for ever.
func TestProgressRefusesSilence(t *testing.T) {
	o := mirrorOptions(1)
	o.Faults = nil
	o.Steps = 1000
	o.Plant = &plant{reply: func(c *conn, rep *block.Reply) bool {
		return c.to.index != 1 || rep.Op == block.OpOpen
	}}
	r, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Violation == nil || r.Violation.Checker != "progress" {
		t.Fatalf("violation %v, want one of progress", r.Violation)
	}
}

// brittle is a core that fails an assertion after some steps.
type brittle struct {
	machine
	steps int
}

// Step implements machine.
func (b *brittle) Step(ev core.Event) {
	if b.steps--; b.steps == 0 {
		panic("brittle")
	}
	b.machine.Step(ev)
}

func TestRunReportsFailedAssertion(t *testing.T) {
	o := mirrorOptions(1)
	o.NewCore = func(cfg core.Config, now block.Instant) (machine, error) {
		m, err := newPlainMirror(cfg, now)
		return &brittle{machine: m, steps: 100}, err
	}
	r, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Violation == nil || r.Violation.Checker != "assertion" {
		t.Fatalf("violation %v, want one of assertion", r.Violation)
	}
}

// quietWorld is a world of the plain mirror, at rest.
func quietWorld(t *testing.T) *World {
	t.Helper()
	w, err := NewWorld(mirrorOptions(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	w.advance(func() bool { return w.loop.steps > 500 })
	w.heal()
	w.settle()
	w.expect(t, "")
	return w
}

func TestRestartRefusesDamagedSuperblock(t *testing.T) {
	w := quietWorld(t)
	w.nodes[0].kill(false, loseNothing)
	w.nodes[0].storage.device.Flip(0, 0)
	w.nodes[0].restart()
	w.expect(t, "restart")
}

// TestStoreRefusesWorkWithoutEnd pauses a daemon in the middle of a write.
func TestStoreRefusesWorkWithoutEnd(t *testing.T) {
	w := quietWorld(t)
	v := w.volumes[0]
	n := w.nodeOf(v.replicas[0])
	r, err := n.storage.store.Replica(v.replicas[0])
	if err != nil {
		t.Fatal(err)
	}
	buf := block.NewBuffer(block.SectorSize)
	defer buf.Release()
	n.process.paused = true
	r.Submit(&store.Op{Kind: store.Write, Length: block.SectorSize, Buf: buf, Done: func(*store.Op) {}})
	w.checkStore(n)
	w.expect(t, "store")
}

// TestLossRefusesNeedlessEnd ends an attachment although nobody lost anything.
func TestLossRefusesNeedlessEnd(t *testing.T) {
	w := quietWorld(t)
	v := w.volumes[0]
	view := w.truth.view(v.id)
	w.truth.propose(v.current, block.Proposal{Volume: v.id, Epoch: view.Epoch, Revision: view.Revision, EndAttachment: true})
	w.advance(func() bool { return w.truth.view(v.id).Revision > view.Revision })
	w.expect(t, "flushed-data")
}

// TestEqualSeesUnrepairedCrash: the plain mirror repairs nothing, so that the
// death of an engine in the middle of its writes must show.
func TestEqualSeesUnrepairedCrash(t *testing.T) {
	for seed := uint64(1); seed < 40; seed++ {
		o := mirrorOptions(seed)
		o.Faults = []fault{{"kill engine", 1, killEngine}, {"slow link", 1, slowLink}}
		o.FaultInterval = 50 * millisecond
		o.Steps = 2000
		r, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Violation != nil {
			t.Logf("seed %d: %v", seed, r.Violation)
			return
		}
	}
	t.Fatal("no seed noticed")
}
