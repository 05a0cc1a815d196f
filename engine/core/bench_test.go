package core

import (
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// bench is a serving core whose replicas answer everything at once, and cost
// nothing themselves.
type bench struct {
	core    *Core
	now     block.Instant
	replies []Event
	buf     *block.Buffer
	tag     uint64
	done    int
	// offset is where the blocks lie that are read and written.
	offset int64
	// away is a replica that does not answer. Nobody answers with hashes, so that one
	// that is not away goes on lacking everything.
	away block.ReplicaID
}

func newBench(tb testing.TB, members, snapshots int) *bench {
	tb.Helper()
	return newLargeBench(tb, 64*mib, members, 0, snapshots)
}

// newLargeBench has a volume of some size, which is used at its end, and replicas that
// are not in sync.
func newLargeBench(tb testing.TB, size int64, members, absent, snapshots int) *bench {
	tb.Helper()
	b := &bench{now: hour, buf: block.NewBuffer(4096), offset: size - 1024*4096}
	cfg := Config{
		Node: nodeID(0), MinInSync: 1, Timing: Timing{}.Default(), Limits: Limits{}.Default(),
		View: block.View{Start: block.StartID{ID: block.ID{1}}, Epoch: 5, Revision: 20, Size: size},
	}
	for i := range members {
		cfg.View.Replicas = append(cfg.View.Replicas, block.Member{ID: replicaID(i), Node: nodeID(i), InSync: true})
	}
	for i := members; i < members+absent; i++ {
		cfg.View.Replicas = append(cfg.View.Replicas, block.Member{ID: replicaID(i), Node: nodeID(i), Removed: 10})
	}
	for n := range snapshots {
		cfg.View.Snapshots = append(cfg.View.Snapshots, block.Snapshot{ID: snapshotID(byte(n)), Size: cfg.View.Size})
	}
	core, err := New(cfg, b.now)
	if err != nil {
		tb.Fatal(err)
	}
	b.core = core
	b.settle()
	if core.phase != serving {
		tb.Fatal("the core does not serve")
	}
	return b
}

// run takes one request from its arrival to its completion.
func (b *bench) run(kind RequestKind) {
	q := Request{Tag: b.tag, Kind: kind}
	if kind != FlushRequest {
		q.Offset, q.Length = b.offset+int64(b.tag%1024)*4096, 4096
	}
	if kind == WriteRequest {
		q.Buf = b.buf.Retain()
	}
	b.tag++
	b.now += 1000 // a microsecond each, so that pings are part of it
	b.core.Step(Event{Kind: EventRequest, Now: b.now, Request: q})
	b.settle()
}

func (b *bench) settle() {
	b.collect()
	b.drain()
}

// drain answers until nothing is left to answer.
func (b *bench) drain() {
	for n := len(b.replies); n > 0; n = len(b.replies) {
		ev := b.replies[n-1]
		b.replies = b.replies[:n-1]
		b.core.Step(ev)
		b.collect()
	}
}

func (b *bench) collect() {
	effects := b.core.Effects()
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case EffectConnect, EffectSend:
			if e.Replica != b.away && e.Request.Op != block.OpHash {
				b.replies = append(b.replies, b.reply(e))
			}
		case EffectPropose:
			b.replies = append(b.replies, b.committed(&e.Proposal))
		case EffectComplete:
			e.Buf.Release()
			b.done++
		}
	}
}

func (b *bench) reply(e *Effect) Event {
	r := &e.Request
	rep := block.Reply{Op: r.Op, Epoch: r.Epoch, Session: r.Session, Seq: r.Seq, Free: 1 << 40}
	switch r.Op {
	case block.OpOpen:
		rep.Opened = &block.Opened{Size: b.core.view.Size}
		for _, s := range b.core.view.Snapshots {
			rep.Opened.Cuts = append(rep.Opened.Cuts, block.Cut{Snapshot: s.ID, Valid: true})
		}
	case block.OpRead:
		rep.Buf = b.buf.Retain()
	case block.OpWrite:
		r.Buf.Release()
	}
	return Event{Kind: EventReply, Now: b.now, Replica: e.Replica, Reply: rep}
}

// committed is the outcome of a proposal.
func (b *bench) committed(p *block.Proposal) Event {
	v := b.core.view.Clone()
	v.Revision++
	if p.Snapshot != nil {
		v.Snapshots = append(v.Snapshots, *p.Snapshot)
	}
	return Event{Kind: EventOutcome, Now: b.now, Proposal: *p, Verdict: block.Committed, View: v}
}

func benchmark(b *testing.B, kind RequestKind) {
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprintf("replicas=%d", members), func(b *testing.B) {
			s := newBench(b, members, 0)
			for range 2048 {
				s.run(kind)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.run(kind)
			}
		})
	}
}

func BenchmarkWrite4K(b *testing.B) { benchmark(b, WriteRequest) }
func BenchmarkRead4K(b *testing.B)  { benchmark(b, ReadRequest) }
func BenchmarkFlush(b *testing.B)   { benchmark(b, FlushRequest) }

// BenchmarkWrite4KAtDepth keeps many writes in flight: what the scans over slots
// and locks cost.
func BenchmarkWrite4KAtDepth(b *testing.B) {
	for _, depth := range []int{32, 256} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			s := newBench(b, 3, 0)
			burst := func() {
				for range depth {
					s.now += 1000
					s.core.Step(Event{Kind: EventRequest, Now: s.now, Request: Request{
						Tag: s.tag, Kind: WriteRequest, Offset: int64(s.tag%1024) * 4096, Length: 4096, Buf: s.buf.Retain(),
					}})
					s.tag++
					s.collect()
				}
				s.drain()
			}
			burst()
			b.ReportAllocs()
			for b.Loop() {
				burst()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*depth), "ns/write")
		})
	}
}
