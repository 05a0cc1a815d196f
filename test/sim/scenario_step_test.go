package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// afterMessages does something once so many messages have passed the doors of the
// volume's replicas, requests and replies alike.
func (s *scene) afterMessages(n int, do func()) {
	count := func(c *conn) {
		if n--; n == 0 && c.engine.volume == s.v {
			s.loop.after(nil, 0, do)
		}
	}
	s.options.Plant.request = func(c *conn, _ *block.Request) bool { count(c); return true }
	s.options.Plant.reply = func(c *conn, _ *block.Reply) bool { count(c); return true }
}

// repairFlipPoints and readInflightPoints are how many messages the two attacks
// take, at each of which something dies.
const (
	repairFlipPoints   = 24
	readInflightPoints = 20
)

// repairFlip: a write is on A alone when the engine dies. Whatever the next read
// returns stays, although A, from which it was read or repaired, dies after any
// message, and although the engine moves.
func repairFlip(s *scene) {
	s.write(0, block.BlockSize)
	s.flush()
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	s.cut(3, 1, true)
	s.cut(3, 2, true)
	s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(20 * millisecond)
	s.killEngine(3)
	s.cut(3, 1, false)
	s.cut(3, 2, false)
	s.wait(500 * millisecond)
	s.until("another engine", func() bool { c := s.v.current; return c != nil && !c.stopped && c.serving })
	died := false
	s.afterMessages(1+s.point, func() {
		died = true
		s.kill(0)
	})
	got := s.read(0)
	s.until("the death of the source", func() bool { return died })
	s.want(s.read(0), got)
	s.killEngine(2)
	s.wait(500 * millisecond)
	s.serving()
	s.want(s.read(0), got)
	s.restart(0)
	s.rest()
	s.want(s.read(0), got)
}

// readInflight: reads overlap a write in flight, and the engine or one of the
// replicas dies after any message. The history of the clients is judged.
func readInflight(s *scene) {
	s.write(0, 2*block.BlockSize)
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	victim := s.point % 4
	died := false
	s.afterMessages(1+s.point/4, func() {
		died = true
		if victim == 3 {
			s.killEngine(3)
		} else {
			s.kill(victim)
		}
	})
	first := s.v.current.client
	for i := range int64(3) {
		first.send(core.Request{Kind: core.ReadRequest, Length: 2 * block.BlockSize})
		first.send(core.Request{Kind: core.WriteRequest, Offset: i * block.SectorSize, Length: block.BlockSize})
	}
	first.send(core.Request{Kind: core.ReadRequest, Length: 2 * block.BlockSize})
	s.until("a death", func() bool { return died })
	s.wait(200 * millisecond)
	s.serving()
	s.read(0)
	if victim < 3 {
		s.restart(victim)
	}
	s.rest()
	s.read(block.BlockSize)
}
