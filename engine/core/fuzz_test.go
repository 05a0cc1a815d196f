package core

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// fuzzer turns bytes into events: well-formed ones, so that a core gets
// somewhere, and some that a misled replica or a confused caller would send.
type fuzzer struct {
	t       *testing.T
	data    []byte
	core    *Core
	now     block.Instant
	view    block.View
	sent    []sentRequest
	asked   []block.Proposal
	buffers ledger
	open    int
	stopped bool
}

type sentRequest struct {
	replica block.ReplicaID
	req     block.Request
}

func (f *fuzzer) byte() int {
	if len(f.data) == 0 {
		return 0
	}
	b := f.data[0]
	f.data = f.data[1:]
	return int(b)
}

// FuzzStep feeds arbitrary events. Whatever they are, the core must neither
// panic nor lose a buffer, nor complete a request twice. Only Raft is believed:
// a view that contradicts what the core knows of its own targets is a broken
// invariant.
func FuzzStep(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 1, 7, 40, 0, 3, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 240, 7, 0, 0, 0, 0, 200, 0, 0, 0, 248, 3, 0, 0, 0, 200, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1, 0, 0, 0, 0, 50, 60, 70, 0, 0, 0, 0, 100, 100, 0, 0, 0, 0, 80, 80})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		z := &fuzzer{t: t, data: data, now: hour}
		z.run()
	})
}

func (f *fuzzer) run() {
	f.view = block.View{Epoch: 5, Revision: 20, Size: 17*mib + 512, Start: block.StartID{ID: block.ID{1}}}
	for i := range 1 + f.byte()%4 {
		m := block.Member{ID: replicaID(i), Node: nodeID(i), InSync: i == 0 || f.byte()%2 == 0}
		f.view.Replicas = append(f.view.Replicas, m)
	}
	core, err := New(Config{
		Node: nodeID(0), View: f.view, MinInSync: 1 + f.byte()%2, Timing: Timing{}.Default(),
		Limits: Limits{Requests: 4, TargetWindow: 2, Copies: 2, LogRegions: 1},
	}, f.now)
	if err != nil {
		f.t.Fatal(err)
	}
	f.core = core
	f.collect()
	for len(f.data) > 0 {
		f.event(f.byte())
	}
	f.step(Event{Kind: EventAbort})
	for _, s := range f.sent {
		s.req.Buf.Release()
	}
	if !f.stopped || f.open != 0 || f.buffers.held() != 0 {
		f.t.Fatalf("stopped %v, %d requests open, %d buffers held", f.stopped, f.open, f.buffers.held())
	}
}

func (f *fuzzer) step(ev Event) {
	ev.Now = f.now
	if ev.Kind == EventOutcome || ev.Kind == EventView {
		defer func() {
			// Raft's views are committed truth; here they are noise.
			if p := recover(); p != nil {
				if _, ok := p.(invariant.Violation); !ok {
					panic(p)
				}
				f.t.SkipNow()
			}
		}()
	}
	f.core.Step(ev)
	f.collect()
}

func (f *fuzzer) collect() {
	for _, e := range f.core.Effects() {
		if f.stopped {
			f.t.Fatalf("effect after the end: %+v", e)
		}
		switch e.Kind {
		case EffectConnect, EffectSend:
			f.sent = append(f.sent, sentRequest{e.Replica, e.Request})
		case EffectPropose:
			f.asked = append(f.asked, e.Proposal)
		case EffectComplete:
			f.open--
			e.Buf.Release()
		case EffectStopped:
			f.stopped = true
		}
	}
}

func (f *fuzzer) event(kind int) {
	switch {
	case kind < 110:
		f.reply(kind)
	case kind < 160:
		f.request(kind % 5)
	case kind < 180:
		f.now += block.Instant(f.byte()) * block.Instant(50*millisecond)
		f.step(Event{Kind: EventTick})
	case kind < 190:
		i := f.byte() % 5
		f.step(Event{Kind: EventLost, Replica: replicaID(i), Session: block.Session(f.byte() % 8), Err: block.ErrUnavailable})
	case kind < 225:
		f.outcome(kind)
	case kind < 235:
		v := f.view.Clone()
		v.Revision += block.Revision(f.byte() % 3)
		v.Epoch += block.Epoch(f.byte() % 16 / 15)
		f.step(Event{Kind: EventView, View: v})
	case kind == 235:
		f.step(Event{Kind: EventDetach})
	case kind < 241:
		var asked *Scrub
		if b := f.byte(); b > 20 {
			asked = &Scrub{From: int64(b%20-1) * mib, To: int64(f.byte()%20-1) * mib, Rate: int64(b) * mib, Covered: []block.ReplicaID{replicaID(b % 5)}}
		}
		f.step(Event{Kind: EventScrub, Scrub: asked})
	case kind < 246:
		f.step(Event{Kind: EventCut, Snapshot: block.Snapshot{ID: snapshotID(byte(f.byte()))}})
	case kind < 250:
		f.step(Event{Kind: EventGrow, Size: f.view.Size + int64(f.byte())*mib})
	default:
		f.step(Event{Kind: EventKind(f.byte() % 2 * 99)})
	}
}

