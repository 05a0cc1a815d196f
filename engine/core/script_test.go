package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	// hour is a start of the clock that is not zero.
	hour = block.Instant(3600 * second)
)

// scene is what a script begins with. Replicas are named A, B, C, ... in the
// order of the view; each has a node of its own, and the engine runs on A's.
type scene struct {
	// members and absent name the replicas, as "A B".
	members, absent string
	size            int64
	// config and before change what the core is born with and what the replicas
	// hold, where a scene differs from the ordinary.
	config func(*Config)
	before func(*script)
}

// script drives one core by hand. Every effect becomes a line of text; the test
// says what happens and which lines it expects, so that it reads like the
// scenario. Pings are answered at once and not shown, unless the test asks.
type script struct {
	t        testing.TB
	core     *Core
	now      block.Instant
	cfg      Config
	view     block.View // what Raft has committed
	replicas []*replica
	buffers  ledger

	lines []string
	// waiting are the requests that each replica has yet to answer, old those of
	// links that have ended.
	waiting, old [][]block.Request
	proposals    []block.Proposal
	silent       set
	showPings    bool
	stopped      bool
}

// beginAttach makes the core and stops before anybody has answered.
func beginAttach(t testing.TB, sc scene) *script {
	t.Helper()
	s := &script{t: t, now: hour}
	if sc.size == 0 {
		sc.size = 64 * mib
	}
	s.view = block.View{
		Volume: block.VolumeID{ID: block.ID{3: 1}}, Cluster: 1, Generation: 1,
		Attachment: block.AttachmentID{ID: block.ID{4: 1}}, Owner: nodeID(0),
		Start: block.StartID{ID: block.ID{5: 1}}, Epoch: 5, Revision: 20, Size: sc.size,
	}
	for i := range strings.Fields(sc.members + " " + sc.absent) {
		r := newReplica(i, sc.size, &s.buffers)
		s.replicas = append(s.replicas, r)
		m := block.Member{ID: r.id, Node: r.node, InSync: strings.Contains(sc.members, name(i)), Incarnation: r.incarnation}
		if !m.InSync {
			m.Removed = 10
			r.take(block.KeptHead, 4, true) // by an earlier engine
		}
		s.view.Replicas = append(s.view.Replicas, m)
	}
	for i, r := range s.replicas {
		if !s.view.Replicas[i].InSync {
			// The last it stored was before it left.
			r.view = s.view.Clone()
			r.view.Revision = 9
			r.view.Replicas[i].InSync = true
		}
	}
	s.waiting = make([][]block.Request, len(s.replicas))
	s.old = make([][]block.Request, len(s.replicas))
	s.cfg = Config{Node: nodeID(0), MinInSync: 1, Timing: Timing{}.Default(), Limits: Limits{}.Default()}
	// Whole seconds, whatever the defaults are.
	s.cfg.Timing.Lease, s.cfg.Timing.LeaseMargin, s.cfg.Timing.AttachGrace = 2*second, second/2, 2*second
	// So that the number of a flush tells which one it is.
	s.cfg.Timing.NumberGap = 0
	if sc.config != nil {
		sc.config(&s.cfg)
	}
	if sc.before != nil {
		sc.before(s)
	}
	s.cfg.View = s.view.Clone()
	core, err := New(s.cfg, s.now)
	if err != nil {
		t.Fatal(err)
	}
	s.core = core
	s.collect()
	t.Cleanup(s.finish)
	return s
}

// beginServing makes a core and attaches it. Absent replicas are silent until the
// test wakes them.
func beginServing(t testing.TB, sc scene) *script {
	t.Helper()
	s := beginAttach(t, sc)
	for _, n := range strings.Fields(sc.absent) {
		s.silent |= bit(s.index(n))
	}
	s.settle()
	if s.core.phase != serving {
		t.Fatalf("the core does not serve:\n%s", strings.Join(s.lines, "\n"))
	}
	s.lines = nil
	return s
}

func name(i int) string { return string(rune('A' + i)) }

func (s *script) index(n string) int { return int(n[0] - 'A') }

func (s *script) replica(n string) *replica { return s.replicas[s.index(n)] }

// finish ends the core and looks whether every buffer was given back.
func (s *script) finish() {
	if s.t.Failed() {
		return
	}
	s.step(Event{Kind: EventAbort})
	if !s.stopped {
		s.t.Error("an abort did not stop the core")
	}
	for i := range s.waiting {
		for _, req := range slices.Concat(s.waiting[i], s.old[i]) {
			req.Buf.Release()
		}
	}
	if n := s.buffers.held(); n != 0 {
		s.t.Errorf("%d buffers were not given back", n)
	}
}

func (s *script) step(ev Event) {
	s.t.Helper()
	ev.Now = s.now
	s.core.Step(ev)
	s.collect()
}

// collect carries effects out as far as a script does that by itself.
func (s *script) collect() {
	s.t.Helper()
	effects := slices.Clone(s.core.Effects())
	for i := range effects {
		if s.stopped {
			s.t.Errorf("effect after the end: %+v", effects[i])
		}
		s.take(&effects[i])
	}
	for i := range s.waiting {
		s.answerPings(i)
	}
}

