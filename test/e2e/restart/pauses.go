package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

const (
	// resultPath is where the pauses go.
	resultPath = "/host/out/pauses.json"
	// deviceWriters write at once, each to so many blocks of its own.
	deviceWriters = 4
	writerBlocks  = 1024
	// flowing is how many writes show that they flow again.
	flowing = 50
)

// pauses kills the daemon with the engine again and again, and starts it at once.
func (c *cluster) pauses(ctx context.Context, samples int) error {
	v, err := c.attach(ctx)
	if err != nil {
		return err
	}
	w, err := startWriters(ctx, v.device)
	if err != nil {
		return err
	}
	all, err := c.takePauses(ctx, v, w, samples)
	if err := errors.Join(err, w.stop()); err != nil {
		return err
	}
	step("read back what was acknowledged")
	if err := errors.Join(w.verify(), w.file.Close(), checkKernelLog()); err != nil {
		return err
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(resultPath, text, 0o600); err != nil {
		return err
	}
	return c.detach(ctx, v)
}

func (c *cluster) takePauses(ctx context.Context, v *volume, w *writers, samples int) ([]time.Duration, error) {
	var all []time.Duration
	for range samples {
		if err := c.awaitInSync(ctx, v); err != nil {
			return nil, err
		}
		if err := w.flow(ctx); err != nil {
			return nil, err
		}
		w.mark()
		if err := c.nodes[0].kill(); err != nil {
			return nil, err
		}
		if err := c.nodes[0].start(ctx); err != nil {
			return nil, err
		}
		if err := w.flow(ctx); err != nil {
			return nil, err
		}
		all = append(all, w.pause())
		step("pause %d: %d ms", len(all), all[len(all)-1].Milliseconds())
	}
	return all, nil
}

// writers write to the device itself, past the page cache, without a pause.
type writers struct {
	file *os.File
	stop func() error
	// acked are the values acknowledged last, by block; each block has one writer.
	acked [deviceWriters * writerBlocks]stamp.Value

	mu      sync.Mutex
	count   int
	last    time.Time
	longest time.Duration
	err     error
}

func startWriters(ctx context.Context, device string) (*writers, error) {
	file, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	w := &writers{file: file}
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	for i := range deviceWriters {
		loops.Go(func() { w.work(ctx, i) })
	}
	w.stop = func() error {
		cancel()
		loops.Wait()
		return w.failure()
	}
	return w, nil
}

// work is one writer.
func (w *writers) work(ctx context.Context, number int) {
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	for n := 0; ctx.Err() == nil; n++ {
		at := number*writerBlocks + n%writerBlocks
		v := stamp.Value(n + 1)
		stamp.Put(buf.Data, int64(at)*block.BlockSize, v)
		if _, err := w.file.WriteAt(buf.Data, int64(at)*block.BlockSize); err != nil {
			w.mu.Lock()
			w.err = errors.Join(w.err, fmt.Errorf("an error reaches the writer: %w", err))
			w.mu.Unlock()
			return
		}
		w.acked[at] = v
		w.acknowledged()
	}
}

func (w *writers) acknowledged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, time.Since(w.last))
	w.last = time.Now()
	w.count++
}

// mark begins a measurement, pause is what came of it so far.
func (w *writers) mark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.longest = time.Now(), 0
}

func (w *writers) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.longest, time.Since(w.last))
}

func (w *writers) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// flow waits until writes are acknowledged.
func (w *writers) flow(ctx context.Context) error {
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.count
	}
	before := count()
	return await(ctx, "writes to the device", func() error {
		if n := count() - before; n < flowing && w.failure() == nil {
			return fmt.Errorf("%d were acknowledged", n)
		}
		return w.failure()
	})
}

// verify reads every block back once nobody writes.
func (w *writers) verify() error {
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	for at, want := range w.acked {
		if _, err := w.file.ReadAt(buf.Data, int64(at)*block.BlockSize); err != nil {
			return err
		}
		values, err := stamp.Read(buf.Data, int64(at)*block.BlockSize)
		if err != nil {
			return err
		}
		for _, v := range values {
			if v != want {
				return fmt.Errorf("block %d reads as write %d, acknowledged was %d: %w", at, v, want, block.ErrCorrupt)
			}
		}
	}
	return nil
}
