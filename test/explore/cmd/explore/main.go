// Command explore visits every state that small configurations of the mirror can
// reach, and prints how many there are. See the package test/explore.
//
// It ends with status 0 if nothing is broken, 3 if something is, 1 if it could
// not tell.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/explore"
)

// errBroken ends the command with status 3.
var errBroken = errors.New("a property is broken")

type options struct {
	configs, set, replay, trace string
	list                        bool
	walk                        uint64
	workers                     int
	memoryGiB                   float64
	limit                       time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.configs, "config", "", "names of configurations, separated by commas (default: all)")
	flag.StringVar(&o.set, "set", "", "other bounds, as `writes=2,links=1`, for each of them")
	flag.StringVar(&o.replay, "replay", "", "repeat the trace in this `file`")
	flag.StringVar(&o.trace, "trace", "", "write the trace of a violation to this `file`")
	flag.BoolVar(&o.list, "list", false, "list the configurations")
	flag.Uint64Var(&o.walk, "walk", 0, "follow random ways with this seed for the time of -limit, instead of visiting every state")
	flag.IntVar(&o.workers, "workers", runtime.NumCPU(), "how many states to expand at once")
	flag.Float64Var(&o.memoryGiB, "memory", 6, "GiB for the set of visited states")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "stop after this time")
	flag.Parse()
	// States live for a moment: collecting them less often is worth the memory.
	debug.SetGCPercent(400)
	switch err := run(&o); {
	case errors.Is(err, errBroken):
		os.Exit(3)
	case err != nil:
		fmt.Fprintln(os.Stderr, "explore:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	if o.replay != "" {
		return replay(o.replay)
	}
	configs, err := chosen(o)
	if err != nil {
		return err
	}
	if o.list {
		for _, c := range configs {
			fmt.Printf("%-13s %s\n%14s%d of %d replicas in sync, %s\n", c.Name, c.About, "", c.Members, c.Replicas, c.Bounds)
		}
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	return search(ctx, o, configs)
}

// chosen are the configurations that the flags name, with other bounds.
func chosen(o *options) ([]explore.Config, error) {
	configs := explore.Configs()
	if o.configs != "" {
		configs = nil
		for _, name := range strings.Split(o.configs, ",") {
			c, err := explore.ConfigNamed(name)
			if err != nil {
				return nil, err
			}
			configs = append(configs, c)
		}
	}
	for i := range configs {
		if o.set == "" {
			break
		}
		if err := configs[i].Set(o.set); err != nil {
			return nil, err
		}
	}
	return configs, nil
}

func search(ctx context.Context, o *options, configs []explore.Config) error {
	const row = "%-13s %11d %12d %6d %9d %8.1f %9.0f %7.2f  %s\n"
	fmt.Printf("%-13s %11s %12s %6s %9s %8s %9s %7s\n", "configuration", "states", "transitions", "depth", "rests",
		"seconds", "per s", "GiB")
	show := func(name string, r explore.Result, end string) {
		fmt.Printf(row, name, r.States, r.Transitions, r.Depth, r.Rests, r.Elapsed.Seconds(),
			float64(r.Transitions)/r.Elapsed.Seconds(), memoryGiB(), end)
	}
	incomplete := false
	var states uint64
	began := time.Now()
	for _, c := range configs {
		x, err := explore.New(c, explore.Options{Workers: o.workers, Bytes: int64(o.memoryGiB * (1 << 30)),
			Progress: func(r explore.Result) { show("  "+c.Name, r, "...") }})
		if err != nil {
			return err
		}
		var r explore.Result
		if o.walk != 0 {
			r, err = x.Walk(ctx, o.walk)
		} else {
			r, err = x.Run(ctx)
		}
		if err != nil {
			return err
		}
		states += r.States
		switch {
		case r.Violation != nil:
			show(c.Name, r, "BROKEN")
			return report(o, r.Violation)
		case !r.Complete && o.walk != 0:
			show(c.Name, r, "nothing found")
		case !r.Complete:
			show(c.Name, r, "not complete")
			incomplete = true
		default:
			show(c.Name, r, "complete")
		}
		runtime.GC()
	}
	fmt.Printf("%d states in %.0f s\n", states, time.Since(began).Seconds())
	if incomplete {
		return errors.New("not every state was visited")
	}
	return nil
}

// memoryGiB is what the process has taken from the system.
func memoryGiB() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 30)
}

// report prints a violation as a short trace.
func report(o *options, v *explore.Violation) error {
	short, text := v.Shorten()
	fmt.Printf("\n%v\n\nin %d steps (found in %d):\n\n%s", short.Err, len(short.Trace), len(v.Trace), text)
	data, err := short.Encode()
	if err != nil {
		return err
	}
	if o.trace == "" {
		fmt.Printf("\nTo repeat it, put this into a file for -replay:\n%s\n", data)
		return errBroken
	}
	if err := os.WriteFile(o.trace, data, 0o600); err != nil {
		return err
	}
	fmt.Printf("\nTo repeat it: -replay %s\n", o.trace)
	return errBroken
}

func replay(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	text, broken, err := explore.Replay(data)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if broken != nil {
		fmt.Printf("\n%v\n", broken)
		return errBroken
	}
	fmt.Println("\nnothing is broken")
	return nil
}
