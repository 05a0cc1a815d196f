package vfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/turn"
)

const (
	// ringDepth is the number of operations that the kernel is given at once
	// through the ring; more wait in the device.
	ringDepth = 128
	// Below directTransfers reads and writes in flight the workers are the cheaper
	// way: a worker sleeps in its call and wakes by itself, the ring's thread must be
	// woken to submit. As a batch that ends at once leaves few in flight for a moment
	// only, the way is changed when fewSubmissions in a row have found so few.
	directTransfers = 4
	fewSubmissions  = 32
	// An eighth of what is in flight, but reapLeast to reapMost and up to reapBytes, is
	// handed out before the next submission: the owner looks at what was read and often
	// asks for more at once, and the disk should not wait for all of that. One at a time
	// would be a system call each.
	reapLeast = 4
	reapMost  = 16
	reapBytes = 256 << 10
	// The ring's thread passes Go's scheduler at least every ringYields: a goroutine
	// that never does counts as one that does not give way, and has its processor taken
	// away in each of its system calls.
	ringYields = 8 * time.Millisecond
	// wakeData marks the read that wakes the ring's thread; others have the number
	// of their slot.
	wakeData = 1 << 32
)

// UringDevice is an OSDevice whose reads and writes go through an io_uring when
// there are many of them: what was submitted since the last time is handed to the
// kernel by one call, which also waits for what ends.
//
// One goroutine has the ring, and a thread of its own. Discards, single reads and
// writes, and whatever the ring did not do in full are carried out by the workers of the
// OSDevice, so they end alike. So are syncs, unless the ring's thread has streams: what
// waits for a sync then goes on where it was asked for.
type UringDevice struct {
	*OSDevice
	ring *ring
	// one is what is written to event.
	event  int
	one    [8]byte
	logger *slog.Logger
	// direct is directTransfers and flags ringOwnThread, but for tests.
	direct  int
	flags   uint32
	serving sync.WaitGroup

	// ringQueue is what waits for a place in the ring, ringed counts these and those
	// in it. They and all up to ending are guarded by mu.
	ringQueue ioQueue
	ringed    int
	// few counts, up to fewSubmissions, the latest submissions in a row that found
	// fewer than direct transfers in flight.
	few int
	// streaming counts the streams.
	streaming int
	// jobs are what the ring's thread is asked to do, spareJobs their memory.
	jobs, spareJobs []func()
	// asleep: the ring's thread waits in the kernel and must be woken for new
	// operations.
	asleep bool
	// broken: the kernel refused to take operations; the workers do them all.
	broken bool
	// ending: the device is being closed.
	ending bool

	// The rest belongs to the ring's thread. turn ends before each enter. streams are
	// the sockets it waits for, by their number; receives and cancels are what they want
	// of the kernel. leaving: they are to go elsewhere.
	// wakeBuffer is what event is read to, waitFor how many ends the next enter waits
	// for.
	turn       turn.Turn
	streams    []*stream
	receives   []*stream
	cancels    []int
	leaving    bool
	wakeBuffer *[8]byte
	waking     bool
	waitFor    uint32
	slots      [ringDepth]*IO
	free       []uint32
	ended      [reapMost]*IO
	results    [reapMost]ringCQE
}

