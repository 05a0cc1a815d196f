package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// sameEpoch: W1 is stuck in session 1, in the network or in the disk. The next
// session of the same epoch repeats W1 and then writes W2; then session 1 is
// released. (Between a kernel and its sockets this is a test of
// engine/frontend/socket.)
func sameEpoch(s *scene) {
	s.v.target = s.nodes[3]
	s.wait(500 * millisecond)
	s.serving()
	// A lone member is opened again, and not removed.
	s.kill(1)
	s.kill(2)
	s.inSync(0)
	stuckInNetwork(s)
	stuckInDisk(s)
	s.restart(1, 2)
	s.rest()
}

func stuckInNetwork(s *scene) {
	var release func()
	s.options.Plant.request = func(c *conn, req *block.Request) bool {
		if release != nil || req.Op != block.OpWrite {
			return true
		}
		held := *req
		held.Buf.Retain()
		release = func() { c.accept.Handle(held, nil) }
		// The far end does not learn that the connection ends.
		c.halfOpen = true
		return false
	}
	w1 := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.until("a write that is stuck", func() bool { return release != nil })
	s.breakLinks(0)
	s.end(w1)
	w2 := s.write(0, block.BlockSize)
	refused := s.paths.counts["door: stale session"]
	release()
	s.wait(20 * millisecond)
	if s.paths.counts["door: stale session"] == refused {
		s.t.Fatal("what session 1 had sent was not refused")
	}
	s.want(s.read(0), value(w2.id))
	s.options.Plant.request = nil
}

func stuckInDisk(s *scene) {
	const slow = 2000 // 40 to 800 ms an operation
	s.nodes[0].storage.drive.slow = slow
	w1 := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(5 * millisecond)
	s.breakLinks(0)
	s.nodes[0].storage.drive.slow = 0
	s.end(w1)
	w2 := s.write(0, block.BlockSize)
	s.wait(2 * second)
	s.want(s.read(0), value(w2.id))
}

// subBlock: writes of 512 bytes to one block at once, on replicas that are slow in
// different ways.
func subBlock(s *scene) {
	s.nodes[1].storage.drive.slow = 20
	s.nodes[2].storage.drive.slow = 5
	s.network.slow[[2]int{0, 2}] = 20 * millisecond
	var ops []*operation
	for i := range int64(block.BlockSize / block.SectorSize) {
		ops = append(ops, s.begin(core.WriteRequest, i*block.SectorSize, block.SectorSize))
	}
	for i, op := range ops {
		s.end(op)
		s.want(s.read(int64(i)*block.SectorSize), value(op.id))
	}
	s.rest()
}

// retryStorm: I/O is frozen for long, and a client that sends every request again
// every two seconds fills what the engine takes. After the release each write is
// there, none comes back over a later one, and the engine held no more than its
// limit. (That a request of an older socket is over before the kernel's next socket
// is served is a test of engine/frontend/socket.)
func retryStorm(s *scene) {
	s.truth.quorum = false
	s.kill(1)
	var last []*operation
	frozen := s.v.current
	limit := s.options.Limits.Requests
	for range 15 {
		last = last[:0]
		for i := range int64(4) {
			if len(frozen.client.order) < limit {
				last = append(last, s.begin(core.WriteRequest, i*block.BlockSize, block.BlockSize))
			}
		}
		s.wait(2 * second)
		if n := frozen.core.Status().InFlight; n > limit {
			s.t.Fatalf("%d requests are held", n)
		}
	}
	s.truth.restore()
	for _, op := range append([]*operation(nil), frozen.client.order...) {
		s.end(op)
	}
	for _, op := range last {
		s.want(s.read(op.offset), value(op.id))
	}
	s.restart(1)
	s.rest()
}
