package vfs

import (
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/turn"
)

// receiveData marks completions of streams; the rest is the number of the stream.
// cancelData marks those of what cancels them.
const (
	receiveData = 1 << 33
	cancelData  = 1 << 34
)

// beginPatience is how long a stream waits for the ring's thread, which may be held up by
// a job that it has begun.
const beginPatience = time.Second

// stream is a socket that is read on the ring's thread, by a coroutine: where it would
// wait, the thread goes on with what else there is. What arrives is the completion of
// one more operation of the ring, and no thread is woken but by the kernel. All of it
// belongs to the ring's thread.
type stream struct {
	device *UringDevice
	fd     int32
	number int
	// resume runs the coroutine until it waits or ends (false), yield waits in it.
	resume func() (struct{}, bool)
	yield  func(struct{}) bool
	ended  chan struct{}
	// begun, guarded by the device's mu: it has begun, or is not to any more.
	begun bool

	// data is what is read to, result what came of it.
	data   []byte
	result int32
	// receiving: the kernel has a receive, or is about to be given it. parked: the
	// coroutine waits for unpark, which came before if unparked.
	receiving, boundary, parked, unparked bool
	stopped                               bool
}

// Run implements turn.Loop.
func (d *UringDevice) Run(fd int, f func(turn.Stream)) bool {
	s := &stream{device: d, fd: int32(fd), ended: make(chan struct{})}
	d.mu.Lock()
	if d.ending || d.broken {
		d.mu.Unlock()
		return false
	}
	d.streaming++
	d.addJob(func() { d.begin(s, f) })
	patience := time.NewTimer(beginPatience)
	defer patience.Stop()
	select {
	case <-s.ended:
		return true
	case <-patience.C:
	}
	if d.giveUp(s) {
		return false
	}
	<-s.ended
	return true
}

// giveUp ends a stream that has not begun, if it has not.
func (d *UringDevice) giveUp(s *stream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.begun {
		return false
	}
	s.begun = true
	d.streaming--
	return true
}

// begin starts a stream, unless it was given up.
func (d *UringDevice) begin(s *stream, f func(turn.Stream)) {
	d.mu.Lock()
	late := s.begun
	s.begun = true
	d.mu.Unlock()
	if late {
		return
	}
	if s.number = slices.Index(d.streams, nil); s.number < 0 {
		s.number = len(d.streams)
		d.streams = append(d.streams, nil)
	}
	d.streams[s.number] = s
	s.resume, _ = iter.Pull(func(yield func(struct{}) bool) {
		s.yield = yield
		f(s)
	})
	s.step()
}

// step lets the coroutine go on.
func (s *stream) step() {
	if _, more := s.resume(); more {
		return
	}
	d := s.device
	d.streams[s.number] = nil
	d.mu.Lock()
	d.streaming--
	d.mu.Unlock()
	close(s.ended)
}

// Read implements turn.Stream.
func (s *stream) Read(b []byte, boundary bool) (int, error) {
	for {
		switch {
		case s.stopped:
			return 0, os.ErrDeadlineExceeded
		case boundary && s.device.leaving:
			return 0, turn.ErrMoved
		case s.device.broken:
			return 0, os.ErrClosed
		}
		s.data, s.boundary, s.receiving = b, boundary, true
		s.device.receives = append(s.device.receives, s)
		s.yield(struct{}{})
		s.data = nil
		switch errno := unix.Errno(-s.result); {
		case s.result > 0:
			return int(s.result), nil
		case s.result == 0:
			return 0, io.EOF
		case errno != unix.EINTR && errno != unix.EAGAIN && errno != unix.ECANCELED:
			return 0, os.NewSyscallError("recv", errno)
		}
	}
}

// received takes the end of a receive.
func (s *stream) received(result int32) {
	s.receiving, s.result = false, result
	s.step()
}

// Turn implements turn.Stream.
func (s *stream) Turn() *turn.Turn { return &s.device.turn }

// Park implements turn.Stream.
func (s *stream) Park() {
	if s.unparked {
		s.unparked = false
		return
	}
	s.parked = true
	s.yield(struct{}{})
}

// Unpark implements turn.Stream.
func (s *stream) Unpark() {
	s.device.mu.Lock()
	s.device.addJob(func() {
		if !s.parked {
			s.unparked = true
			return
		}
		s.parked = false
		s.step()
	})
}

// Stop implements turn.Stream.
func (s *stream) Stop() {
	s.device.mu.Lock()
	s.device.addJob(func() {
		s.stopped = true
		s.cancel()
	})
}

// cancel has the kernel end the receive that it has.
func (s *stream) cancel() {
	if s.receiving {
		s.device.cancels = append(s.device.cancels, s.number)
	}
}

// leave ends what streams wait for, where nothing is half read.
func (d *UringDevice) leave() {
	d.leaving = true
	for _, s := range d.streams {
		if s != nil && s.boundary {
			s.cancel()
		}
	}
}

// pushStreams gives the kernel what streams want, as far as there is room: receives
// first, so that each can be cancelled.
func (d *UringDevice) pushStreams() {
	n := 0
	for n < len(d.receives) && d.ring.unsubmitted < ringDepth {
		s := d.receives[n]
		d.ring.push(ringSQE{
			opcode: ringOpReceive, fd: s.fd, userData: receiveData | uint64(s.number),
			address: address(s.data), length: uint32(len(s.data)),
		})
		n++
	}
	d.receives = append(d.receives[:0], d.receives[n:]...)
	n = 0
	for len(d.receives) == 0 && n < len(d.cancels) && d.ring.unsubmitted < ringDepth {
		d.ring.push(ringSQE{opcode: ringOpCancel, fd: -1, userData: cancelData, address: receiveData | uint64(d.cancels[n])})
		n++
	}
	d.cancels = append(d.cancels[:0], d.cancels[n:]...)
}
