package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// fault is one kind of trouble.
type fault struct {
	name   string
	weight int
	// strike begins it; false if it cannot happen now.
	strike func(w *World) bool
}

// DefaultFaults are all kinds of trouble but those that destroy data.
func DefaultFaults() []fault {
	return []fault{
		{"kill node", 10, killNode},
		{"power loss", 8, powerLoss},
		{"power loss everywhere", 2, powerLossEverywhere},
		{"pause node", 6, pauseNode},
		{"clock stops", 3, clockStops},
		{"cut one way", 6, cutOneWay},
		{"cut node off", 5, cutNodeOff},
		{"split in two", 4, splitInTwo},
		{"break connection", 12, breakConnection},
		{"slow link", 5, slowLink},
		{"slow disk", 5, slowDisk},
		{"disk stalls", 5, diskStalls},
		{"disk full", 4, diskFull},
		{"disk full behind", 4, diskFullBehind},
		{"quorum lost", 4, quorumLost},
		{"leader unreachable", 5, leaderUnreachable},
		{"kill engine", 5, killEngine},
		{"abort engine", 2, abortEngine},
		{"move cleanly", 5, moveCleanly},
		{"move leaving a zombie", 6, moveZombie},
		{"idle clients", 3, idleClients},
		{"disk is there twice", 2, attachTwin},
		{"deleted replica comes up", 3, comeUp},
		{"stray command", 2, strayCommand},
		{"flood", 1, flood},
	}
}

// DestructiveFaults also damage what is on the disks.
func DestructiveFaults() []fault {
	return append(DefaultFaults(),
		fault{"bit rot", 20, bitRot},
		fault{"sync fails", 2, syncFails},
		fault{"read fails", 4, readFails},
		fault{"write fails", 2, writeFails},
		fault{"disk put back", 4, diskPutBack})
}

// haunt strikes again and again until the world is healed.
func (w *World) haunt() {
	if len(w.options.Faults) == 0 {
		return
	}
	mean := w.options.FaultInterval
	w.loop.after(nil, w.loop.between(mean/4, 2*mean), func() {
		if w.healed {
			return
		}
		w.strike()
		w.haunt()
	})
}

// tempt gives trouble a chance to come in the middle of something.
func (w *World) tempt() {
	if len(w.options.Faults) > 0 && !w.healed && w.loop.chance(w.options.Temptation) {
		w.loop.after(nil, w.loop.between(0, 2*millisecond), func() {
			if !w.healed {
				w.strike()
			}
		})
	}
}

func (w *World) strike() {
	total := 0
	for _, f := range w.options.Faults {
		total += f.weight
	}
	roll := w.loop.rng.IntN(total)
	for _, f := range w.options.Faults {
		if roll -= f.weight; roll >= 0 {
			continue
		}
		w.loop.log("fault: %s", f.name)
		if f.strike(w) {
			w.paths.count(faultPrefix + f.name)
		}
		return
	}
}

// later undoes a fault after a while, unless healing did it before.
func (w *World) later(low, high int64, undo func()) {
	high = max(high*w.options.FaultLength/100, low)
	w.loop.after(nil, w.loop.between(low, high), func() {
		if !w.healed {
			undo()
		}
	})
}

