package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestFlushCoversWhatWasAcknowledgedBeforeItBegan(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.flush(1)
	s.expect("A: flush 1", "B: flush 1")
	s.write(2, 'w', 0, 4*kib)
	s.drop()
	s.flush(3) // waits for the next, which begins after the write
	s.expect()
	s.reply(0, 1)
	s.reply(1, 1)
	s.expect("done 2")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expect("done 1", "A: flush 2", "B: flush 2")
	s.flush(4)
	s.answer("A B")
	s.expect("done 3", "A: flush 3", "B: flush 3")
	s.answer("A B")
	s.expect("done 4")
}

func TestFlushOutlivesTheRemovalOfAMember(t *testing.T) {
	s := beginServing(t, scene{members: "A B C"})
	s.flush(1)
	s.answer("A B")
	s.lose("C")
	s.expectNone("done")
	s.commit()
	s.expectNone("done")
	s.answer("A")
	s.expectNone("done")
	s.answer("B")
	s.expectAmong("done 1")
}

// Members keep the highest number that each replica confirmed (rule 10).
func TestFlushTellsWhatOthersConfirmed(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	for tag := range uint64(2) {
		s.flush(tag)
		s.settle()
	}
	s.expectAmong("done 1")
	want := s.replica("B").flush
	want.N--
	if got := s.replica("A").confirmed[replicaID(1)]; got != want {
		t.Errorf("A knows of B's flush %+v, want %+v", got, want)
	}
}

// TestFlushNumbers are new at the first flush of a while, after a write that took a
// region into a log, also while it is under way, and when the core wants the flush for
// itself. Flushes are told apart all the same.
func TestFlushNumbers(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(cfg *Config) { cfg.Timing.NumberGap = second }})
	tag := uint64(100)
	behind := 0
	flush := func(want string) {
		t.Helper()
		s.drop()
		tag++
		s.flush(tag)
		s.expect("A: flush "+want, "B: flush "+want)
		s.reply(0, behind)
		s.reply(1, behind)
		s.expect(fmt.Sprintf("done %d", tag))
	}
	flush("1")
	flush("1")
	s.write(1, 'w', 0, 4*kib)
	behind = 1
	flush("2") // the write may have entered one log and be about to enter the other
	behind = 0
	s.answer("A B")
	flush("3")
	s.write(2, 'x', 4*kib, 4*kib)
	s.answer("A B")
	flush("3") // the region was there
	s.pass(time.Second)
	s.settle()
	flush("4")
	flush("4")
	s.core.flush.wanted = true
	flush("5")
}

// TestFlushGathers: clients that flush again and again share a flush, for which the first
// of them wait no longer than the last one took.
func TestFlushGathers(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.flush(1)
	s.expect("A: flush 1")
	s.flush(2)
	s.now += block.Instant(millisecond)
	s.answer("A")
	s.expect("done 1") // and the second waits for the first one
	s.flush(3)
	s.expect("A: flush 2")
	s.now += block.Instant(millisecond)
	s.answer("A")
	s.expect("done 3", "done 2")
	s.flush(4)
	s.expect() // there were two
	s.pass(time.Millisecond)
	s.expect("A: flush 3")
	s.answer("A")
	s.expect("done 4")
	s.flush(5)
	s.expect("A: flush 4") // there was one
}

// A region that is in one log already may be new to another.
func TestFlushNumberOfARegionNewToOneLog(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(cfg *Config) { cfg.Timing.NumberGap = second }})
	for tag := range uint64(2) {
		s.core.peers[1].log.Remove(0) // as if it had just been admitted
		before := s.replica("B").flush
		s.write(2*tag, 'w', 0, 4*kib)
		s.settle()
		s.flush(2*tag + 1)
		s.settle()
		if got := s.replica("B").flush; !before.Less(got) {
			t.Errorf("B holds flush %+v as before the region entered its log", got)
		}
	}
}

func TestFlushOfALoneMemberThatIsOpenedAgain(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.flush(1)
	s.lose("A")
	s.expectNone("done")
	s.pass(500 * time.Millisecond)
	s.settle()
	s.expectAmong("A: open session 2", "A: flush 1", "done 1")
}

// A flush joins the need of a target that begins to count while it runs.
func TestFlushIsSentToATargetThatBeginsToCount(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B"})
	s.wake("B")
	s.pass(500 * time.Millisecond)
	s.settle()
	s.expectAmong("resync B 64M", "admitted B, 0 copied")
}
