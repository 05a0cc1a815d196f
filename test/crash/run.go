package crash

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Result is what came of a run.
type Result struct {
	// Moments are the syncs, by what was synced; States the disks that were tried.
	Moments map[string]int
	States  int
	// Failure is the first disk on which something was wrong, nil if there is none.
	Failure error
}

// Points is the number of syncs.
func (r *Result) Points() (n int) {
	for _, count := range r.Moments {
		n += count
	}
	return n
}

// Run plays the scenario on a store and then cuts its power at every sync, with
// planted faults or none. The error is what went wrong in the scenario, unless a
// crash before that shows it, too.
func Run(bounds Bounds, faults func() Faults) (*Result, error) {
	return run(everything, bounds, faults)
}

// Wander does the same with requests by chance, so many steps of a seed.
func Wander(seed uint64, steps int, bounds Bounds) (*Result, error) {
	return run(wander(seed, steps), bounds, func() Faults { return Faults{} })
}

func run(play func(*world), bounds Bounds, faults func() Faults) (*Result, error) {
	w, err := newWorld(faults())
	if err != nil {
		return nil, err
	}
	play(w)
	w.record("nothing")
	w.end()
	result := &Result{Moments: map[string]int{}}
	for i := range w.moments {
		result.Moments[kindOf(w.moments[i].name)]++
	}
	result.try(w.moments, bounds, faults)
	if w.failure != nil && result.Failure == nil {
		return nil, fmt.Errorf("the scenario: %w", w.failure)
	}
	return result, nil
}

// kindOf leaves out the numbers of files.
func kindOf(name string) string {
	for _, kind := range []string{"journal", "MANIFEST", ".log", ".sst", "dbtmp"} {
		if i := len(kind); len(name) >= i && (name[:i] == kind || name[len(name)-i:] == kind) {
			return kind
		}
	}
	return name
}

// oneIn is how many disks are opened once for one that is also used and opened again.
const oneIn = 4

// try works on the moments in their order, several at a time; the failure is that of
// the earliest, and States how many disks were tried up to it.
func (r *Result) try(moments []moment, bounds Bounds, faults func() Faults) {
	type outcome struct {
		moment, states int
		err            error
	}
	var (
		mu       sync.Mutex
		outcomes []outcome
		next     atomic.Int64
		failed   atomic.Bool
		workers  sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(moments) {
					return
				}
				states, err := moments[i].try(i, bounds, faults)
				if err != nil {
					failed.Store(true)
				}
				mu.Lock()
				outcomes = append(outcomes, outcome{moment: i, states: states, err: err})
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	slices.SortFunc(outcomes, func(a, b outcome) int { return cmp.Compare(a.moment, b.moment) })
	for _, o := range outcomes {
		r.States += o.states
		if o.err != nil {
			r.Failure = o.err
			return
		}
	}
}

// try tries all disks of the i-th moment until something is wrong with one.
func (m *moment) try(i int, bounds Bounds, faults func() Faults) (states int, err error) {
	lossy := m.lossy()
	for c := range bounds.choices(lossy, uint64(i)) {
		states++
		if err := m.check(c, states%oneIn == 0, faults()); err != nil {
			return states, fmt.Errorf("sync point %d, before the sync of %s, of %d lossy things %s: %w", i, m.name, len(lossy), c.name, err)
		}
	}
	return states, nil
}
