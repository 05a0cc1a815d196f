package crash

import (
	"errors"
	"math/rand/v2"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// wanderer makes requests by chance and runs the store's jobs in any order, so that
// there is more than one thing under way at most syncs.
type wanderer struct {
	*world
	random *rand.Rand
	// next is the name of the next replica.
	next byte
}

const (
	// largest is to which size replicas grow, in bytes.
	largest = 8 * block.ExtentSize
	// most is the number of replicas, and of cuts of one.
	most = 3
)

// wander is a scenario that is a function of its seed, up to the database's work in
// the background.
func wander(seed uint64, steps int) func(*world) {
	return func(w *world) {
		r := &wanderer{world: w, random: rand.New(rand.NewPCG(seed, 11)), next: 1}
		for range 2 {
			r.add()
		}
		for range steps {
			if w.failure != nil {
				return
			}
			if w.steps.Pending() > 0 && r.random.IntN(3) > 0 {
				w.steps.Step(r.random.IntN(w.steps.Pending()))
			} else {
				r.act()
			}
		}
	}
}

func (r *wanderer) add() {
	r.create(r.next, replicaSize, nil)
	r.next++
}

func (r *wanderer) act() {
	k := &r.replicas[r.random.IntN(len(r.replicas))]
	first, count := r.span(int(k.size / block.SectorSize))
	switch p := r.random.IntN(100); {
	case p < 42:
		r.write(k.name, first, count)
	case p < 50:
		r.writeDurably(k.name, first, count)
	case p < 64:
		r.zero(k.name, first, count)
	case p < 80:
		r.flush(k.name)
	case p < 91:
		r.actCut(k.name)
	case p < 94:
		r.clearLog(k.name)
	case p < 96 && k.grownTo == k.size && k.size < largest:
		// A cut that waits for writes may be taken after a grow that was asked for later.
		r.settle()
		r.grow(k.name, k.size+block.ExtentSize)
	case p < 98:
		r.replace()
	case p == 98:
		r.reopen()
		r.afterKill()
	default:
		r.restart(false)
		r.afterKill()
	}
}

// span is near one of a few places, so that requests meet.
func (r *wanderer) span(sectorCount int) (first, count int) {
	count = 1 + r.random.IntN([]int{4, 30, extent + 40}[r.random.IntN(3)])
	first = r.random.IntN(8)*extent/2 + r.random.IntN(20)
	if r.random.IntN(3) == 0 {
		first, count = first&^7, (count+7)&^7
	}
	first = min(first, sectorCount-1)
	return first, min(count, sectorCount-first)
}

// cutsOf are the cuts of a replica that nobody drops.
func (r *wanderer) cutsOf(n byte) (cuts []*sectors.Cut) {
	for _, q := range r.model.Cuts {
		if q.Replica == n && q.Acked && !q.Dropping {
			cuts = append(cuts, q)
		}
	}
	return cuts
}

func (r *wanderer) actCut(n byte) {
	if cuts := r.cutsOf(n); len(cuts) > 0 && (len(cuts) >= most || r.random.IntN(3) == 0) {
		r.drop(cuts[r.random.IntN(len(cuts))])
	} else {
		r.cut(n, false)
	}
}

// replace deletes a replica if there are enough, and makes another, if there is a
// valid cut a clone of that.
func (r *wanderer) replace() {
	r.settle()
	if len(r.replicas) >= most && r.failure == nil {
		r.remove(r.replicas[r.random.IntN(len(r.replicas))].name)
		for range r.random.IntN(6) {
			if r.steps.Pending() > 0 {
				r.steps.Step(0)
			}
		}
	}
	valid := slices.IndexFunc(r.model.Cuts, func(q *sectors.Cut) bool { return q.Flushed && !q.Dropping })
	if valid < 0 || r.random.IntN(3) == 0 {
		r.add()
		return
	}
	r.create(r.next, largest, r.model.Cuts[valid])
	r.next++
}

// afterKill looks at what the death of the process has left: everything that was
// answered.
func (r *wanderer) afterKill() {
	if r.failure == nil {
		r.verify(true)
	}
	for i := range r.replicas {
		if r.failure != nil {
			return
		}
		k := &r.replicas[i]
		found := r.find(k.name)
		if found == nil {
			return
		}
		k.size, k.grownTo = found.Size(), found.Size()
		held := found.Cuts()
		for _, q := range slices.Clone(r.model.Cuts) {
			if q.Replica != k.name {
				continue
			}
			is := slices.IndexFunc(held, func(c block.Cut) bool { return c.Snapshot == snapshotID(q.Name) })
			switch {
			case is < 0 && q.Acked && !q.Dropping:
				r.fail(errors.New("a cut is lost by a kill"))
			case is < 0:
				r.model.ForgetCut(q)
			case q.Dropping || !held[is].Valid: // no flush makes it valid any more
				r.drop(q)
			default:
				q.Acked = true
			}
		}
	}
	r.settle()
}
