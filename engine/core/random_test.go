package core

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

var (
	randomSeed = flag.Uint64("core.seed", 0, "run TestRandom with this seed only")
	randomTime = flag.Duration("core.time", 6*time.Second, "how long TestRandom tries seeds")
)

// The failures of a random run: links that break, replicas that are killed, lose
// power, hang, are slow or run out of space, proposals whose outcome gets lost and that
// land late, engines that crash, detach, or are replaced while they still run,
// cut off with the replica of their own node.
// What is judged: every read by history, every buffer given back, no effect
// after the end, bounded queues, and that all replicas are equal in the end.

// storm is one random run: one volume, its replicas, and the engines that serve
// it one after the other, sometimes a while side by side.
type storm struct {
	t       *testing.T
	seed    uint64
	random  *rand.Rand
	now     block.Instant
	view    block.View
	nodes   []*stormNode
	engines []*stormEngine
	links   []*stormLink
	// late are proposals that nobody waits for any more, and that may still land.
	late    []block.Proposal
	buffers ledger
	history *history
	value   uint64
	starts  byte
	calm    bool
	reads   int
	full    block.Instant
	// snapshots are all that were asked for, taken how many were told of. intent is the
	// size that Raft wants.
	snapshots []*stormSnapshot
	taken     int
	intent    int64
}

type stormNode struct {
	*replica
	// downUntil, frozenUntil and slowUntil end what is wrong with it.
	downUntil, frozenUntil, slowUntil block.Instant
}

type stormEngine struct {
	number    int
	core      *Core
	proposals []block.Proposal
	ops       map[uint64]*stormOp
	tag       uint64
	stopped   bool
	detaching bool
	// size is that of the volume as its clients know it.
	size     int64
	scrubbed Scrubbed
	// cut are the nodes, and alone says that Raft, too, cannot be reached until
	// cutUntil.
	cut      set
	alone    bool
	cutUntil block.Instant
}

type stormOp struct {
	kind     RequestKind
	span     block.Span
	begun    int64
	versions []*version
}

// stormLink is a connection. One that ended may still have requests that arrive.
type stormLink struct {
	engine         *stormEngine
	node           int
	session        block.Session
	inbox, running []block.Request
	replies        []block.Reply
	up, lost       bool
}

const stormSize = 16*mib + 64*kib

// stormPlaces are where requests go: few, so that they meet, at borders of
// blocks, chunks and regions.
var stormPlaces = []int64{0, mib - 8*kib, 16*mib - 8*kib, stormSize - 32*kib}

func newStorm(t *testing.T, seed uint64) *storm {
	w := &storm{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 4)), now: hour, history: newHistory()}
	w.view = block.View{
		Volume: block.VolumeID{ID: block.ID{3: 1}}, Cluster: 1, Generation: 1, Epoch: 5, Revision: 20, Size: stormSize,
	}
	w.intent = stormSize
	for i := range 2 + w.random.IntN(2) {
		r := newReplica(i, stormSize, &w.buffers)
		w.nodes = append(w.nodes, &stormNode{replica: r})
		w.view.Replicas = append(w.view.Replicas, block.Member{ID: r.id, Node: r.node, InSync: true, Incarnation: r.incarnation})
		node := w.nodes[i]
		r.faults = append(r.faults, func(req *block.Request) error {
			if req.Op == block.OpWrite && w.now < w.full && node.node == nodeID(int(seed)%2) {
				return block.ErrNoSpace
			}
			return nil
		})
	}
	w.start()
	return w
}

func (w *storm) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

// start makes the next engine; Raft gives it an epoch and, if there is none, an
// attachment.
func (w *storm) start() {
	w.starts++
	w.view = w.view.Clone()
	w.view.Epoch++
	w.view.Revision++
	w.view.Start = block.StartID{ID: block.ID{5: w.starts}}
	w.view.Owner = nodeID(w.random.IntN(len(w.nodes)))
	if w.view.Attachment.IsZero() {
		w.view.Attachment = block.AttachmentID{ID: block.ID{4: w.starts}}
	}
	timing := Timing{}.Default()
	if w.seed%2 == 0 {
		timing.AttachWait = second // shorter than the leases of others
	}
	e := &stormEngine{number: len(w.engines) + 1, ops: map[uint64]*stormOp{}, size: w.view.Size}
	core, err := New(Config{
		Node: w.view.Owner, View: w.view, MinInSync: 1, Timing: timing,
		Limits: Limits{Requests: 32, TargetWindow: 4, Copies: 3, LogRegions: 1},
	}, w.now)
	if err != nil {
		w.fatal("%v", err)
	}
	e.core = core
	w.engines = append(w.engines, e)
	w.carryOut(e)
	w.forgetPending(func(*stormSnapshot) bool { return true })
	if w.intent > w.view.Size {
		w.step(e, Event{Kind: EventGrow, Size: w.intent})
	}
}

func (w *storm) current() *stormEngine { return w.engines[len(w.engines)-1] }