func (s *script) take(e *Effect) {
	s.t.Helper()
	i := int(e.Replica.ID[0]) - 1
	switch e.Kind {
	case EffectConnect:
		s.retire(i)
		s.waiting[i] = append(s.waiting[i], e.Request)
	case EffectDisconnect:
		s.retire(i)
	case EffectSend:
		if e.Request.Session != s.core.peers[i].session {
			s.t.Errorf("%s: request for session %d, which is not the last", name(i), e.Request.Session)
		}
		s.waiting[i] = append(s.waiting[i], e.Request)
		if e.Request.Op == block.OpPing && !s.showPings {
			return
		}
	case EffectPropose:
		s.proposals = append(s.proposals, e.Proposal)
	case EffectStopped:
		s.stopped = true
	}
	if line := describe(e); line != "" {
		s.lines = append(s.lines, line)
	}
	if e.Kind == EffectComplete {
		e.Buf.Release()
	}
}

// retire keeps what an ended link had in flight, for late replies.
func (s *script) retire(i int) {
	s.old[i] = append(s.old[i], s.waiting[i]...)
	s.waiting[i] = nil
}

func (s *script) answerPings(i int) {
	for k := 0; !s.showPings && !s.silent.has(i) && k < len(s.waiting[i]); k++ {
		if s.waiting[i][k].Op == block.OpPing {
			s.reply(i, k)
			return // what the reply caused was collected, pings included
		}
	}
}

// reply lets a replica answer the request at position k of those it has.
func (s *script) reply(i, k int) {
	s.t.Helper()
	req := s.waiting[i][k]
	s.waiting[i] = slices.Delete(s.waiting[i], k, k+1)
	s.step(Event{Kind: EventReply, Replica: s.replicas[i].id, Reply: s.replicas[i].handle(&req)})
}

// answer lets each of the replicas, named as "A B", answer its oldest request.
func (s *script) answer(names string) {
	s.t.Helper()
	for _, n := range strings.Fields(names) {
		if i := s.index(n); len(s.waiting[i]) == 0 {
			s.t.Fatalf("%s has nothing to answer", n)
		} else {
			s.reply(i, 0)
		}
	}
}

// refuse lets a replica answer its oldest request with an error.
func (s *script) refuse(n string, err error) {
	s.t.Helper()
	i := s.index(n)
	if len(s.waiting[i]) == 0 {
		s.t.Fatalf("%s has nothing to refuse", n)
	}
	req := s.waiting[i][0]
	s.waiting[i] = s.waiting[i][1:]
	req.Buf.Release()
	s.step(Event{Kind: EventReply, Replica: s.replicas[i].id, Reply: block.Reply{
		Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Err: err,
	}})
}

// lose ends the link of a replica.
func (s *script) lose(n string) {
	s.t.Helper()
	i := s.index(n)
	s.retire(i)
	s.step(Event{Kind: EventLost, Replica: s.replicas[i].id, Session: s.core.peers[i].session, Err: block.ErrUnavailable})
}

// outcome answers the oldest proposal that was handed in.
func (s *script) outcome(v block.Verdict) {
	s.t.Helper()
	p := s.proposal()
	s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: v, View: s.view.Clone()})
}

func (s *script) proposal() block.Proposal {
	s.t.Helper()
	if len(s.proposals) == 0 {
		s.t.Fatal("nothing was proposed")
	}
	p := s.proposals[0]
	s.proposals = s.proposals[1:]
	return p
}

// land commits the oldest proposal without telling the core.
func (s *script) land() block.Proposal {
	s.t.Helper()
	p := s.proposal()
	if !commit(&s.view, &p) {
		s.t.Fatalf("proposal %+v conflicts with revision %d", p, s.view.Revision)
	}
	return p
}

// commit commits the oldest proposal and tells the core.
func (s *script) commit() {
	s.t.Helper()
	p := s.land()
	s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: block.Committed, View: s.view.Clone()})
}

// commit is what Raft does with a proposal; it reports whether it landed.
func commit(v *block.View, p *block.Proposal) bool {
	if p.Epoch != v.Epoch || p.Revision != v.Revision {
		return false
	}
	v.Revision++
	*v = v.Clone()
	for _, id := range p.Remove {
		m := v.Member(id)
		m.InSync, m.Removed = false, v.Revision
		v.NotWaitedOut = true
	}
	for _, id := range p.Admit {
		m := v.Member(id)
		m.InSync, m.Removed = true, 0
	}
	for _, in := range p.Incarnations {
		v.Member(in.Replica).Incarnation = in.Incarnation
	}
	if p.WaitedOut {
		v.NotWaitedOut = false
	}
	if p.Snapshot != nil {
		v.Snapshots = append(v.Snapshots, *p.Snapshot)
	}
	v.Size = max(v.Size, p.Size)
	if p.EndAttachment {
		v.Attachment, v.Start = block.AttachmentID{}, block.StartID{}
	}
	return true
}