// startUring gives the device a ring; it fails where the kernel allows none.
func startUring(d *OSDevice, logger *slog.Logger) (*UringDevice, error) {
	u, err := newUringDevice(d, logger)
	if err == nil {
		err = u.start()
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

func (d *UringDevice) start() error {
	started := make(chan error)
	d.serving.Go(func() { d.serve(started) })
	if err := <-started; err != nil {
		return errors.Join(err, unix.Close(d.event))
	}
	d.mu.Lock()
	d.loop = d
	d.mu.Unlock()
	return nil
}

func newUringDevice(d *OSDevice, logger *slog.Logger) (*UringDevice, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	u := &UringDevice{
		OSDevice: d, event: event, logger: logger, wakeBuffer: new([8]byte),
		direct: directTransfers, flags: ringOwnThread, few: fewSubmissions,
	}
	u.turn = turn.Of(u)
	binary.NativeEndian.PutUint64(u.one[:], 1)
	for slot := range uint32(ringDepth) {
		u.free = append(u.free, slot)
	}
	return u, nil
}

// Submit implements Device.
func (d *UringDevice) Submit(io *IO) {
	t := io.Submitting
	io.next, io.rest, io.Submitting = nil, nil, nil
	d.mu.Lock()
	if !d.takes(io) || d.broken || t != &d.turn && io.transfers() && d.goesDirect() {
		d.enqueue(io)
		return
	}
	d.ringQueue.push(io)
	d.ringed++
	asleep := d.asleep
	d.mu.Unlock()
	if asleep {
		t.Defer(d)
	}
}

// takes reports whether the ring may be given io. mu is held.
func (d *UringDevice) takes(io *IO) bool {
	return io.transfers() || io.Kind == Sync && d.streaming > 0
}

// EndTurn implements turn.Ender: it wakes the ring's thread for what was submitted.
func (d *UringDevice) EndTurn(*turn.Turn) {
	d.mu.Lock()
	d.unlockAwake()
}

// Help implements Helper. A job may wait for the disk, and when that has stalled nothing
// else may: so a thread that has streams does not help.
func (d *UringDevice) Help(job func()) bool {
	d.mu.Lock()
	if d.ending || d.broken || d.streaming > 0 {
		d.mu.Unlock()
		return false
	}
	d.addJob(job)
	return true
}

// addJob has job run on the ring's thread and unlocks mu, which is held.
func (d *UringDevice) addJob(job func()) {
	d.jobs = append(d.jobs, job)
	d.unlockAwake()
}

// runJobs does what the ring's thread was asked to do until now. mu is held, but for
// the jobs.
func (d *UringDevice) runJobs() {
	jobs := d.jobs
	d.jobs = d.spareJobs[:0]
	d.mu.Unlock()
	for i, job := range jobs {
		job()
		jobs[i] = nil
	}
	d.turn.End()
	d.mu.Lock()
	d.spareJobs = jobs
}

// goesDirect chooses the way of the next read or write. mu is held.
func (d *UringDevice) goesDirect() bool {
	if d.transfers+d.ringed >= d.direct {
		d.few = 0
		return false
	}
	if d.few < fewSubmissions {
		d.few++
	}
	return d.few == fewSubmissions
}

// unlockAwake unlocks mu, and wakes the ring's thread for what was added under it.
func (d *UringDevice) unlockAwake() {
	wake := d.asleep
	d.asleep = false
	d.mu.Unlock()
	if wake {
		d.wakeRing()
	}
}

// wakeRing ends the wait of the ring's thread.
func (d *UringDevice) wakeRing() {
	if _, err := unix.Write(d.event, d.one[:]); err != nil {
		panic(fmt.Sprintf("wake the thread of io_uring: %v", err))
	}
}

// serve makes the ring, says whether it works, and serves until the device is
// closed and all that was submitted has ended.
func (d *UringDevice) serve(started chan<- error) {
	// The thread ends with the goroutine: the kernel keeps things of the ring in it.
	runtime.LockOSThread()
	err := d.setUp()
	started <- err
	if err != nil {
		return
	}
	yielded := time.Now()
	for d.fill() {
		d.enter()
		d.reap()
		if now := time.Now(); now.Sub(yielded) >= ringYields {
			runtime.Gosched()
			yielded = now
		}
	}
}

// setUp makes the ring and does with it what it is for, once.
func (d *UringDevice) setUp() (err error) {
	if d.ring, err = newRing(ringDepth, d.flags); err != nil {
		return err
	}
	d.wakeRing()
	d.pushWake()
	n := 0
	for err == nil && n == 0 {
		// A signal ends the wait early.
		if err = d.ring.enter(1); err == nil {
			n = d.ring.reap(d.results[:])
		}
	}
	if err == nil && d.results[0].result != int32(len(d.wakeBuffer)) {
		err = fmt.Errorf("a read ends with %d: %w", d.results[0].result, unix.ENOSYS)
	}
	d.waking = false
	if err != nil {
		return errors.Join(fmt.Errorf("io_uring_enter: %w", err), d.ring.close())
	}
	return nil
}

// pushWake adds the read that ends when event is written to.
func (d *UringDevice) pushWake() {
	d.waking = true
	d.ring.push(ringSQE{
		opcode: ringOpRead, fd: int32(d.event), userData: wakeData,
		address: address(d.wakeBuffer[:]), length: uint32(len(d.wakeBuffer)),
	})
}

// fill runs jobs and pushes what waits, as far as there are places. It reports false
// when the ring is not needed any more and the kernel has nothing of it.
func (d *UringDevice) fill() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runJobs()
	last := d.ending || d.broken
	if last && !d.leaving {
		d.leave()
	}
	switch {
	case last && d.streaming == 0:
		if d.ringed == 0 && !d.waking && len(d.jobs) == 0 {
			return false
		}
		if d.waking {
			d.wakeRing()
		}
	case !d.waking && !d.broken:
		d.pushWake()
	}
	if !d.broken {
		d.pushStreams()
	}
	// The read that wakes takes a place too.
	for d.ringQueue.first != nil && len(d.free) > 1 && d.ring.unsubmitted < ringDepth {
		d.pushNext()
	}
	d.waitFor = 1
	if len(d.jobs) > 0 || d.ring.unsubmitted == ringDepth {
		d.waitFor = 0
	}
	d.asleep = d.ringQueue.first == nil && d.waitFor > 0
	return true
}

// pushNext gives a place in the ring to the operation that waits longest.
func (d *UringDevice) pushNext() {
	io := d.ringQueue.take()
	slot := d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	d.slots[slot] = io
	data, _ := io.joined()
	e := ringSQE{
		opcode: ringOpRead, fd: int32(d.fd), userData: uint64(slot),
		offset: uint64(io.Offset), address: address(data), length: uint32(len(data)),
	}
	switch io.Kind {
	case Write:
		e.opcode = ringOpWrite
	case Sync:
		e = ringSQE{opcode: ringOpSync, fd: e.fd, userData: e.userData, opFlags: ringSyncData}
	}
	d.ring.push(e)
}

// enter submits and waits until something has ended, unless there are jobs.
func (d *UringDevice) enter() {
	err := d.ring.enter(d.waitFor)
	d.mu.Lock()
	d.asleep = false
	d.mu.Unlock()
	if err != nil {
		d.abandonRing(err)
	}
}

// abandonRing leaves to the workers what the kernel has not taken, and all that
// comes. What it has taken ends as before.
func (d *UringDevice) abandonRing(err error) {
	d.mu.Lock()
	told := d.broken
	d.broken = true
	d.mu.Unlock()
	// Without the completions of what the kernel has, nothing is safe any more.
	invariant.Assert(!told && d.ring.unsubmitted > 0, "device %s: wait in io_uring_enter: %v", d.path, err)
	if d.logger != nil {
		d.logger.Warn("io_uring fails, threads do its work", "path", d.path, "err", err)
	}
	d.leave()
	for d.ring.unsubmitted > 0 {
		switch data := d.ring.takeBack(); {
		case data == wakeData:
			d.waking = false
		case data&receiveData != 0:
			d.receives = append(d.receives, d.streams[uint32(data)])
		case data&cancelData == 0:
			d.redo(d.vacate(uint32(data)))
		}
	}
	receives := d.receives
	d.receives = nil
	for _, s := range receives {
		s.received(-int32(unix.ECANCELED))
	}
	d.mu.Lock()
	for d.ringQueue.first != nil {
		io := d.ringQueue.pop()
		d.mu.Unlock()
		d.redo(io)
		d.mu.Lock()
	}
	d.mu.Unlock()
}

// vacate empties a slot.
func (d *UringDevice) vacate(slot uint32) *IO {
	io := d.slots[slot]
	d.slots[slot] = nil
	d.free = append(d.free, slot)
	return io
}

// redo has a worker carry io out, from its beginning.
func (d *UringDevice) redo(io *IO) {
	_, count := io.joined()
	d.mu.Lock()
	d.ringed -= count
	d.enqueue(io)
}

// reap hands out what has ended.
func (d *UringDevice) reap() {
	ended, count, bytes := 0, 0, 0
	batch := min(max((ringDepth-len(d.free))/8, reapLeast), reapMost)
	for ended < batch && bytes < reapBytes && d.ring.reap(d.results[:1]) == 1 {
		result := d.results[0]
		switch {
		case result.userData == wakeData:
			d.waking = false
			continue
		case result.userData&receiveData != 0:
			bytes += max(0, int(result.result))
			d.streams[uint32(result.userData)].received(result.result)
			continue
		case result.userData&cancelData != 0:
			continue
		}
		io := d.vacate(uint32(result.userData))
		data, joined := io.joined()
		if !d.judge(io, len(data), joined, result.result) {
			d.redo(io)
			continue
		}
		count += joined
		bytes += len(data)
		d.ended[ended] = io
		ended++
	}
	if ended > 0 {
		d.mu.Lock()
		d.ringed -= count
		d.mu.Unlock()
	}
	for i, io := range d.ended[:ended] {
		d.ended[i] = nil
		io.done(&d.turn)
	}
	d.turn.End()
}

// judge sets the errors of io and of those joined to it, length bytes altogether, by
// what the kernel said. It reports false for what a worker must do again: what the
// kernel has not done in full, or gave up, or refused without saying which it was.
func (d *UringDevice) judge(io *IO, length, joined int, result int32) bool {
	var err error
	if int(result) != length {
		errno := unix.Errno(-result)
		if result >= 0 || joined > 1 || errno == unix.EINTR || errno == unix.EAGAIN || errno == unix.ECANCELED {
			return false
		}
		err = d.classify(io.Kind.verb(), io.Offset, errno)
	}
	for ; io != nil; io = io.rest {
		io.Err = err
	}
	return true
}

// Close implements Device.
func (d *UringDevice) Close() error {
	d.mu.Lock()
	already := d.ending
	d.ending = true
	d.mu.Unlock()
	if already {
		return nil
	}
	d.wakeRing()
	// The workers may have to do again what is in the ring, so they end after it.
	d.serving.Wait()
	return errors.Join(d.ring.close(), unix.Close(d.event), d.OSDevice.Close())
}