func (w *storm) step(e *stormEngine, ev Event) {
	ev.Now = w.now
	e.core.Step(ev)
	w.carryOut(e)
	w.checkBounds(e.core)
}

// checkBounds is rule 32 as far as the core can keep it.
func (w *storm) checkBounds(c *Core) {
	if what := c.usage().Exceeds(c.cfg.Limits.Bounds()); what != "" {
		w.fatal("%s", what)
	}
}

func (w *storm) carryOut(e *stormEngine) {
	for _, f := range e.core.Effects() {
		if e.stopped {
			w.fatal("effect after the end: %+v", f)
		}
		w.scrubSaid(e, &f)
		i := int(f.Replica.ID[0]) - 1
		switch f.Kind {
		case EffectConnect:
			w.closeLink(e, i)
			w.links = append(w.links, &stormLink{
				engine: e, node: i, session: f.Request.Session, up: true,
				inbox: []block.Request{f.Request}, lost: w.now < w.nodes[i].downUntil,
			})
		case EffectDisconnect:
			w.closeLink(e, i)
		case EffectSend:
			w.send(e, i, f.Request)
		case EffectPropose:
			e.proposals = append(e.proposals, f.Proposal)
		case EffectServing:
			if e == w.current() {
				w.history.settle(len(w.engines))
			}
		case EffectComplete:
			w.complete(e, &f)
		case EffectCut:
			w.cutEnded(e, &f)
		case EffectResized:
			e.size = f.Size
		case EffectStopped:
			e.stopped = true
			if len(e.ops) != 0 {
				w.fatal("%d requests are not completed at the end", len(e.ops))
			}
		}
	}
}

func (w *storm) send(e *stormEngine, i int, req block.Request) {
	for _, l := range w.links {
		if l.engine == e && l.node == i && l.up && l.session == req.Session {
			l.inbox = append(l.inbox, req)
			return
		}
	}
	req.Buf.Release()
}

// closeLink ends the connection at the engine; what was sent may still arrive.
func (w *storm) closeLink(e *stormEngine, i int) {
	for _, l := range w.links {
		if l.engine == e && l.node == i {
			l.up = false
		}
	}
}

func (w *storm) complete(e *stormEngine, f *Effect) {
	op := e.ops[f.Tag]
	if op == nil {
		w.fatal("request %d was completed twice", f.Tag)
	}
	delete(e.ops, f.Tag)
	switch {
	case f.Err != nil:
		if !errors.Is(f.Err, block.ErrDetached) && !errors.Is(f.Err, block.ErrStaleEpoch) {
			w.fatal("request %+v failed: %v", op, f.Err)
		}
	case op.kind == ReadRequest:
		w.reads++
		if err := w.history.read(op.span, op.begun, f.Buf.Data); err != nil {
			w.fatal("%v", err)
		}
	case op.kind == FlushRequest:
		w.history.flushedAt = max(w.history.flushedAt, op.begun)
	default:
		w.history.acknowledge(op.span, op.versions)
	}
	f.Buf.Release()
}

// ask sends a random request of a client.
func (w *storm) ask(e *stormEngine) {
	if e.stopped || e.detaching || len(e.ops) >= e.core.cfg.Limits.Requests {
		return
	}
	place := stormPlaces[w.random.IntN(len(stormPlaces))]
	if w.random.IntN(8) == 0 {
		place = e.size - 32*kib
	}
	place += block.SectorSize * w.random.Int64N(24)
	span := block.Span{Offset: place, Length: block.SectorSize * (1 + w.random.Int64N(20))}
	e.tag++
	q := Request{Tag: e.tag, Offset: span.Offset, Length: span.Length}
	op := &stormOp{span: span}
	switch n := w.random.IntN(20); {
	case n < 9 || e != w.current() || len(e.ops) >= 8: // writes that hang must not fill all slots
		q.Kind = ReadRequest
		op.begun = w.history.tick()
	case n < 17:
		q.Kind, q.ForceUnitAccess = WriteRequest, n == 9
		w.value++
		op.versions = w.history.begin(span, w.value, e.number)
		q.Buf = w.buffers.take(int(span.Length))
		for at := 0; at < len(q.Buf.Data); at += 8 {
			binary.LittleEndian.PutUint64(q.Buf.Data[at:], w.value)
		}
	case n < 18:
		q.Kind = ZeroRequest
		op.versions = w.history.begin(span, 0, e.number)
	default:
		q = Request{Tag: e.tag, Kind: FlushRequest}
		op.begun = w.history.tick()
	}
	op.kind = q.Kind
	e.ops[e.tag] = op
	w.step(e, Event{Kind: EventRequest, Request: q})
}