// pass lets time go by, with a tick at each deadline of the core.
func (s *script) pass(d time.Duration) {
	s.t.Helper()
	end := s.now + block.Instant(d)
	for n := 0; s.core.Deadline() <= end; n++ {
		if n > 100_000 {
			s.t.Fatal("deadlines without end")
		}
		s.now = max(s.now, s.core.Deadline())
		s.step(Event{Kind: EventTick})
	}
	s.now = end
	s.step(Event{Kind: EventTick})
}

// add puts one more replica into the view, as one that has never been in sync.
func (s *script) add() {
	s.t.Helper()
	i := len(s.replicas)
	s.replicas = append(s.replicas, newReplica(i, s.view.Size, &s.buffers))
	s.waiting, s.old = append(s.waiting, nil), append(s.old, nil)
	s.view = s.view.Clone()
	s.view.Revision++
	s.view.Replicas = append(s.view.Replicas, block.Member{ID: replicaID(i), Node: nodeID(i)})
	s.step(Event{Kind: EventView, View: s.view.Clone()})
}

// await lets time go by until an effect begins like this.
func (s *script) await(prefix string, limit time.Duration) {
	s.t.Helper()
	for end := s.now + block.Instant(limit); ; {
		for _, line := range s.lines {
			if strings.HasPrefix(line, prefix) {
				return
			}
		}
		if s.now = max(s.now, s.core.Deadline()); s.now > end {
			s.t.Fatalf("no %q within %v:\n\t%s", prefix, limit, strings.Join(s.lines, "\n\t"))
		}
		s.step(Event{Kind: EventTick})
	}
}

// settle answers everything and commits everything until nothing is left.
func (s *script) settle() {
	s.t.Helper()
	for n := 0; s.settleOnce(); n++ {
		if n > 100_000 {
			s.t.Fatal("the core does not come to rest")
		}
	}
}

func (s *script) settleOnce() bool {
	s.t.Helper()
	for i := range s.waiting {
		if len(s.waiting[i]) > 0 && !s.silent.has(i) {
			s.reply(i, 0)
			return true
		}
	}
	if len(s.proposals) > 0 {
		s.commit()
		return true
	}
	return false
}

// wake lets a silent replica answer again.
func (s *script) wake(n string) {
	s.t.Helper()
	s.silent &^= bit(s.index(n))
	s.answerPings(s.index(n))
}

// expect compares the effects since the last look with what should be there.
func (s *script) expect(want ...string) {
	s.t.Helper()
	got := s.lines
	s.lines = nil
	if !slices.Equal(got, want) {
		s.t.Fatalf("effects:\n\t%s\nexpected:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// expectAmong looks for lines in this order, whatever else there is.
func (s *script) expectAmong(want ...string) {
	s.t.Helper()
	got := s.lines
	s.lines = nil
	rest := want
	for _, line := range got {
		if len(rest) > 0 && line == rest[0] {
			rest = rest[1:]
		}
	}
	if len(rest) > 0 {
		s.t.Fatalf("effects:\n\t%s\nmissing, in this order:\n\t%s", strings.Join(got, "\n\t"), strings.Join(rest, "\n\t"))
	}
}

// expectNone looks that no line begins like this, and drops all lines.
func (s *script) expectNone(prefix string) {
	s.t.Helper()
	for _, line := range s.lines {
		if strings.HasPrefix(line, prefix) {
			s.t.Fatalf("unexpected effect: %s", line)
		}
	}
	s.lines = nil
}

// drop forgets the effects up to now.
func (s *script) drop() { s.lines = nil }

// The requests of a client. Content is one letter, for every byte.

func (s *script) request(q Request) {
	s.t.Helper()
	s.step(Event{Kind: EventRequest, Request: q})
}

func (s *script) letter(letter byte, length int64) *block.Buffer {
	b := s.buffers.take(int(length))
	for i := range b.Data {
		b.Data[i] = letter
	}
	return b
}

func (s *script) write(tag uint64, letter byte, offset, length int64) {
	s.t.Helper()
	s.request(Request{Tag: tag, Kind: WriteRequest, Offset: offset, Length: length, Buf: s.letter(letter, length)})
}

func (s *script) read(tag uint64, offset, length int64) {
	s.t.Helper()
	s.request(Request{Tag: tag, Kind: ReadRequest, Offset: offset, Length: length})
}

func (s *script) zero(tag uint64, offset, length int64) {
	s.t.Helper()
	s.request(Request{Tag: tag, Kind: ZeroRequest, Offset: offset, Length: length})
}

func (s *script) flush(tag uint64) {
	s.t.Helper()
	s.request(Request{Tag: tag, Kind: FlushRequest})
}

// content is what a replica holds at an offset, as describe shows it.
func (s *script) content(n string, offset, length int64) string {
	data := make([]byte, length)
	s.replica(n).copyOut(block.Span{Offset: offset, Length: length}, data)
	return letters(data)
}

// plant puts one letter into a replica, as an earlier engine may have.
func (r *replica) plant(letter byte, offset, length int64) {
	r.write(block.Span{Offset: offset, Length: length}, []byte(strings.Repeat(string(letter), int(length))))
	clear(r.undo)
	clear(r.fresh)
}
