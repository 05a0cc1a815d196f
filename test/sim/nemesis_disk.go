package sim

import (
	"math/rand/v2"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

func slowDisk(w *World) bool {
	n := w.anyNode(withDisk)
	if n == nil {
		return false
	}
	d := n.storage.drive
	d.slow = w.loop.between(5, 100)
	w.later(50*millisecond, 3*second, func() { d.slow = 0 })
	return true
}

func diskFull(w *World) bool { return w.fillDisk(w.anyNode(withDisk), 4*second) }

// diskFullBehind fills the disk of a replica that has to catch up.
func diskFullBehind(w *World) bool {
	return w.fillDisk(w.anyNode(func(n *node) bool { return withDisk(n) && w.behind(n) }), 15*second)
}

func (w *World) fillDisk(n *node, most int64) bool {
	if n == nil {
		return false
	}
	n.storage.full(true)
	w.later(100*millisecond, most, func() { n.storage.full(false) })
	return true
}

// behind reports whether a replica on the node is not in sync.
func (w *World) behind(n *node) bool {
	for _, v := range w.volumes {
		view := w.truth.view(v.id)
		for i := range view.Replicas {
			if r := &view.Replicas[i]; r.Node == n.id && !r.InSync {
				return true
			}
		}
	}
	return false
}

func bitRot(w *World) bool {
	n := w.nodes[0]
	return n.process != nil && n.storage.rot.strike(n.storage.device)
}

func syncFails(w *World) bool {
	n := w.anyNode(withDisk)
	if n == nil {
		return false
	}
	n.storage.drive.syncFails = 1
	return true
}

// diskStalls makes some operations of a disk hang for longer than anybody waits.
func diskStalls(w *World) bool {
	n := w.anyNode(withDisk)
	if n == nil {
		return false
	}
	n.storage.drive.stalls = 1 + w.loop.rng.IntN(4)
	return true
}

func readFails(w *World) bool {
	n := w.anyNode(withDisk)
	if n == nil {
		return false
	}
	n.storage.drive.readsFail = 1 + w.loop.rng.IntN(3)
	w.unreadable = true
	return true
}

func writeFails(w *World) bool {
	n := w.anyNode(withDisk)
	if n == nil {
		return false
	}
	n.storage.drive.writesFail = 1
	return true
}

// image is a disk as it once was.
type image struct {
	device    *vfs.MemDevice
	directory *pebblevfs.MemFS
	// flushes are the numbers in it, by replica.
	flushes map[block.ReplicaID]block.FlushNumber
}

// photograph kills the daemon to keep a copy of the disk, and starts it again.
func (s *storage) photograph() *image {
	s.node.kill(false, loseNothing)
	kept := s.copy()
	s.node.restart()
	kept.note(s)
	return kept
}

// atRest copies a disk while its daemon runs and has nothing to do.
func (s *storage) atRest() *image {
	kept := s.copy()
	kept.note(s)
	return kept
}

func (s *storage) copy() *image {
	all := pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))}
	return &image{device: s.device.Fork(), directory: s.directory.CrashClone(all),
		flushes: make(map[block.ReplicaID]block.FlushNumber)}
}

// note takes down the numbers that the store shows.
func (kept *image) note(s *storage) {
	for _, r := range s.store.Replicas() {
		kept.flushes[r.ID()] = r.FlushNumber()
	}
}

// putBack makes the disk what it once was; no daemon runs. To the checker of doors
// its replicas are others from now on.
func (s *storage) putBack(old *image) {
	s.device = old.device.Kill(s.executor, func(int, vfs.UnsyncedWrite, int) bool { return true })
	s.directory = old.directory
	s.incarnation.DiskSequence++
	w := s.node.world
	for id := range old.flushes {
		delete(w.doors.replicas, id)
		w.rolledBack[id] = true
	}
}

// diskPutBack puts a disk back to what it was some time ago, where the rules
// promise that it is noticed: everybody in sync, but for the replica itself, is here
// and knows of a later flush of it (rule 10). A disk whose last flush nobody else
// has heard of, or a lone one, comes back unnoticed.
func diskPutBack(w *World) bool {
	n := w.anyNode(func(n *node) bool {
		return withDisk(n) && n.storage.old != nil && w.noticed(n.storage.old)
	})
	if n == nil {
		if n = w.anyNode(sound); n != nil {
			n.storage.old = n.storage.photograph()
		}
		return false
	}
	old := n.storage.old
	n.storage.old = nil
	n.kill(true, loseAll)
	n.storage.putBack(old)
	n.restart()
	return true
}

func sound(n *node) bool { return withDisk(n) && n.storage.store.Failed() == nil }

// noticed reports whether the members of every volume know that the disk went
// further than an image of it.
func (w *World) noticed(old *image) bool {
	for id, flush := range old.flushes {
		v, ok := w.truth.state.VolumeOf(id)
		if !ok || w.volumeOf(v.ID) == nil {
			continue // of a volume that comes and goes
		}
		others := 0
		for _, m := range v.View.Replicas {
			if m.ID == id || !m.InSync {
				continue
			}
			others++
			if !w.knowsLater(m.ID, id, flush) {
				return false
			}
		}
		if others == 0 {
			return false
		}
	}
	return true
}

// knowsLater reports whether a member durably knows a later flush of a replica.
func (w *World) knowsLater(member, id block.ReplicaID, flush block.FlushNumber) bool {
	n := w.nodeOf(member)
	if n == nil || n.process == nil || n.storage.store.Failed() != nil || w.rolledBack[member] {
		return false
	}
	r, err := n.storage.store.Replica(member)
	if err != nil {
		return false
	}
	for _, c := range r.Confirmed() {
		if c.Replica == id && flush.Less(c.Flush) {
			return true
		}
	}
	return false
}