func (w *storm) act() {
	e := w.engines[max(0, len(w.engines)-1-w.random.IntN(2))]
	switch n := w.random.IntN(100); {
	case n < 55:
		w.network()
	case n < 84:
		w.ask(e)
	case n < 92:
		w.pass()
	case n < 97:
		w.raft(e)
	case n < 98 && !w.calm:
		w.trouble()
	case n < 99:
		w.changeLayers()
	case n == 99:
		w.scrub(e)
	}
	if w.current().stopped {
		w.start()
	}
}

// settle lets everything get well, and everybody come back.
func (w *storm) settle() {
	w.calm = true
	if e := w.current(); !e.stopped {
		// Others may have changed it.
		w.step(e, Event{Kind: EventView, View: w.view.Clone()})
	}
	for _, node := range w.nodes {
		node.downUntil, node.frozenUntil, node.slowUntil = 0, 0, 0
	}
	for _, e := range w.engines {
		e.cutUntil = 0
	}
	w.full, w.late = 0, nil
	for n := 0; !w.well(); n++ {
		if n > 100_000 {
			e := w.current().core
			w.fatal("does not get well: %+v, cut %+v, growth %+v, update %+v, unsure %d", e.Status(), e.cut, e.grow, e.meta, e.unsure.count)
		}
		if !w.network() {
			w.pass()
		}
		for _, e := range w.engines {
			w.raft(e)
		}
		if w.current().stopped {
			w.start()
		}
	}
}

// well reports that all replicas are in sync and nothing is left to do.
func (w *storm) well() bool {
	e := w.current()
	return e.core.phase == serving && w.view.InSync() == len(w.nodes) && len(e.ops) == 0 &&
		e.core.view.Revision == w.view.Revision && e.core.settled() && e.core.divide.count == 0 &&
		e.core.healthy() == e.core.iss && e.core.cut.stage == noCut && !e.core.meta.viewOwed &&
		!e.core.meta.active && !e.core.meta.strays && w.view.Size == w.intent
}

// finish reads everything, detaches, and compares.
func (w *storm) finish() {
	w.settle()
	e := w.current()
	w.checkLayers(true)
	for _, place := range stormPlaces {
		e.tag++
		span := block.Span{Offset: place, Length: 32 * kib}
		e.ops[e.tag] = &stormOp{kind: ReadRequest, span: span, begun: w.history.tick()}
		w.step(e, Event{Kind: EventRequest, Request: Request{
			Tag: e.tag, Kind: ReadRequest, Offset: span.Offset, Length: span.Length,
		}})
		w.settle()
		e = w.current()
	}
	w.scrubAll()
	e = w.current()
	for _, old := range w.engines[:len(w.engines)-1] {
		w.step(old, Event{Kind: EventAbort})
	}
	w.step(e, Event{Kind: EventDetach})
	for n := 0; !e.stopped; n++ {
		if n > 100_000 {
			w.fatal("does not detach: %+v", e.core.Status())
		}
		if !w.network() {
			w.pass()
		}
		w.raft(e)
	}
	// A link that broke before may be noticed on the way out: then its replica stays
	// behind, with a dirty set.
	whole := w.view.InSync() == len(w.nodes)
	var first *replica
	for i, node := range w.nodes {
		switch {
		case !w.view.Replicas[i].InSync:
		case first == nil:
			first = node.replica
		default:
			w.compare(first, node.replica, whole)
		}
	}
	for _, l := range w.links {
		w.drop(l)
	}
	if n := w.buffers.held(); n != 0 {
		w.fatal("%d buffers were not given back", n)
	}
}

func (w *storm) compare(a, b *replica, whole bool) {
	if !a.log.Empty() || !b.log.Empty() || whole && len(a.dirty)+len(b.dirty) != 0 {
		w.fatal("logs %v and %v, dirty sets %v and %v after a clean detach", a.log, b.log, a.dirty, b.dirty)
	}
	for _, place := range stormPlaces {
		span := block.Span{Offset: place, Length: 32 * kib}
		left, right := make([]byte, span.Length), make([]byte, span.Length)
		a.copyOut(span, left)
		b.copyOut(span, right)
		if !slices.Equal(left, right) {
			w.fatal("replicas %s and %s differ at %d", a.id, b.id, place)
		}
	}
}

func TestRandom(t *testing.T) {
	if *randomSeed != 0 {
		runStorm(t, *randomSeed)
		return
	}
	end := time.Now().Add(*randomTime)
	seeds, reads, snapshots := 0, 0, 0
	for seed := uint64(1); time.Now().Before(end); seed++ {
		w := runStorm(t, seed)
		reads, snapshots = reads+w.reads, snapshots+w.taken
		seeds++
	}
	t.Logf("%d seeds, %d reads and %d snapshots judged", seeds, reads, snapshots)
	if reads == 0 || snapshots == 0 {
		t.Error("no read or no snapshot was judged")
	}
}

func runStorm(t *testing.T, seed uint64) *storm {
	t.Helper()
	w := newStorm(t, seed)
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("seed %d", seed)
			panic(p)
		}
	}()
	for range 3000 {
		w.act()
	}
	w.finish()
	return w
}
