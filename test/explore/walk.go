package explore

import (
	"context"
	"math/rand/v2"
	"time"
)

// walkSteps bounds a walk.
const walkSteps = 200

// Walk follows random ways from the first state, each to its rest, until ctx
// ends: for bounds that are too large to visit every state. Counted are the steps
// and the rests.
func (x *Explorer) Walk(ctx context.Context, seed uint64) (Result, error) {
	x.started = time.Now()
	root, err := begin(x.setting)
	if err != nil {
		return Result{}, err
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	known := x.canon()
	for walks := 0; ctx.Err() == nil && x.violation == nil; walks++ {
		if walks%1000 == 0 {
			x.setting.stock.refill()
		}
		x.walk(root, rng, known)
	}
	return x.result(), nil
}

func (x *Explorer) walk(w *world, rng *rand.Rand, c *canon) {
	var to *way
	var acts []action
	for depth := 1; depth <= walkSteps; depth++ {
		acts = w.actions(acts[:0])
		next, act := w.stride(acts, rng)
		if next == nil {
			break
		}
		x.transitions.Add(1)
		to = &way{before: to, act: act, depth: depth}
		if next.violation != nil {
			x.violated(to, next.violation)
			return
		}
		w = next
		if w.quiet() && rng.IntN(30) == 0 || depth == walkSteps {
			break
		}
	}
	x.rests.Add(1)
	if err := w.finish(rng.IntN(2) == 0, c, x.finished); err != nil {
		x.violated(to, err)
	}
}

// stride takes a random action. What may happen only so often is taken less
// often than what goes on by itself, else it would all happen at the beginning.
func (w *world) stride(acts []action, rng *rand.Rand) (*world, action) {
	const tries = 40
	for range tries {
		if len(acts) == 0 {
			break
		}
		a := acts[rng.IntN(len(acts))]
		if a.scarce() && rng.IntN(6) != 0 {
			continue
		}
		if n := w.apply(&a); n != nil {
			return n, a
		}
	}
	return nil, action{}
}

// scarce reports whether an action is bounded.
func (a *action) scarce() bool {
	switch a.kind {
	case actExchange, actLate, actOrphan, actLearn, actLand, actOutcome, actTick:
		return false
	}
	return true
}
