package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// DefaultSteps is how many events a run has before everything is healed.
const DefaultSteps = 15000

// RealCore makes the core that runs in production.
func RealCore(cfg core.Config, now block.Instant) (machine, error) { return core.New(cfg, now) }

// shapes are the clusters among which a seed chooses.
func shapes() []Shape {
	return []Shape{
		DefaultShape(),
		{Nodes: 3, Disks: 3, Main: 3, Other: 2},
		{Nodes: 3, Disks: 2, Main: 2, Other: 2},
		{Nodes: 4, Disks: 4, Main: 4, Other: 3},
		{Nodes: 6, Disks: 5, Main: 5, Other: 2},
		{Nodes: 3, Disks: 2, Main: 2, Other: 1},
	}
}

// SeedOptions are what a seed stands for: the cluster and the kinds and the
// density of its faults follow from it as well.
func SeedOptions(seed uint64, steps int) Options {
	rng := rand.New(rand.NewPCG(seed, 1))
	all := shapes()
	o := Options{
		Seed: seed, Steps: steps, Shape: all[rng.IntN(len(all))], Faults: DefaultFaults(), RaftFaults: true, Managed: true,
		Timing: DefaultTiming(), Limits: DefaultLimits(), NewCore: RealCore, TraceLines: 160,
	}
	o.Shape.Think = [...]int64{4, 8, 20, 60}[rng.IntN(4)] * millisecond
	o.FaultInterval = [...]int64{100, 250, 500, 1000}[rng.IntN(4)] * millisecond
	o.FaultLength = [...]int64{15, 30, 100}[rng.IntN(3)]
	o.Temptation = [...]int{0, 2, 10}[rng.IntN(3)]
	if rng.IntN(5) == 0 {
		o.Faults = DestructiveFaults()
	} else {
		// A disk that is put back may lack a replica that was made since.
		o.Replaced = rng.IntN(3) == 0
	}
	o.Timing.JobGap = [...]int64{0, 10}[rng.IntN(2)] * millisecond
	o.Timing.NumberGap = [...]int64{0, 200, 2000}[rng.IntN(3)] * millisecond
	// A snapshot that rots on every disk leaves a volume half reverted, for people to
	// decide what becomes of it.
	o.Reverted = len(o.Faults) == len(DefaultFaults()) && rng.IntN(3) == 0
	o.Timing.FlushGather = [...]int64{0, 2}[rng.IntN(2)] * millisecond
	return o
}

// Report is what a person needs of a run that failed: the violation, the last
// lines of the trace, and the command that does it again.
func (r *Result) Report(o Options) string {
	return fmt.Sprintf("%s\nseed %d: %v\nreplay: make sim SEED=%d STEPS=%d\n", strings.Join(r.Trace, "\n"), o.Seed,
		r.Violation, o.Seed, o.Steps)
}
