package sim

import (
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// scene is a world whose events a test scripts. Replica A is on node 0, B on
// node 1, C on node 2; node 3 has no disk. The volume is attached on node 0.
type scene struct {
	*World
	t *testing.T
	v *volume
	// point is where the blow falls, in scenarios that are played for several.
	point int
}

// patience bounds each wait of a scene, in virtual nanoseconds.
const patience = 30 * second

func newScene(t *testing.T, seed uint64) *scene {
	t.Helper()
	return newSceneOn(t, seed, DefaultShape())
}

// newSceneOn is newScene with a cluster of another size, which has three disks or more.
func newSceneOn(t *testing.T, seed uint64, shape Shape) *scene {
	t.Helper()
	o := SeedOptions(seed, 0)
	o.Shape = shape
	o.Faults, o.RaftFaults, o.Scripted, o.Plant = nil, false, true, &plant{}
	o.Replaced = shape.Disks > 3
	w, err := NewWorld(o)
	if err != nil {
		t.Fatal(err)
	}
	// What arrives of an ended connection is for the script to say.
	w.network.lingers = 0
	s := &scene{World: w, t: t, v: w.volumes[0]}
	t.Cleanup(w.close)
	s.serving()
	return s
}

// until steps until the condition holds.
func (s *scene) until(what string, done func() bool) {
	s.t.Helper()
	deadline := s.loop.now + block.Instant(patience)
	s.advance(func() bool { return done() || s.loop.now > deadline })
	if s.violation == nil && !done() {
		s.fail("progress", "the scene waited in vain for "+what)
	}
	s.check()
}

// check ends the test at a violation.
func (s *scene) check() {
	s.t.Helper()
	if s.violation != nil {
		for _, line := range s.loop.trace.last(160) {
			s.t.Log(line)
		}
		s.t.Fatal(s.violation)
	}
}

func (s *scene) wait(d int64) {
	s.t.Helper()
	end := s.loop.now + block.Instant(d)
	s.advance(func() bool { return s.loop.now >= end })
	s.check()
}

// serving waits for the engine of the highest epoch, on the target node.
func (s *scene) serving() {
	s.t.Helper()
	s.until("an engine that serves", func() bool {
		c := s.v.current
		return c != nil && !c.stopped && c.serving && c.node == s.v.target
	})
}

// inSync waits until exactly these nodes' replicas are in sync.
func (s *scene) inSync(nodes ...int) {
	s.t.Helper()
	s.until("an in-sync set", func() bool {
		view := s.truth.view(s.v.id)
		n := 0
		for _, i := range nodes {
			if m := view.Member(s.v.replicas[i]); m.InSync {
				n++
			}
		}
		return n == len(nodes) && view.InSync() == n
	})
}

func (s *scene) begin(kind core.RequestKind, offset, length int64) *operation {
	return s.v.current.client.send(core.Request{Kind: kind, Offset: offset, Length: length})
}

func (s *scene) end(op *operation) *operation {
	s.t.Helper()
	s.until(op.String(), func() bool { return op.outcome != pending })
	return op
}

func (s *scene) write(offset, length int64) *operation {
	s.t.Helper()
	return s.end(s.begin(core.WriteRequest, offset, length))
}

func (s *scene) writeDurably(offset, length int64) *operation {
	s.t.Helper()
	return s.end(s.v.current.client.send(core.Request{Kind: core.WriteRequest, ForceUnitAccess: true, Offset: offset, Length: length}))
}

func (s *scene) read(offset int64) value {
	s.t.Helper()
	op := s.end(s.begin(core.ReadRequest, offset, block.SectorSize))
	if op.outcome != succeeded {
		s.t.Fatalf("%v did not succeed", op)
	}
	return op.read[0]
}

func (s *scene) flush() *operation {
	s.t.Helper()
	return s.end(s.begin(core.FlushRequest, 0, 0))
}

func (s *scene) kill(i int)  { s.nodes[i].kill(false, loseNothing) }
func (s *scene) power(i int) { s.nodes[i].kill(true, loseAll) }

func (s *scene) restart(nodes ...int) {
	for _, i := range nodes {
		s.nodes[i].restart()
	}
}

// cut stops what goes from one node to another, or heals it.
func (s *scene) cut(from, to int, on bool) {
	if on {
		s.network.cut[[2]int{from, to}] = true
	} else {
		delete(s.network.cut, [2]int{from, to})
	}
}

// cutOff stops what other nodes send to a node.
func (s *scene) cutOff(to int) {
	for from := range s.nodes {
		if from != to {
			s.cut(from, to, true)
		}
	}
}

// drift makes a node's clock run wrong from now on, by parts of a million.
func (s *scene) drift(node int, parts int64) {
	c := &s.nodes[node].clock
	c.start, c.since, c.lost, c.drift = c.read(s.loop.now), s.loop.now, 0, parts
}

// breakLinks ends the connections to a node.
func (s *scene) breakLinks(to int) {
	for _, c := range append([]*conn(nil), s.network.conns...) {
		if c.to.index == to {
			c.breakOff(block.ErrUnavailable)
		}
	}
}

// rot flips a bit of a sector of the volume on a node's disk.
func (s *scene) rot(node int, sector uint64) {
	s.t.Helper()
	d := s.nodes[node].storage
	for at := int64(dataStart); at < d.device.Size(); at += block.SectorSize {
		if d.rot.flip(d.device, at, func(x spot) bool { return x.volume == s.v && x.sector == sector }) {
			return
		}
	}
	s.t.Fatalf("sector %d was not found", sector)
}

// killEngine ends the engine alone; another one is started on the target.
func (s *scene) killEngine(target int) {
	h := s.v.current
	s.loop.log("kill %v", h)
	h.die()
	s.drop(h)
	s.v.target = s.nodes[target]
}

// rest heals everything, waits until all is admitted, and compares.
func (s *scene) rest() {
	s.t.Helper()
	s.heal()
	s.settle()
	s.check()
	s.compare()
	s.check()
}

func (s *scene) want(got, want value) {
	s.t.Helper()
	if got != want {
		s.t.Fatalf("read value %d, want %d", got, want)
	}
}
