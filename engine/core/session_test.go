package core

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Rule 29: what an older session answers is never taken for an answer of the
// newer one, though the request is the same.
func TestLateRepliesOfAnOlderSessionAreIgnored(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.write(1, 'w', 0, 4*kib)
	s.lose("A")
	s.pass(500 * time.Millisecond)
	s.answer("A")
	s.expectAmong("A: open session 2", "A: write 'w' 0+4K")
	late := s.old[0][len(s.old[0])-1]
	for _, at := range []block.Session{1, 2} {
		rep := block.Reply{Op: late.Op, Epoch: late.Epoch, Session: at, Seq: late.Seq, Buf: s.buffers.take(512)}
		if at == 2 {
			rep.Epoch-- // of the session's number, but of an older engine
		}
		s.step(Event{Kind: EventReply, Replica: replicaID(0), Reply: rep})
		s.expect()
	}
	s.answer("A")
	s.expect("done 1")
}

// A reply to a request that was answered already, or that never was made.
func TestRepliesToNothingAreIgnored(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.read(1, 0, 4*kib)
	req := s.waiting[0][0]
	s.answer("A")
	s.drop()
	s.read(2, 0, 4*kib) // in the same slots
	s.drop()
	for _, seq := range []uint64{req.Seq, 0, 1<<64 - 1, req.Seq + 1<<40} {
		s.step(Event{Kind: EventReply, Replica: replicaID(0), Reply: block.Reply{
			Op: block.OpRead, Epoch: req.Epoch, Session: req.Session, Seq: seq, Buf: s.buffers.take(4096),
		}})
		s.expect()
	}
	s.step(Event{Kind: EventReply, Replica: replicaID(40), Reply: block.Reply{Buf: s.buffers.take(4096)}})
	s.step(Event{Kind: EventLost, Replica: replicaID(40), Session: 1})
	s.step(Event{Kind: EventLost, Replica: replicaID(0), Session: 99})
	s.expect()
	s.answer("A")
	s.expect("done 2 '.'")
}

// A reply must be of the kind of its request: else a misled replica's answer to
// one thing would be taken for the success of another.
func TestReplyOfAnotherKindBreaksTheProtocol(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.drop()
	req := s.waiting[1][0]
	s.step(Event{Kind: EventReply, Replica: replicaID(1), Reply: block.Reply{
		Op: block.OpRead, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Err: block.ErrChecksum,
	}})
	s.expect("B: close", "propose remove B", "frozen: unavailable")
}

func TestStaleEpochStopsTheCore(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.read(2, mib, 4*kib)
	s.drop()
	s.refuse("B", block.ErrStaleEpoch)
	s.expect("done 1: stale epoch", "done 2: stale epoch", "A: close", "B: close", "stopped: stale epoch")
	s.request(Request{Tag: 3, Kind: WriteRequest, Length: 512, Buf: s.letter('x', 512)})
	s.pass(time.Minute)
	s.expect()
}

func TestStaleEpochAtOpenStopsTheCore(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) {
		s.replica("B").fence = block.Fence{Incarnation: 1, Generation: 1, Epoch: 6, Session: 1}
	}})
	s.answer("A B")
	s.expectAmong("stopped: stale epoch")
}

func TestNewerEpochInRaftStopsTheCore(t *testing.T) {
	newer := map[string]func(*block.View){
		"epoch":       func(v *block.View) { v.Epoch++ },
		"generation":  func(v *block.View) { v.Generation++ },
		"incarnation": func(v *block.View) { v.Cluster++ },
		"start":       func(v *block.View) { v.Start.ID[9]++ },
	}
	for name, change := range newer {
		t.Run(name, func(t *testing.T) {
			s := beginServing(t, scene{members: "A B"})
			v := s.view.Clone()
			change(&v)
			s.step(Event{Kind: EventView, View: v})
			s.expectAmong("stopped: stale epoch")
		})
	}
}

// Hints about the past, or about another volume, change nothing.
func TestOlderViewsAreIgnored(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	older := s.view.Clone()
	older.Revision--
	older.Replicas[0].InSync = false
	epoch := s.view.Clone()
	epoch.Epoch--
	epoch.Revision += 5
	other := s.view.Clone()
	other.Volume.ID[7]++
	other.Epoch++
	for _, v := range []block.View{older, epoch, other, {}} {
		s.step(Event{Kind: EventView, View: v})
		s.expect()
	}
}

// Who stays away for a while is to be back at once when it returns: attempts never
// become rarer.
func TestAttemptsAtAReplicaThatStaysAway(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B"})
	var last block.Instant
	var waits []time.Duration
	for range 8 {
		s.lose("B")
		last = s.now
		for s.core.peers[1].link == linkDown {
			s.now = s.core.Deadline()
			s.step(Event{Kind: EventTick})
		}
		waits = append(waits, time.Duration(s.now-last))
	}
	if want := slices.Repeat([]time.Duration{time.Second / 2}, len(waits)); !slices.Equal(waits, want) {
		t.Fatalf("waits %v, want %v", waits, want)
	}
}

func TestOpenThatIsNeverAnswered(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B"})
	s.pass(9 * time.Second)
	s.expectAmong("B: close")
}

// What a replica says at its opening is checked: regions that the volume does
// not have would end up in updates that every honest replica refuses.
func TestOpenWithRegionsPastTheEnd(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 32 * mib})
	s.replica("B").log.Add(2)
	s.wake("B")
	s.answer("B")
	s.expect("B: close")
}
