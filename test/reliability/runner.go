package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// setupLimit bounds the making of a cluster.
const setupLimit = 2 * time.Minute

// runner measures one line after the other.
type runner struct {
	options  options
	binaries harness.Binaries
	dir      string
	// line is the one being measured, beds counts the clusters made.
	line line
	beds int
	// lost counts verifications that found an acknowledged write missing; writes and
	// reads count blocks acknowledged and verified.
	lost          int
	writes, reads int64
	// uncleaned is what went wrong when clusters were taken down.
	uncleaned error
}

// measure takes all lines.
func measure(ctx context.Context, o options) (_ report, err error) {
	facts, err := describeHost()
	if err != nil {
		return report{}, err
	}
	r := &runner{options: o}
	if r.dir, err = os.MkdirTemp(o.Dir, "holdfast-"); err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, r.uncleaned, os.RemoveAll(r.dir)) }()
	if r.binaries = harness.BinariesIn(o.Binaries); o.Binaries == "" {
		r.say("building")
		if r.binaries, err = harness.Build(ctx, filepath.Join(r.dir, "bin")); err != nil {
			return report{}, err
		}
	}
	result := report{Version: 1, Taken: time.Now().UTC().Truncate(time.Second), Host: facts}
	for _, l := range o.Lines {
		r.line = l
		began := time.Now()
		r.say("begins")
		rows, err := l.measure(ctx, r)
		if ctx.Err() != nil {
			return report{}, errors.Join(ctx.Err(), err)
		}
		if err != nil {
			rows = append(rows, row{Name: l.name, What: l.name + " was not finished", Error: err.Error()})
		}
		if errors.Is(err, errLost) {
			r.lost++
		}
		result.Rows = append(result.Rows, rows...)
		r.say("ends after %v", time.Since(began).Round(time.Second))
	}
	result.Rows = append(result.Rows, row{
		Name: "lost", What: "acknowledged writes lost in all of the above", Samples: []float64{float64(r.lost)},
		Notes: []string{fmt.Sprintf("%d blocks were acknowledged, %d read back and verified, after each line the whole volume and all replicas", r.writes, r.reads)},
	})
	return result, nil
}

// samples is how many to take of the present line.
func (r *runner) samples() int {
	if r.options.Samples > 0 {
		return r.options.Samples
	}
	return r.line.samples
}

// say tells a person what happens.
func (r *runner) say(format string, args ...any) {
	name := r.line.name
	if name == "" {
		name = "reliability"
	}
	fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format(time.TimeOnly), name, fmt.Sprintf(format, args...))
}

// newBed makes a cluster for the present line, whose volume is used as a whole.
func (r *runner) newBed(ctx context.Context, size int64) (*bed, error) {
	return r.newBedWith(ctx, room{used: size, size: size})
}

func (r *runner) newBedWith(ctx context.Context, want room) (*bed, error) {
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	r.beds++
	b, err := newBed(ctx, r.binaries, filepath.Join(r.dir, fmt.Sprintf("c%d", r.beds)), want)
	if err != nil {
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	return b, nil
}

// verify looks whether everything acknowledged is there.
func (r *runner) verify(ctx context.Context, b *bed) error {
	err := b.verify(ctx)
	r.writes += b.ledger.writes.Load()
	r.reads += b.ledger.reads.Load()
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

// clean takes a cluster down.
func (r *runner) clean(ctx context.Context, b *bed) {
	r.uncleaned = errors.Join(r.uncleaned, b.clean(context.WithoutCancel(ctx)))
}
