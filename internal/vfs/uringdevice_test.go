package vfs

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// steppedRing is a device whose ring is used by the test, in place of a thread of
// its own; nil where the kernel has no io_uring.
func steppedRing(t *testing.T, log *bytes.Buffer) *UringDevice {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	d, err := OpenOSDevice(filepath.Join(t.TempDir(), "data"), OSDeviceOptions{Create: true})
	if err == nil {
		err = d.Grow(1 << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	u, err := newUringDevice(d, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	u.direct = 0
	if err := u.setUp(); err != nil {
		t.Logf("no io_uring: %v", err)
		return nil
	}
	return u
}

// submitted submits n writes and returns what waits for their end and checks it.
func submitted(t *testing.T, d Device, n int64) (check func()) {
	var running sync.WaitGroup
	for i := range n {
		io := write(i*4096, blocks(byte(i+1), 1))
		running.Add(1)
		io.Done = func(io *IO) {
			if io.Err != nil {
				t.Error(io.Err)
			}
			running.Done()
		}
		d.Submit(io)
	}
	return func() {
		t.Helper()
		running.Wait()
		for i := range n {
			done := make(chan struct{})
			read := &IO{Kind: Read, Offset: i * 4096, Data: blocks(0, 1), Done: func(*IO) { close(done) }}
			d.(*UringDevice).OSDevice.Submit(read)
			<-done
			if read.Err != nil || !bytes.Equal(read.Data, blocks(byte(i+1), 1)) {
				t.Errorf("block %d was not written (%v)", i, read.Err)
			}
		}
	}
}

// TestUringRefusesSubmissions: when io_uring_enter fails, the workers do what it has
// not taken, what waits, and all that comes.
func TestUringRefusesSubmissions(t *testing.T) {
	var log bytes.Buffer
	u := steppedRing(t, &log)
	if u == nil {
		return
	}
	check := submitted(t, u, 2*ringDepth)
	fd := u.ring.fd
	u.ring.fd = -1
	u.fill()
	u.enter()
	check()
	if !strings.Contains(log.String(), "io_uring fails") || u.ringed != 0 || len(u.free) != ringDepth {
		t.Errorf("%d in the ring, %d places free, in the log: %s", u.ringed, len(u.free), log.String())
	}
	submitted(t, u, 3)()
	if u.fill() {
		t.Error("the ring is still needed")
	}
	u.ring.fd = fd
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

// TestUringRedoes: what the kernel gives up, without an error of the disk, is done
// again by the workers.
func TestUringRedoes(t *testing.T) {
	u := steppedRing(t, new(bytes.Buffer))
	if u == nil {
		return
	}
	const count = 4
	check := submitted(t, u, count)
	u.fill()
	// Submissions are taken back and completions put in place of the kernel's.
	for i, errno := range [count]unix.Errno{unix.EINTR, unix.EAGAIN, unix.ECANCELED, 0} {
		u.ring.cqes[(*u.ring.cqTail+uint32(i))&u.ring.cqMask] = ringCQE{userData: u.ring.takeBack(), result: -int32(errno)}
	}
	*u.ring.cqTail += count
	u.reap()
	check()
	if u.broken || u.ringed != 0 || len(u.free) != ringDepth {
		t.Errorf("broken %v, %d in the ring, %d places free", u.broken, u.ringed, len(u.free))
	}
	// The read that wakes is still to be submitted; it was first.
	if u.ring.unsubmitted != 1 || u.ring.takeBack() != wakeData {
		t.Error("the read that wakes is gone")
	}
	u.waking = false
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

// TestUringJudges: of operations that failed together, none is known to have failed.
func TestUringJudges(t *testing.T) {
	u := &UringDevice{OSDevice: &OSDevice{path: "disk"}}
	alone, joined := write(0, blocks(1, 1)), write(0, blocks(1, 1))
	joined.rest = write(4096, blocks(1, 1))
	if u.judge(joined, 8192, 2, -int32(unix.EIO)) || !u.judge(joined, 8192, 2, 8192) || joined.Err != nil || joined.rest.Err != nil {
		t.Errorf("of two: %v, %v", joined.Err, joined.rest.Err)
	}
	if !u.judge(alone, 4096, 1, -int32(unix.EIO)) || !errors.Is(alone.Err, block.ErrDiskFailed) || !errors.Is(alone.Err, unix.EIO) {
		t.Errorf("alone: %v", alone.Err)
	}
	if u.judge(alone, 4096, 1, 512) || u.judge(alone, 4096, 1, -int32(unix.EAGAIN)) {
		t.Error("what was not done in full is taken as done")
	}
}

// TestUringSyncs: while the thread serves sockets it syncs by the ring, once, and never
// again when that has failed.
func TestUringSyncs(t *testing.T) {
	u := steppedRing(t, new(bytes.Buffer))
	if u == nil {
		return
	}
	ended := 0
	sync := &IO{Kind: Sync, Done: func(*IO) { ended++ }}
	u.streaming = 1
	for i, errno := range []unix.Errno{0, unix.EIO} {
		u.Submit(sync)
		if u.fill(); u.ringed != 1 || len(u.free) != ringDepth-1 {
			t.Fatalf("%d in the ring, %d places free", u.ringed, len(u.free))
		}
		if errno != 0 {
			u.ring.cqes[*u.ring.cqTail&u.ring.cqMask] = ringCQE{userData: u.ring.takeBack(), result: -int32(errno)}
			*u.ring.cqTail++
		}
		for range 10 {
			if u.reap(); ended <= i {
				u.enter()
			}
		}
		if ended != i+1 || (sync.Err != nil) != (errno != 0) || u.ringed != 0 {
			t.Errorf("%d syncs ended, with %v; %d in the ring", ended, sync.Err, u.ringed)
		}
	}
	if !errors.Is(sync.Err, unix.EIO) || !errors.Is(sync.Err, block.ErrDiskFailed) {
		t.Errorf("a failed sync ended with %v", sync.Err)
	}
	u.streaming, u.waking = 0, false
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

// TestUringFull: a ring that has no place left takes the rest later.
func TestUringFull(t *testing.T) {
	u := steppedRing(t, new(bytes.Buffer))
	if u == nil {
		return
	}
	check := submitted(t, u, ringDepth+10)
	u.fill()
	if len(u.free) != 1 || u.ring.unsubmitted != ringDepth || u.asleep {
		t.Errorf("%d places free, %d to be submitted, asleep %v", len(u.free), u.ring.unsubmitted, u.asleep)
	}
	for u.ringed > 0 {
		u.enter()
		u.reap()
		u.fill()
	}
	check()
	if !u.asleep {
		t.Error("nothing waits, and the thread must not be woken")
	}
	closed := make(chan error)
	u.serving.Add(1)
	go func() { closed <- u.Close() }()
	for u.fill() {
		u.enter()
		u.reap()
	}
	u.serving.Done()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestUringHelps: the ring's thread runs jobs between completions. What these submit is
// on its way without a wake.
func TestUringHelps(t *testing.T) {
	u := steppedRing(t, new(bytes.Buffer))
	if u == nil {
		return
	}
	u.fill()
	var check func()
	again := false
	if !Help(u, func() {
		check = submitted(t, u, 3)
		if !Help(u, func() { again = true }) {
			t.Error("refused from within a job")
		}
	}) || u.asleep {
		t.Fatal("the thread does not help, or sleeps")
	}
	u.fill()
	if u.ringed != 3 || again || u.waitFor != 0 {
		t.Errorf("after the first job: %d in the ring, the second run %v, waits for %d", u.ringed, again, u.waitFor)
	}
	for u.fill(); u.ringed > 0; u.fill() {
		u.enter()
		u.reap()
	}
	check()
	if !again || u.waitFor != 1 || !u.asleep {
		t.Errorf("the second job: run %v, then waits for %d, asleep %v", again, u.waitFor, u.asleep)
	}
	closed := make(chan error)
	u.serving.Add(1)
	go func() { closed <- u.Close() }()
	for u.fill() {
		u.enter()
		u.reap()
	}
	u.serving.Done()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if Help(u, func() {}) || Help(u.OSDevice, func() {}) {
		t.Error("a job for a thread that is not there")
	}
}

// TestRingTooDeep: what setup refuses is an error.
func TestRingTooDeep(t *testing.T) {
	if _, err := newRing(1<<20, ringOwnThread); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
