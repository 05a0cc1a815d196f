package robustness

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// scripted makes histories by hand: times are in milliseconds.
type scripted struct{ history }

func (s *scripted) add(client int, kind nbd.Kind, v value, from, to int, what outcome) *op {
	o := &op{
		client: client, kind: kind, span: block.Span{Length: block.BlockSize},
		from: moment(from) * moment(time.Millisecond), to: moment(to) * moment(time.Millisecond), outcome: what,
	}
	if to < 0 {
		o.to = forever
	}
	if o.mutates() {
		o.wrote = v
	} else {
		for range block.BlockSize / block.SectorSize {
			o.read = append(o.read, v)
		}
	}
	s.ops = append(s.ops, o)
	return o
}

func (s *scripted) write(v value, from, to int)  { s.add(1, nbd.KindWrite, v, from, to, acknowledged) }
func (s *scripted) read(v value, from, to int)   { s.add(2, nbd.KindRead, v, from, to, acknowledged) }
func (s *scripted) zero(from, to int)            { s.add(3, nbd.KindTrim, 0, from, to, acknowledged) }
func (s *scripted) unsure(v value, from, to int) { s.add(4, nbd.KindWrite, v, from, to, unknown) }

// histories are what the check must accept or find, each by name.
var histories = map[string]struct {
	fine bool
	make func(*scripted)
}{
	"write, read":           {true, func(s *scripted) { s.write(1, 0, 10); s.read(1, 20, 30) }},
	"read beside a write":   {true, func(s *scripted) { s.write(1, 0, 30); s.read(0, 10, 20); s.read(1, 12, 20) }},
	"never written is zero": {true, func(s *scripted) { s.read(0, 0, 10) }},
	"trimmed":               {true, func(s *scripted) { s.write(1, 0, 10); s.zero(11, 20); s.read(0, 21, 30) }},
	"unsure write seen": {true, func(s *scripted) {
		s.write(1, 0, 10)
		s.unsure(2, 20, 30)
		s.read(2, 40, 50)
		s.read(2, 60, 70)
	}},
	"unsure write never seen": {true, func(s *scripted) { s.write(1, 0, 10); s.unsure(2, 20, 30); s.read(1, 40, 50) }},
	"unsure write without an end": {true, func(s *scripted) {
		s.write(1, 0, 10)
		s.unsure(2, 20, -1)
		s.read(1, 40, 50)
		s.read(2, 60, 70)
	}},
	"unsure trim, either way": {true, func(s *scripted) {
		s.write(1, 0, 10)
		s.add(4, nbd.KindZero, 0, 20, 30, unknown)
		s.read(1, 40, 50)
	}},
	"failed write seen later": {true, func(s *scripted) {
		s.write(1, 0, 10)
		s.add(4, nbd.KindWrite, 2, 20, -1, refused)
		s.read(1, 40, 50)
		s.read(2, 60, 70)
	}},

	"lost write":     {false, func(s *scripted) { s.write(1, 0, 10); s.write(2, 20, 30); s.read(1, 40, 50) }},
	"lost to zeros":  {false, func(s *scripted) { s.write(1, 0, 10); s.read(0, 20, 30) }},
	"lost trim":      {false, func(s *scripted) { s.write(1, 0, 10); s.zero(20, 30); s.read(1, 40, 50) }},
	"stale read":     {false, func(s *scripted) { s.write(1, 0, 40); s.read(1, 5, 10); s.read(0, 15, 20) }},
	"never written":  {false, func(s *scripted) { s.write(1, 0, 10); s.read(7, 20, 30) }},
	"read too early": {false, func(s *scripted) { s.read(1, 0, 10); s.write(1, 20, 30) }},
	"write reappears": {false, func(s *scripted) {
		s.write(1, 0, 10)
		s.unsure(2, 20, 30)
		s.read(1, 40, 50)
		s.read(2, 60, 70)
	}},
	"write flips back": {false, func(s *scripted) {
		s.write(1, 0, 10)
		s.unsure(2, 20, -1)
		s.read(2, 40, 50)
		s.read(1, 60, 70)
	}},
	"trim reappears": {false, func(s *scripted) {
		s.write(1, 0, 10)
		s.add(4, nbd.KindZero, 0, 20, 30, unknown)
		s.read(1, 40, 50)
		s.read(0, 60, 70)
	}},
	"order turned round": {false, func(s *scripted) {
		s.write(1, 0, 50)
		s.write(2, 0, 50)
		s.read(1, 60, 70)
		s.read(2, 80, 90)
	}},
}

// TestCheck plants each fault that the check is there for.
func TestCheck(t *testing.T) {
	for name, h := range histories {
		t.Run(name, func(t *testing.T) {
			s := &scripted{}
			h.make(s)
			_, err := s.check()
			if h.fine && err != nil {
				t.Error(err)
			}
			if !h.fine && !errors.Is(err, errLost) {
				t.Errorf("the check answers %v", err)
			}
		})
	}
}

// TestCheckNamesTheRead: the excerpt leads to the read that cannot be explained.
func TestCheckNamesTheRead(t *testing.T) {
	s := &scripted{}
	s.write(1, 0, 10)
	s.read(1, 20, 30)
	s.write(2, 40, 50)
	s.read(1, 60, 70)
	s.read(2, 80, 90)
	s.events = []event{{at: 55 * moment(time.Millisecond), text: "the lights went out"}}
	_, err := s.check()
	if err == nil || !strings.Contains(err.Error(), "contradicted by\n    0.060000") || !strings.Contains(err.Error(), "lights") {
		t.Errorf("the check answers %v", err)
	}
}

// TestCheckPartOfARequest: each sector of a request has a history of its own.
func TestCheckPartOfARequest(t *testing.T) {
	s := &scripted{}
	s.write(1, 0, 10)
	o := s.add(2, nbd.KindRead, 1, 20, 30, acknowledged)
	o.read[5] = zeroed
	if _, err := s.check(); !errors.Is(err, errLost) || !strings.Contains(err.Error(), "sector 5") {
		t.Errorf("the check answers %v", err)
	}
}

func TestConnectedBoundsTheUnknown(t *testing.T) {
	h := newHistory()
	lost := h.begin(op{kind: nbd.KindWrite, connection: 1, span: block.Span{Length: block.BlockSize}, wrote: 1})
	failed := h.begin(op{kind: nbd.KindWrite, connection: 1, span: block.Span{Length: block.BlockSize}, wrote: 2})
	h.answer(failed, nil, errors.New("no"))
	h.connected(2)
	young := h.begin(op{kind: nbd.KindWrite, connection: 2, span: block.Span{Length: block.BlockSize}, wrote: 3})
	if lost.to == forever || failed.to != forever || young.to != forever {
		t.Errorf("ends are %d, %d, %d", lost.to, failed.to, young.to)
	}
	if h.firstRefused() != failed {
		t.Error("the failed request is not found")
	}
}

func TestPause(t *testing.T) {
	h := newHistory()
	for _, ms := range []int{1, 2, 10, 11, 40} {
		h.acks = append(h.acks, moment(ms)*moment(time.Millisecond))
	}
	ms := func(n int) moment { return moment(n) * moment(time.Millisecond) }
	for _, c := range []struct {
		from, to moment
		want     time.Duration
	}{
		{ms(0), ms(11), 29 * time.Millisecond},
		{ms(0), ms(9), 8 * time.Millisecond},
		{ms(5), ms(12), 29 * time.Millisecond},
	} {
		if got := h.pause(c.from, c.to); got != c.want {
			t.Errorf("pause of %d to %d is %v, want %v", c.from, c.to, got, c.want)
		}
	}
}
