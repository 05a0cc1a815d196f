// Command sim runs the protocol simulator: one seed, or one after the other for
// a while. It ends with status 1 and what reproduces it at the first violation.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/holdfast-io/holdfast/test/sim"
)

func main() {
	seed := flag.Uint64("seed", 0, "run this one seed; 0 runs many")
	first := flag.Uint64("first", 1, "the first of many seeds")
	steps := flag.Int("steps", sim.DefaultSteps, "events of each run before everything is healed")
	duration := flag.Duration("duration", time.Minute, "how long to go on with new seeds")
	trace := flag.String("trace", "", "a file for the whole trace of a single seed")
	flag.Parse()
	var err error
	if *seed != 0 {
		err = one(*seed, *steps, *trace)
	} else {
		err = many(*first, *steps, *duration)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func one(seed uint64, steps int, trace string) error {
	o := sim.SeedOptions(seed, steps)
	if trace != "" {
		f, err := os.Create(trace)
		if err != nil {
			return fmt.Errorf("write trace: %w", err)
		}
		defer f.Close()
		o.Trace = f
	}
	r, err := sim.Run(o)
	if err != nil {
		return err
	}
	if r.Violation != nil {
		fmt.Print(r.Report(o))
		return fmt.Errorf("seed %d violates %s", seed, r.Violation.Checker)
	}
	fmt.Printf("seed %d: no violation in %d steps with %d requests, trace %016x\n", seed, r.Steps, r.Operations, r.Hash)
	return nil
}

func many(first uint64, steps int, duration time.Duration) error {
	total := sim.NewTally()
	for begin := time.Now(); time.Since(begin) < duration; {
		o := sim.SeedOptions(first+uint64(total.Runs), steps)
		r, err := sim.Run(o)
		if err != nil {
			return err
		}
		if r.Violation != nil {
			fmt.Print(r.Report(o))
			return fmt.Errorf("seed %d violates %s", o.Seed, r.Violation.Checker)
		}
		total.Add(r)
	}
	fmt.Print(total)
	return nil
}
