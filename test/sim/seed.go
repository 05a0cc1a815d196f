package sim

import (
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// DefaultSteps is how many events a run has before everything is healed.
const DefaultSteps = 15000

// RealCore makes the core that runs in production.
func RealCore(cfg core.Config, now block.Instant) (machine, error) { return core.New(cfg, now) }

// SeedOptions are what a seed stands for: the kinds and the density of its
// faults follow from it as well.
func SeedOptions(seed uint64, steps int) Options {
	o := Options{
		Seed: seed, Steps: steps, Faults: DefaultFaults(), RaftFaults: true, Timing: DefaultTiming(),
		Limits: DefaultLimits(), NewCore: RealCore, TraceLines: 160,
	}
	o.FaultInterval = [...]int64{500, 250, 1000, 2000}[seed%4] * millisecond
	o.Temptation = [...]int{0, 2, 10}[seed%3]
	if seed%5 == 0 {
		o.Faults = DestructiveFaults()
	}
	return o
}

// Report is what a person needs of a run that failed: the violation, the last
// lines of the trace, and the command that does it again.
func (r *Result) Report(o Options) string {
	return fmt.Sprintf("%s\nseed %d: %v\nreplay: make sim SEED=%d STEPS=%d\n", strings.Join(r.Trace, "\n"), o.Seed,
		r.Violation, o.Seed, o.Steps)
}
