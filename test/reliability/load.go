package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// shape says what a load does: that many writers at once, each writing a random
// block of the area and then another one.
type shape struct {
	area  block.Span
	depth int
	// pace is the least time between two requests of a writer; 0 for none.
	pace time.Duration
	// Every so many requests of a writer are a read, or followed by a flush; 0 for none.
	reads, flushes int
}

// load writes random blocks and verifies some of them, until it is stopped.
type load struct {
	shape  shape
	device *device
	ledger *ledger
	meter  *meter

	cancel context.CancelCauseFunc
	loops  sync.WaitGroup

	mu  sync.Mutex
	err error
}

func startLoad(ctx context.Context, s shape, d *device, l *ledger, m *meter) *load {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &load{shape: s, device: d, ledger: l, meter: m, cancel: cancel}
	for i := range s.depth {
		w.loops.Go(func() {
			if err := w.work(ctx, i); err != nil {
				w.fail(err)
			}
		})
	}
	return w
}

// errStopped ends a load in order.
var errStopped = errors.New("load is stopped")

// stopLimit is how long requests may wait for their answers when the load is stopped.
const stopLimit = 30 * time.Second

// stop lets the requests under way end, and returns what went wrong.
func (w *load) stop() error {
	w.cancel(errStopped)
	defer time.AfterFunc(stopLimit, func() { w.device.use(nil) }).Stop()
	w.loops.Wait()
	return w.failure()
}

func (w *load) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.cancel(err)
}

// failure is what ended the load before its time.
func (w *load) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// work is one writer. It owns each depth-th block of the area.
func (w *load) work(ctx context.Context, number int) error {
	draw := rand.New(rand.NewPCG(uint64(number), uint64(time.Now().UnixNano())))
	own := w.shape.area.Length / block.BlockSize / int64(w.shape.depth)
	buf := make([]byte, block.BlockSize)
	begun := time.Now()
	for n := 1; ctx.Err() == nil; n++ {
		at := w.shape.area.Offset + (draw.Int64N(own)*int64(w.shape.depth)+int64(number))*block.BlockSize
		span := block.Span{Offset: at, Length: block.BlockSize}
		var err error
		if w.shape.reads > 0 && n%w.shape.reads == 0 {
			err = readBlocks(ctx, w.device, w.ledger, buf, at)
		} else {
			err = writeBlocks(ctx, w.device, w.ledger, w.meter, buf, span)
		}
		if err == nil && w.shape.flushes > 0 && n%w.shape.flushes == 0 {
			err = flush(ctx, w.device)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		if next := begun.Add(w.shape.pace); w.shape.pace > 0 {
			if !sleep(ctx, time.Until(next)) {
				return nil
			}
			begun = time.Now()
		}
	}
	return nil
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// writeBlocks writes whole blocks, once more as another write whenever the
// connection ends before the answer.
func writeBlocks(ctx context.Context, d *device, l *ledger, m *meter, buf []byte, span block.Span) error {
	for {
		client, err := d.get(ctx)
		if err != nil {
			return err
		}
		v := l.draw()
		stamp.Put(buf, span.Offset, v)
		began := time.Now()
		_, err = client.WriteAt(buf, span.Offset)
		if err == nil {
			l.wrote(span, v)
			m.acknowledged(began)
			return nil
		}
		l.unanswered(span, v)
		if err := again(d, client, err); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", span.Length, span.Offset, err)
		}
	}
}

// readBlocks reads whole blocks and judges them.
func readBlocks(ctx context.Context, d *device, l *ledger, buf []byte, offset int64) error {
	for {
		client, err := d.get(ctx)
		if err != nil {
			return err
		}
		_, err = client.ReadAt(buf, offset)
		if err == nil {
			return l.check(buf, offset)
		}
		if err := again(d, client, err); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", len(buf), offset, err)
		}
	}
}

func flush(ctx context.Context, d *device) error {
	for {
		client, err := d.get(ctx)
		if err != nil {
			return err
		}
		if err = client.Flush(); err == nil {
			return nil
		}
		if err := again(d, client, err); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
}

// again is nil if the request is to be repeated on another connection. An answer
// that is an error is one too many: I/O waits, it does not fail.
func again(d *device, on *nbd.Client, err error) error {
	if errors.Is(err, block.ErrClosed) {
		d.lost(on)
		return nil
	}
	return err
}

// fill writes spans, several at once, each one request.
func fill(ctx context.Context, d *device, l *ledger, spans []block.Span) error {
	const workers = 16
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan block.Span)
	errs := make([]error, workers)
	var writers sync.WaitGroup
	for i := range workers {
		writers.Go(func() {
			var buf []byte
			for span := range work {
				if int64(cap(buf)) < span.Length {
					buf = make([]byte, span.Length)
				}
				if err := writeBlocks(ctx, d, l, &meter{}, buf[:span.Length], span); err != nil {
					errs[i] = err
					cancel()
				}
			}
		})
	}
	for _, span := range spans {
		select {
		case work <- span:
		case <-ctx.Done():
		}
	}
	close(work)
	writers.Wait()
	return errors.Join(append(errs, flush(ctx, d))...)
}

// pieces cuts a span into requests.
func pieces(span block.Span, length int64) []block.Span {
	var all []block.Span
	for at := span.Offset; at < span.End(); at += length {
		all = append(all, block.Span{Offset: at, Length: min(length, span.End()-at)})
	}
	return all
}