// reply answers one of the requests, mostly the oldest and mostly as it should.
func (f *fuzzer) reply(kind int) {
	if len(f.sent) == 0 {
		return
	}
	k := 0
	if kind >= 80 {
		k = f.byte() % len(f.sent)
	}
	s := f.sent[k]
	f.sent = append(f.sent[:k], f.sent[k+1:]...)
	r := &s.req
	rep := block.Reply{Op: r.Op, Epoch: r.Epoch, Session: r.Session, Seq: r.Seq, Free: int64(kind % 3)}
	switch r.Op {
	case block.OpOpen:
		rep.Opened = f.opened(kind)
	case block.OpRead:
		rep.Buf = f.buffers.take(int(r.Length))
		clear(rep.Buf.Data)
	case block.OpHash:
		rep.Hashes = make([]block.ExtentHash, (r.Length+block.ExtentSize-1)/block.ExtentSize)
		rep.Hashes[f.byte()%len(rep.Hashes)] = block.ExtentHash{
			Sum: [32]byte{byte(f.byte() % 2)}, Bad: uint16(f.byte() % 2), Suspect: uint16(f.byte() % 3),
		}
	}
	if kind >= 90 {
		f.spoil(&rep)
	}
	r.Buf.Release()
	f.step(Event{Kind: EventReply, Replica: s.replica, Reply: rep})
}

// spoil makes a reply one that should not have come.
func (f *fuzzer) spoil(rep *block.Reply) {
	sentinels := block.Sentinels()
	switch f.byte() % 8 {
	case 0:
		rep.Seq += uint64(f.byte())
	case 1:
		rep.Session += block.Session(f.byte() % 2)
	case 2:
		rep.Op = block.Op(f.byte())
	case 3:
		rep.Buf.Release()
		rep.Buf = nil
	case 4:
		rep.Buf.Release()
		rep.Buf = f.buffers.take(512)
	case 5:
		rep.Hashes = nil
	default:
		rep.Err = sentinels[f.byte()%len(sentinels)]
	}
}

func (f *fuzzer) opened(kind int) *block.Opened {
	o := &block.Opened{Incarnation: block.Incarnation{DiskSequence: uint64(kind / 60)}}
	if b := f.byte(); b%4 == 0 {
		o.Log.Add(block.Region(b / 64))
	}
	if b := f.byte(); b%4 == 0 {
		o.Flush.N = uint64(b / 16)
		o.Confirmed = []block.Confirmed{{Replica: replicaID(b % 3), Flush: block.FlushNumber{N: uint64(b / 32)}}}
	}
	if b := f.byte(); b%4 == 0 {
		o.Dirty = []block.DirtySet{{Replica: replicaID(b / 4 % 4), Removal: block.Revision(b / 128), Regions: fewRegions(b / 32)}}
	}
	if b := f.byte(); b%4 == 0 {
		o.Size = f.view.Size
		for n := range b / 32 {
			o.Cuts = append(o.Cuts, block.Cut{Snapshot: snapshotID(byte(n)), Valid: b%8 == 0})
		}
	}
	if f.byte() == 1 {
		return nil
	}
	return o
}

func (f *fuzzer) request(kind int) {
	if f.stopped || f.open >= 4 {
		return
	}
	at := f.byte()
	q := Request{
		Tag: uint64(at), Kind: RequestKind(kind), ForceUnitAccess: at%7 == 0,
		Offset: int64(at) * 69 * kib, Length: int64(1+f.byte()) * block.SectorSize,
	}
	if q.Kind == WriteRequest {
		q.Buf = f.buffers.take(int(q.Length) - at/255)
	}
	f.open++
	f.step(Event{Kind: EventRequest, Request: q})
}

func (f *fuzzer) outcome(kind int) {
	if len(f.asked) == 0 {
		return
	}
	p := f.asked[0]
	f.asked = f.asked[1:]
	verdict := block.Unknown
	if kind < 215 {
		if verdict = block.Conflict; commit(&f.view, &p) {
			verdict = block.Committed
		}
	}
	f.step(Event{Kind: EventOutcome, Proposal: p, Verdict: verdict, View: f.view.Clone()})
}

// fewRegions is the set that has a bit for each of the first regions.
func fewRegions(bits int) block.Regions {
	var s block.Regions
	for r := range 8 {
		if bits>>r&1 != 0 {
			s.Add(block.Region(r))
		}
	}
	return s
}
