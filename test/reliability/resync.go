package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	largeVolume = 2048 * mebibyte
	// rewritten is how much is written while a replica is away, awayFor how long
	// it is.
	rewritten = 100 * mebibyte
	awayFor   = 20 * time.Second
	// restFor is how long nothing is written before.
	restFor = 40 * time.Second
	// outageFor is the outage after which the bytes copied are counted.
	outageFor  = 60 * time.Second
	outagePace = 10 * time.Millisecond
)

// newFilledBed is a cluster whose volume is written to its last byte.
func (r *runner) newFilledBed(ctx context.Context, size int64) (*bed, error) {
	b, err := r.newBed(ctx, size)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, b.device, b.ledger, pieces(b.whole(), mebibyte)); err != nil {
		r.clean(ctx, b)
		return nil, err
	}
	return b, nil
}

// outage counts the bytes that are copied after an outage.
func outage(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newFilledBed(ctx, largeVolume)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	result := row{Name: "outage", What: "bytes copied after 60 s, over the extents that differ", Limit: 1.2, Unit: "x"}
	for range r.samples() {
		sample, note, err := b.sufferOutage(ctx)
		if err != nil {
			return nil, err
		}
		result.Samples = append(result.Samples, sample)
		result.Notes = append(result.Notes, note)
	}
	return []row{result}, r.verify(ctx, b)
}

// sufferOutage takes one sample. Nothing is written at either end of the outage, so
// that what differs is known exactly.
func (b *bed) sufferOutage(ctx context.Context) (float64, string, error) {
	if err := b.inSync(ctx); err != nil {
		return 0, "", err
	}
	victim, err := b.victim(ctx, false)
	if err != nil {
		return 0, "", err
	}
	before, err := b.copiedBytes(ctx)
	if err != nil {
		return 0, "", err
	}
	held := b.ledger.snapshot()
	if err := b.node(victim).Kill(); err != nil {
		return 0, "", err
	}
	load := startLoad(ctx, shape{area: b.whole(), depth: 4, pace: outagePace, flushes: 32}, b.device, b.ledger, b.meter)
	sleep(ctx, outageFor)
	if err := load.stop(); err != nil {
		return 0, "", err
	}
	differ := b.ledger.extentsSince(held)
	if err := b.node(victim).Start(ctx); err != nil {
		return 0, "", err
	}
	if err := b.inSync(ctx); err != nil {
		return 0, "", err
	}
	after, err := b.copiedBytes(ctx)
	if err != nil {
		return 0, "", err
	}
	copied := after - before
	note := fmt.Sprintf("%d of %d extents differed, %.1f MiB; %.1f MiB were copied",
		differ, b.size/block.ExtentSize, float64(differ)*block.ExtentSize/mebibyte, copied/mebibyte)
	return copied / float64(differ*block.ExtentSize), note, nil
}

// copiedBytes is what the engine of the volume's node has copied to replicas that came
// back.
func (b *bed) copiedBytes(ctx context.Context) (float64, error) {
	client := http.Client{Transport: &http.Transport{DialContext: b.network.Dial, DisableKeepAlives: true}}
	return b.node(b.home).Metric(ctx, &client, "holdfast_engine_resync_copied_bytes_total")
}

// resync measures how soon a replica that was away is in sync again.
func resync(ctx context.Context, r *runner) ([]row, error) {
	b, err := r.newFilledBed(ctx, largeVolume)
	if err != nil {
		return nil, err
	}
	defer r.clean(ctx, b)
	results := []row{
		{Name: "resync-contiguous", What: "in sync after 20 s and 100 MiB contiguous", Limit: 2, Unit: "s"},
		{Name: "resync-random", What: "in sync after 20 s and 100 MiB at random", Limit: 4, Unit: "s"},
	}
	rewrites := []func() []block.Span{b.contiguous, b.scattered}
	for range r.samples() {
		for i := range results {
			took, note, err := b.comeBack(ctx, rewrites[i]())
			if err != nil {
				return nil, err
			}
			results[i].Samples = append(results[i].Samples, took.Seconds())
			results[i].Notes = append(results[i].Notes, note)
			r.say("%s: %s", results[i].Name, note)
		}
	}
	return results, r.verify(ctx, b)
}

// contiguous are requests for a piece of the volume.
func (b *bed) contiguous() []block.Span {
	places := (b.size - rewritten) / block.BlockSize
	return pieces(block.Span{Offset: rand.Int64N(places) * block.BlockSize, Length: rewritten}, 4*block.ExtentSize)
}

// scattered are requests for different blocks of the whole volume.
func (b *bed) scattered() []block.Span {
	var all []block.Span
	for _, at := range rand.Perm(int(b.size / block.BlockSize))[:rewritten/block.BlockSize] {
		all = append(all, block.Span{Offset: int64(at) * block.BlockSize, Length: block.BlockSize})
	}
	return all
}

// comeBack takes one sample: from the start of the daemon of a replica that was away
// until the replica is in sync.
func (b *bed) comeBack(ctx context.Context, spans []block.Span) (time.Duration, string, error) {
	if err := b.inSync(ctx); err != nil {
		return 0, "", err
	}
	victim, err := b.victim(ctx, false)
	if err != nil {
		return 0, "", err
	}
	before, err := b.copiedBytes(ctx)
	if err != nil {
		return 0, "", err
	}
	// Of what was written a moment ago the intent logs speak, and it is compared.
	if !sleep(ctx, restFor) {
		return 0, "", ctx.Err()
	}
	held := b.ledger.snapshot()
	if err := b.node(victim).Kill(); err != nil {
		return 0, "", err
	}
	gone := time.Now()
	if err := fill(ctx, b.device, b.ledger, spans); err != nil {
		return 0, "", err
	}
	sleep(ctx, awayFor-time.Since(gone))
	away := time.Since(gone)
	differ := b.ledger.extentsSince(held)
	used, err := b.cluster.CPU()
	if err != nil {
		return 0, "", err
	}
	began := time.Now()
	if err := b.node(victim).Start(ctx); err != nil {
		return 0, "", err
	}
	answered := time.Since(began)
	if err := b.inSync(ctx); err != nil {
		return 0, "", err
	}
	took := time.Since(began)
	usedNow, err := b.cluster.CPU()
	if err != nil {
		return 0, "", err
	}
	after, err := b.copiedBytes(ctx)
	note := fmt.Sprintf("%.2f s: away for %.1f s, its daemon answered after %.2f s; copied %.2f x of the %d extents that differ; the daemons used %.2f s of CPU",
		took.Seconds(), away.Seconds(), answered.Seconds(), (after-before)/float64(differ*block.ExtentSize), differ, (usedNow - used).Seconds())
	return took, note, err
}
