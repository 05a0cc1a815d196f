package main

import (
	"errors"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
)

// put is how a load in this process gives a request to what it measures: a read or
// write of the lane's buffer at its offset, or a flush. The end of the request calls
// l.ended.
type put func(l *lane, flush bool)

// generator keeps a number of requests in flight. Each begins the next one when it
// ends, where it ends, so that no goroutine of the generator's own is measured.
type generator struct {
	workload
	sizeBytes int64
	put       put
	deadline  time.Time
	// next numbers the requests of a load that is no lottery.
	next    atomic.Int64
	running sync.WaitGroup
	lanes   []*lane
}

// lane is one request, again and again, and what it came to.
type lane struct {
	g          *generator
	random     *rand.Rand
	buffer     *block.Buffer
	offset     int64
	flushing   bool
	began      time.Time
	operations int64
	latencies  histogram
	err        error
	// io and op are for put; each has its Done.
	io vfs.IO
	op store.Op
}

func newGenerator(w workload, sizeBytes int64, seed int, put put) *generator {
	g := &generator{workload: w, sizeBytes: sizeBytes, put: put}
	for i := range w.Depth {
		l := &lane{g: g, random: rand.New(rand.NewPCG(uint64(seed), uint64(i))), buffer: block.NewBuffer(int(w.BlockBytes))}
		for at := range l.buffer.Data {
			l.buffer.Data[at] = byte(at*7 + i)
		}
		l.io.Done = func(io *vfs.IO) { l.ended(io.Err) }
		l.op.Done = func(op *store.Op) { l.ended(op.Err) }
		g.lanes = append(g.lanes, l)
	}
	return g
}

// run puts the load on for runtime, or until every block was written of a volume
// that is written once.
func (g *generator) run(runtimeLimit time.Duration) (load, error) {
	var memory [2]runtime.MemStats
	var usage [2]unix.Rusage
	runtime.ReadMemStats(&memory[0])
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage[0]); err != nil {
		return load{}, err
	}
	began := time.Now()
	g.deadline = began.Add(runtimeLimit)
	for _, l := range g.lanes {
		g.running.Add(1)
		l.begin()
	}
	g.running.Wait()
	elapsed := time.Since(began)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage[1]); err != nil {
		return load{}, err
	}
	runtime.ReadMemStats(&memory[1])
	var all histogram
	var errs []error
	result := load{ProcessCPU: time.Duration(usage[1].Utime.Nano() + usage[1].Stime.Nano() - usage[0].Utime.Nano() - usage[0].Stime.Nano())}
	for _, l := range g.lanes {
		result.Operations += l.operations
		all.add(&l.latencies)
		errs = append(errs, l.err)
		l.buffer.Release()
	}
	if err := errors.Join(errs...); err != nil {
		return load{}, err
	}
	if result.Operations == 0 {
		return load{}, errors.New("no operation was done")
	}
	result.Rate = float64(result.Operations) / elapsed.Seconds()
	result.P50, result.P99 = all.quantile(0.50), all.quantile(0.99)
	result.Allocations = float64(memory[1].Mallocs-memory[0].Mallocs) / float64(result.Operations)
	return result, nil
}

// stride is prime, so that its multiples visit every block of a volume that is
// smaller, in an order that no disk likes.
const stride = 2147483647

// choose finds the place of the next request; false if there is none.
func (l *lane) choose() bool {
	g := l.g
	slots := g.sizeBytes / g.BlockBytes
	switch {
	case g.First:
		i := g.next.Add(1) - 1
		l.offset = i % slots * (stride % slots) % slots * g.BlockBytes
		return i < slots
	case g.Pattern == "read" || g.Pattern == "write":
		l.offset = (g.next.Add(1) - 1) % slots * g.BlockBytes
	default:
		l.offset = l.random.Int64N(slots) * g.BlockBytes
	}
	return true
}

func (l *lane) begin() {
	if !l.choose() {
		l.g.running.Done()
		return
	}
	l.began = time.Now()
	l.g.put(l, false)
}

// ended goes on with the flush of the write that has ended, or with the next one.
func (l *lane) ended(err error) {
	if l.g.Flush && err == nil && !l.flushing {
		l.flushing = true
		l.g.put(l, true)
		return
	}
	l.flushing = false
	now := time.Now()
	l.latencies.count(now.Sub(l.began))
	l.operations++
	if err != nil || now.After(l.g.deadline) {
		l.err = err
		l.g.running.Done()
		return
	}
	l.begin()
}

// toDevice puts requests on a device, from the byte first on.
func toDevice(d vfs.Device, first int64) put {
	return func(l *lane, flush bool) {
		l.io.Kind, l.io.Offset, l.io.Length, l.io.Data = vfs.Read, first+l.offset, l.g.BlockBytes, l.buffer.Data
		switch {
		case flush:
			l.io.Kind, l.io.Data = vfs.Sync, nil
		case l.g.writes():
			l.io.Kind = vfs.Write
		}
		d.Submit(&l.io)
	}
}

// toReplica puts requests on a replica. Flushes are numbered as an engine does it for
// writes to regions in the log: anew each second.
func toReplica(r *store.Replica) put {
	epoch, start := r.FlushNumber().Epoch+1, time.Now()
	return func(l *lane, flush bool) {
		l.op.Kind, l.op.Offset, l.op.Length, l.op.Buf = store.Read, l.offset, l.g.BlockBytes, l.buffer
		switch {
		case flush:
			l.op.Kind, l.op.Buf = store.Flush, nil
			l.op.FlushNumber = block.FlushNumber{Epoch: epoch, N: 1 + uint64(l.began.Sub(start)/time.Second)}
		case l.g.writes():
			l.op.Kind = store.Write
		}
		r.Submit(&l.op)
	}
}

// histogram counts durations, each to a sixteenth of its size.
type histogram [64 * histogramSteps]int64

const histogramSteps = 16

func (h *histogram) count(d time.Duration) { h[histogramPlace(d)]++ }

func histogramPlace(d time.Duration) int {
	n := uint64(max(d, histogramSteps))
	shift := bits.Len64(n) - bits.Len64(histogramSteps)
	return shift*histogramSteps + int(n>>shift)
}

func (h *histogram) add(other *histogram) {
	for i, n := range other {
		h[i] += n
	}
}

// quantile is the duration that the share q does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	var all int64
	for _, n := range h {
		all += n
	}
	rest := int64(q * float64(all))
	for i, n := range h {
		if rest -= n; rest < 0 {
			shift := max(0, i/histogramSteps-1)
			return time.Duration(i-shift*histogramSteps) << shift
		}
	}
	return 0
}