// anyNode draws a node that the predicate accepts; nil if there is none.
func (w *World) anyNode(accept func(n *node) bool) *node {
	var fit []*node
	for _, n := range w.nodes {
		if accept(n) {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[w.loop.rng.IntN(len(fit))]
}

func running(n *node) bool { return n.process != nil }

func withDisk(n *node) bool { return n.process != nil && n.storage != nil }

// anyHost draws a running engine; nil if there is none.
func (w *World) anyHost() *host {
	var all []*host
	for _, v := range w.volumes {
		all = append(all, v.hosts...)
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.loop.rng.IntN(len(all))]
}

func (w *World) takeDown(n *node, power bool, mode lossMode) {
	n.kill(power, mode)
	w.later(20*millisecond, 4*second, func() {
		if n.process == nil {
			n.restart()
		}
	})
}

func killNode(w *World) bool {
	n := w.anyNode(running)
	if n == nil {
		return false
	}
	w.takeDown(n, false, loseNothing)
	return true
}

func powerLoss(w *World) bool {
	n := w.anyNode(running)
	if n == nil {
		return false
	}
	w.takeDown(n, true, lossMode(w.loop.rng.IntN(int(lossModes))))
	return true
}

func powerLossEverywhere(w *World) bool {
	for _, n := range w.nodes {
		if n.process != nil {
			w.takeDown(n, true, lossMode(w.loop.rng.IntN(int(lossModes))))
		}
	}
	return true
}

func pauseNode(w *World) bool {
	n := w.anyNode(func(n *node) bool { return n.process != nil && !n.process.paused })
	if n == nil {
		return false
	}
	p := n.process
	p.paused = true
	w.later(20*millisecond, 4*second, func() { w.loop.resume(p) })
	return true
}

// clockStops holds a machine up together with its clock, as a hypervisor does. The
// boot clock of a machine that sleeps goes on, and leases rely on it: what it may
// lose without their noticing is what their margin is for (rule 7).
func clockStops(w *World) bool {
	n := w.anyNode(func(n *node) bool {
		return n.process != nil && !n.process.paused && w.loop.now > n.clock.stoppedAt+block.Instant(stopInterval)
	})
	if n == nil {
		return false
	}
	p, length := n.process, w.loop.between(millisecond, stopMax)
	p.paused = true
	n.clock.stop(w.loop.now, length)
	w.loop.after(nil, length, func() {
		if p.paused {
			w.loop.resume(p)
		}
	})
	return true
}

func cutOneWay(w *World) bool {
	from, to := w.anyMachine().index, w.anyMachine().index
	if from == to {
		return false
	}
	key := [2]int{from, to}
	w.network.cut[key] = true
	w.later(20*millisecond, 6*second, func() { delete(w.network.cut, key) })
	return true
}

func cutNodeOff(w *World) bool {
	n := w.anyMachine().index
	withRaft := w.loop.chance(50)
	set := func(cut bool) {
		for other := range w.nodes {
			for _, key := range [][2]int{{n, other}, {other, n}} {
				if cut {
					w.network.cut[key] = true
				} else {
					delete(w.network.cut, key)
				}
			}
		}
		if withRaft {
			w.truth.unreachable[n] = cut
		}
	}
	set(true)
	w.later(50*millisecond, 6*second, func() { set(false) })
	return true
}

// splitInTwo parts the machines, in one direction or both. The leader is on one of
// the sides.
func splitInTwo(w *World) bool {
	side := make([]bool, len(w.nodes))
	for i := range side {
		side[i] = w.loop.chance(50)
	}
	oneWay := w.loop.chance(30)
	set := func(cut bool) {
		for from := range side {
			if side[from] {
				w.truth.unreachable[from] = cut
			}
			for to := range side {
				switch {
				case side[from] == side[to] || oneWay && side[from]:
				case cut:
					w.network.cut[[2]int{from, to}] = true
				default:
					delete(w.network.cut, [2]int{from, to})
				}
			}
		}
	}
	set(true)
	w.later(50*millisecond, 5*second, func() { set(false) })
	return true
}

func breakConnection(w *World) bool {
	if len(w.network.conns) == 0 {
		return false
	}
	c := w.network.conns[w.loop.rng.IntN(len(w.network.conns))]
	c.breakOff(fmt.Errorf("connection reset: %w", block.ErrUnavailable))
	return true
}

func slowLink(w *World) bool {
	key := [2]int{w.anyMachine().index, w.anyMachine().index}
	w.network.slow[key] = w.loop.between(5*millisecond, 300*millisecond)
	w.later(50*millisecond, 4*second, func() { delete(w.network.slow, key) })
	return true
}

func quorumLost(w *World) bool {
	w.truth.quorum = false
	w.later(50*millisecond, 5*second, w.truth.restore)
	return true
}

func leaderUnreachable(w *World) bool {
	n := w.anyMachine().index
	w.truth.unreachable[n] = true
	w.later(50*millisecond, 4*second, func() { delete(w.truth.unreachable, n) })
	return true
}

func killEngine(w *World) bool {
	h := w.anyHost()
	if h == nil {
		return false
	}
	w.loop.log("kill %v", h)
	h.die()
	w.drop(h)
	return true
}

func abortEngine(w *World) bool {
	h := w.anyHost()
	if h == nil || h.process.paused {
		return false
	}
	h.step(core.Event{Kind: core.EventAbort})
	return true
}

func moveCleanly(w *World) bool {
	v := w.volumes[w.loop.rng.IntN(len(w.volumes))]
	w.move(v, w.anyMachine(), true)
	return true
}

func moveZombie(w *World) bool {
	v := w.volumes[w.loop.rng.IntN(len(w.volumes))]
	w.move(v, w.anyMachine(), false)
	return true
}

func idleClients(w *World) bool {
	for _, v := range w.volumes {
		for _, h := range v.hosts {
			h.client.quiet = true
			w.later(500*millisecond, 4*second, h.client.wake)
		}
	}
	return true
}

// heal ends every fault: nodes run, links and disks are sound, Raft answers.
func (w *World) heal() {
	w.loop.log("heal")
	w.healed = true
	clear(w.network.cut)
	clear(w.network.slow)
	clear(w.truth.unreachable)
	if !w.truth.quorum {
		w.truth.restore()
	}
	for _, n := range w.nodes {
		if n.storage != nil {
			n.storage.drive.mend()
			n.storage.full(false)
		}
		if n.process != nil && n.twinned == n.process {
			n.kill(false, loseNothing)
		}
		if n.process != nil && n.storage != nil && n.storage.store.Failed() != nil {
			// A disk that failed stays so until its machine is started anew.
			n.kill(true, loseAll)
		}
		switch {
		case n.process == nil:
			n.restart()
		case n.process.paused:
			w.loop.resume(n.process)
		}
	}
	for _, v := range w.volumes {
		for _, h := range v.hosts {
			h.client.wake()
		}
	}
}
