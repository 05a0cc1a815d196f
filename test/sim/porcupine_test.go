package sim

import (
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// second is what porcupine says of the one sector of a script.
func (s *script) second() porcupine.CheckResult { return s.sectors[0].past.judge(0) }

func (s *script) expectBoth(t *testing.T, legal bool) {
	t.Helper()
	checker, want := "linearizable", porcupine.Illegal
	if legal {
		checker, want = "", porcupine.Ok
	}
	s.expect(t, checker)
	if got := s.second(); got != want {
		t.Fatalf("porcupine says %s, want %s", got, want)
	}
}

func TestBothJudgesFindAStaleRead(t *testing.T) {
	s := newScript()
	a := s.do(core.WriteRequest, 1)
	s.do(core.WriteRequest, 1)
	s.expectBoth(t, true)
	s.do(core.ReadRequest, 1, value(a.id))
	s.expectBoth(t, false)
}

func TestBothJudgesKnowWhenAnEngineEnds(t *testing.T) {
	s := newScript()
	a := s.begin(core.WriteRequest, 1)
	s.finish(a, unsettled)
	s.do(core.ReadRequest, 1, 0)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, value(a.id))
	s.expectBoth(t, true)

	s = newScript()
	a = s.begin(core.WriteRequest, 1)
	s.finish(a, unsettled)
	s.serve(2, 100)
	s.do(core.ReadRequest, 2, 0)
	s.do(core.ReadRequest, 2, value(a.id))
	s.expectBoth(t, false)
}

func TestBothJudgesKnowLoss(t *testing.T) {
	s := newScript()
	a := s.do(core.WriteRequest, 1)
	s.do(core.FlushRequest, 1)
	b := s.do(core.WriteRequest, 1)
	s.do(core.ReadRequest, 1, value(b.id))
	s.reset(100)
	s.do(core.ReadRequest, 2, value(a.id))
	s.expectBoth(t, true)
	s.do(core.ReadRequest, 2, value(b.id))
	s.expectBoth(t, false)
}

// TestJudgesAgree shows both judges small random histories, legal and illegal ones.
func TestJudgesAgree(t *testing.T) {
	legal, illegal := 0, 0
	const histories = 6000
	for seed := range uint64(histories) {
		s := randomHistory(seed)
		want := porcupine.Ok
		if len(s.failed) > 0 {
			want = porcupine.Illegal
			illegal++
		} else {
			legal++
		}
		if got := s.second(); got != want {
			t.Fatalf("history %d: porcupine says %s, the simulator's judge %q", seed, got, s.failed)
		}
	}
	t.Logf("%d legal histories, %d illegal ones", legal, illegal)
	if min(legal, illegal) < histories/20 {
		t.Errorf("only %d legal and %d illegal histories", legal, illegal)
	}
}

// randomHistory is one of a few engines, one after the other, with clients that
// are now and then answered what they should not be.
func randomHistory(seed uint64) *script {
	rng := rand.New(rand.NewPCG(seed, 9))
	s := newScript()
	lies := rng.IntN(2) == 0
	var open []*operation
	values := []value{0}
	epoch := block.Epoch(1)
	kinds := []core.RequestKind{core.ReadRequest, core.ReadRequest, core.WriteRequest, core.WriteRequest,
		core.ZeroRequest, core.FlushRequest}
	for range 4 + rng.IntN(24) {
		switch roll := rng.IntN(20); {
		case roll < 9 && len(open) < 5:
			op := s.begin(kinds[rng.IntN(len(kinds))], epoch)
			if op.kind == core.WriteRequest {
				values = append(values, value(op.id))
			}
			open = append(open, op)
		case roll < 18 && len(open) > 0:
			i := rng.IntN(len(open))
			op := open[i]
			open = append(open[:i], open[i+1:]...)
			s.answer(rng, op, values, lies)
		case roll == 18:
			epoch++
			s.serve(epoch, s.steps)
		case roll == 19 && rng.IntN(2) == 0:
			s.reset(s.steps)
			// What was open is abandoned with its engine.
			for _, op := range open {
				s.finish(op, unsettled)
			}
			open = nil
		}
	}
	for _, op := range open {
		s.finish(op, unsettled)
	}
	if s.sectors[0] == nil {
		s.do(core.ReadRequest, epoch, 0)
	}
	return s
}

// answer ends a request: a read with something that the sector may hold, or not.
func (s *script) answer(rng *rand.Rand, op *operation, values []value, lies bool) {
	if rng.IntN(5) == 0 {
		s.finish(op, unsettled)
		return
	}
	if op.kind != core.ReadRequest {
		s.finish(op, succeeded)
		return
	}
	may := s.possible(0)
	if len(may) == 0 || lies && rng.IntN(2) == 0 {
		may = values
	}
	s.finish(op, succeeded, may[rng.IntN(len(may))])
}
