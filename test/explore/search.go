package explore

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Options are what a search may take.
type Options struct {
	Workers int
	// Bytes bounds the set of visited states.
	Bytes int64
	// Progress, if set, is called now and then.
	Progress func(Result)
}

// Result is what a search has found.
type Result struct {
	States, Transitions, Rests uint64
	Depth                      int
	Bytes                      int64
	Elapsed                    time.Duration
	// Complete: every state within the bounds was visited.
	Complete  bool
	Violation *Violation
}

// Violation is a property that a state broke, and the way there.
type Violation struct {
	Err   error
	Trace []action
	// Again: the last step is a rest that was reached by another start.
	config Config
}

// Explorer searches one configuration.
type Explorer struct {
	setting *setting
	options Options
	seeds   [2]maphash.Seed
	visited *visited
	// finished are the states from which a rest was reached.
	finished *visited
	started  time.Time

	states, transitions, rests atomic.Uint64
	depth                      atomic.Int64
	full, stop                 atomic.Bool

	mu        sync.Mutex
	changed   *sync.Cond
	shared    []item
	idle      int
	hungry    atomic.Int32
	violation *Violation
}

// item is a state to be expanded, and how it was reached.
type item struct {
	world *world
	way   *way
}

type way struct {
	before *way
	act    action
	depth  int
}

// New prepares a search.
func New(config Config, options Options) (*Explorer, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("explore %s: %w", config.Name, err)
	}
	if options.Workers < 1 || options.Bytes < 1<<20 {
		return nil, fmt.Errorf("explore %s with %+v: %w", config.Name, options, block.ErrInvalid)
	}
	x := &Explorer{options: options, visited: newVisited(options.Bytes),
		finished: newVisited(options.Bytes / 8), setting: newSetting(config)}
	x.changed = sync.NewCond(&x.mu)
	x.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	return x, nil
}

func newSetting(config Config) *setting {
	size := config.spacing().offset(config.Blocks-1) + block.BlockSize
	return &setting{config: config, layout: newLayout(), stock: newStock(size, firstValue+maxWrites),
		volume: volumeID, size: size}
}

// Run searches until everything was seen, something is broken, or ctx ends.
func (x *Explorer) Run(ctx context.Context) (Result, error) {
	x.started = time.Now()
	w, err := begin(x.setting)
	if err != nil {
		return Result{}, err
	}
	x.shared = append(x.shared, item{world: w})
	x.visited.add(w.key(x.canon()))
	x.states.Add(1)
	release := context.AfterFunc(ctx, x.end)
	defer release()
	var workers sync.WaitGroup
	for range x.options.Workers {
		workers.Go(x.work)
	}
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { x.report(done) })
	workers.Wait()
	close(done)
	reporter.Wait()
	r := x.result()
	r.Complete = ctx.Err() == nil && !x.full.Load() && r.Violation == nil
	return r, nil
}

func (x *Explorer) canon() *canon {
	return &canon{l: x.setting.layout, stock: x.setting.stock, seeds: x.seeds}
}

func (x *Explorer) result() Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Result{
		States: x.states.Load(), Transitions: x.transitions.Load(), Rests: x.rests.Load(), Depth: int(x.depth.Load()),
		Bytes: x.visited.bytes(), Elapsed: time.Since(x.started), Violation: x.violation,
	}
}

// report shows the progress, and keeps the stock of references full.
func (x *Explorer) report(done <-chan struct{}) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			x.setting.stock.refill()
			if x.options.Progress != nil {
				x.options.Progress(x.result())
			}
		}
	}
}

// end makes all workers stop.
func (x *Explorer) end() {
	x.stop.Store(true)
	x.mu.Lock()
	x.changed.Broadcast()
	x.mu.Unlock()
}

// work expands states, deepest first, and shares when others have none.
func (x *Explorer) work() {
	s := &worker{x: x, canon: x.canon()}
	for !x.stop.Load() {
		if len(s.stack) == 0 {
			it, ok := x.take()
			if !ok {
				return
			}
			s.stack = append(s.stack, it)
		}
		if x.hungry.Load() > 0 && len(s.stack) > 1 {
			s.stack = x.give(s.stack)
		}
		n := len(s.stack) - 1
		it := s.stack[n]
		s.stack[n] = item{}
		s.stack = s.stack[:n]
		s.expand(it)
	}
}

// take waits for a shared state. It reports false when there will be none.
func (x *Explorer) take() (item, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.idle++
	x.hungry.Add(1)
	defer x.hungry.Add(-1)
	for len(x.shared) == 0 {
		if x.idle == x.options.Workers || x.stop.Load() {
			x.stop.Store(true)
			x.changed.Broadcast()
			return item{}, false
		}
		x.changed.Wait()
	}
	n := len(x.shared) - 1
	it := x.shared[n]
	x.shared = x.shared[:n]
	x.idle--
	return it, true
}

// give shares the shallower half of a stack.
func (x *Explorer) give(stack []item) []item {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.shared) > 0 {
		return stack
	}
	half := (len(stack) + 1) / 2
	x.shared = append(x.shared, stack[:half]...)
	x.changed.Broadcast()
	return append(stack[:0], stack[half:]...)
}

func (x *Explorer) violated(w *way, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stop.Store(true)
	x.changed.Broadcast()
	if x.violation != nil {
		return
	}
	x.violation = &Violation{Err: err, Trace: w.list(), config: x.setting.config}
}

// list is the way from the first state on.
func (w *way) list() []action {
	if w == nil {
		return nil
	}
	return append(w.before.list(), w.act)
}

// worker is what one goroutine of a search owns.
type worker struct {
	x     *Explorer
	canon *canon
	stack []item
	acts  []action
}

// expand makes all successors of a state and keeps the new ones.
func (s *worker) expand(it item) {
	x := s.x
	if it.world.quiet() {
		x.rests.Add(1)
		for _, again := range []bool{false, true} {
			if err := it.world.finish(again, s.canon, x.finished); err != nil {
				x.violated(it.way, err)
				return
			}
		}
	}
	depth := 1
	if it.way != nil {
		depth = it.way.depth + 1
	}
	s.acts = it.world.actions(s.acts[:0])
	var states, transitions uint64
	for k := range s.acts {
		next := it.world.apply(&s.acts[k])
		if next == nil {
			continue
		}
		transitions++
		if next.violation != nil {
			x.violated(&way{before: it.way, act: s.acts[k], depth: depth}, next.violation)
			return
		}
		fresh, room := x.visited.add(next.key(s.canon))
		if !room {
			x.full.Store(true)
			x.end()
			return
		}
		if !fresh {
			continue
		}
		states++
		s.stack = append(s.stack, item{world: next, way: &way{before: it.way, act: s.acts[k], depth: depth}})
	}
	x.states.Add(states)
	x.transitions.Add(transitions)
	if int64(depth) > x.depth.Load() {
		x.depth.Store(int64(depth))
	}
}
