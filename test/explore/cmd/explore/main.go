// Command explore searches every interleaving of small configurations of the
// mirror.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/holdfast-io/holdfast/test/explore"
)

func main() {
	var c explore.Config
	var prof string
	var d time.Duration
	var workers int
	flag.IntVar(&c.Replicas, "replicas", 2, "")
	flag.IntVar(&c.Members, "members", 2, "")
	flag.IntVar(&c.MinInSync, "mininsync", 1, "")
	flag.IntVar(&c.Blocks, "blocks", 1, "")
	flag.IntVar(&c.Window, "window", 2, "")
	u := func(p *uint8, name string) {
		flag.Func(name, "", func(s string) error { var n int; fmt.Sscan(s, &n); *p = uint8(n); return nil })
	}
	u(&c.Engines, "engines")
	u(&c.Writes, "writes")
	u(&c.Reads, "reads")
	u(&c.Flushes, "flushes")
	u(&c.Links, "links")
	u(&c.Kills, "kills")
	u(&c.Losses, "losses")
	u(&c.Unknowns, "unknowns")
	u(&c.Clears, "clears")
	u(&c.Units, "units")
	u(&c.Pauses, "pauses")
	u(&c.Hints, "hints")
	u(&c.Detaches, "detaches")
	flag.BoolVar(&c.Serving, "serving", false, "")
	flag.BoolVar(&c.Suspect, "suspect", false, "")
	flag.StringVar(&prof, "prof", "", "")
	flag.DurationVar(&d, "d", 2*time.Minute, "")
	flag.IntVar(&workers, "workers", 1, "")
	flag.Parse()
	if prof != "" {
		f, _ := os.Create(prof)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, d)
	defer cancel()
	x, err := explore.New(c, explore.Options{Workers: workers, Bytes: 4 << 30, Progress: func(r explore.Result) { fmt.Printf("%+v\n", r) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := x.Run(ctx)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	v := r.Violation
	r.Violation = nil
	fmt.Printf("%+v %v\n  %.0f transitions/s, sys %d MB\n", r, err, float64(r.Transitions)/r.Elapsed.Seconds(), m.Sys>>20)
	if v != nil {
		s, text := v.Shorten()
		fmt.Printf("VIOLATION %v (from %d to %d)\n%s", s.Err, len(v.Trace), len(s.Trace), text)
	}
}
