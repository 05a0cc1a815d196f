package sim

import (
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// loggedAndWritten: B loses its power, and with it a write that nobody has flushed. What
// is written beside it meanwhile, in the same chunk, is not all that B lacks there.
func loggedAndWritten(s *scene) {
	lost := s.write(0, block.ExtentSize)
	s.power(1)
	s.inSync(0, 2)
	s.write(block.ExtentSize, block.BlockSize)
	s.restart(1)
	s.inSync(0, 1, 2)
	s.rest()
	s.want(s.read(0), value(lost.id))
}

// halfCopy: of two replicas that are back on full disks one gives up the head that it
// kept, and is opened again when it has the first part of the copy. What it has is no
// whole copy, so that beside A, the only member, the head that the other kept is the only
// one: it stays, as it was when the other left.
func halfCopy(s *scene) {
	old := leftBehind(s)
	s.nodes[1].storage.full(true)
	s.nodes[2].storage.full(true)
	spent, copies := 0, 0
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		givesUp := req.Op == block.OpUpdate && slices.Contains(req.Update.DropCuts, block.KeptHead)
		switch {
		case givesUp && spent == 0:
			spent = c.to.index
		case givesUp:
			s.fail("flushed-data", "no whole copy is left but that of the only member")
		case c.to.index == spent && req.Op == block.OpWrite:
			copies++
			return copies == 1
		}
		return true
	}
	s.restart(1, 2)
	s.until("half a copy", func() bool { return copies > 1 })
	s.kill(spent)
	s.restart(spent)
	s.wait(5 * second)
	s.inSync(0)
	data, err := s.readReplica(s.v.replicas[3-spent], block.KeptHead, old.offset, block.SectorSize)
	if err != nil {
		s.t.Fatal(err)
	}
	s.want(headerValue(data), value(old.id))
	s.options.Plant.request = nil
	s.rest()
}
