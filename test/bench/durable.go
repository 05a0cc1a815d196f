package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// durableWriter writes so that what it has written is on the disk.
type durableWriter interface {
	WriteDurably(p []byte, offset int64) (int, error)
	io.Closer
}

// durableFile is a file past the page cache, of which each write is durable.
type durableFile struct{ *os.File }

// WriteDurably implements durableWriter.
func (f durableFile) WriteDurably(p []byte, offset int64) (int, error) { return f.WriteAt(p, offset) }

// openDurable opens what fio would be pointed at: fio's nbd engine knows no FUA.
func (t target) openDurable(ctx context.Context) (durableWriter, error) {
	for _, arg := range t {
		if path, ok := strings.CutPrefix(arg, "--filename="); ok {
			file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
			return durableFile{file}, err
		}
		if uri, ok := strings.CutPrefix(arg, "--uri="); ok {
			return connect(ctx, uri)
		}
	}
	return nil, fmt.Errorf("no durable writes to %v: neither a file nor an NBD server", t)
}

// connect makes us the client of the default export at a URI with a unix socket.
func connect(ctx context.Context, uri string) (*nbd.Client, error) {
	parsed, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", parsed.Query().Get("socket"))
	if err != nil {
		return nil, err
	}
	return nbd.Connect(ctx, conn, nbd.ClientConfig{})
}

// durableLoads puts a workload of durable writes on a target, from this process.
func durableLoads(t target, o options) func(context.Context, workload, int) (load, error) {
	return func(ctx context.Context, w workload, round int) (l load, err error) {
		disk, err := t.openDurable(ctx)
		if err != nil {
			return load{}, err
		}
		defer func() { err = errors.Join(err, disk.Close()) }()
		before, err := ownCPU()
		if err != nil {
			return load{}, err
		}
		if l, err = writeDurably(ctx, disk, w, o, uint64(round+1)); err != nil {
			return load{}, err
		}
		after, err := ownCPU()
		l.ProcessCPU = after - before
		l.ClientCPU = l.ProcessCPU
		return l, err
	}
}

// writeDurably writes one block after the other.
func writeDurably(ctx context.Context, disk durableWriter, w workload, o options, seed uint64) (load, error) {
	random := rand.New(rand.NewPCG(seed, 0))
	buffer := block.NewBuffer(int(w.BlockBytes))
	defer buffer.Release()
	for i := range buffer.Data {
		buffer.Data[i] = byte(random.Uint32())
	}
	var l load
	var latencies histogram
	began := time.Now()
	for now := began; now.Sub(began) < o.Runtime; {
		if err := ctx.Err(); err != nil {
			return load{}, err
		}
		offset := random.Int64N(o.SizeBytes/w.BlockBytes) * w.BlockBytes
		if _, err := disk.WriteDurably(buffer.Data, offset); err != nil {
			return load{}, err
		}
		ended := time.Now()
		latencies.count(ended.Sub(now))
		l.Operations++
		now = ended
	}
	l.Rate = float64(l.Operations) / time.Since(began).Seconds()
	l.P50, l.P99 = latencies.quantile(0.50), latencies.quantile(0.99)
	return l, nil
}

// ownCPU is what this process has used so far.
func ownCPU() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("read the CPU time of this process: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
