// Package socket has connections that are written by few system calls, and that a loop
// (package turn) can read.
package socket

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lookAgain is how often a loose socket that takes no more bytes is asked whether it was
// closed meanwhile, or its deadline has passed.
const lookAgain = 100 * time.Millisecond

// Socket is a connection that can be taken out of Go's poller, and put back. The poller
// is told of whatever arrives, and wakes a thread for it, whether or not anybody waits
// there: where a loop waits, that costs more than the loop saves.
type Socket struct {
	mu sync.Mutex
	// conn is the connection in the poller, nil while it is loose, and raw its file
	// descriptor, nil if conn is more than a socket (TLS).
	conn net.Conn
	raw  syscall.RawConn
	// loose is the descriptor out of the poller, nil while it is there.
	loose *descriptor
	// readUntil and writeUntil are the deadlines.
	readUntil, writeUntil time.Time
	closed                bool
}

// descriptor is closed with its last use.
type descriptor struct{ fd, uses int }

// New takes conn over.
func New(conn net.Conn) *Socket {
	s := &Socket{}
	s.attach(conn)
	return s
}

func (s *Socket) attach(conn net.Conn) {
	s.conn = conn
	switch plain := conn.(type) {
	case *net.TCPConn:
		s.raw, _ = plain.SyscallConn()
	case *net.UnixConn:
		s.raw, _ = plain.SyscallConn()
	}
}

// Plain reports whether it is a socket and no more, so that it can be loose.
func (s *Socket) Plain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw != nil || s.loose != nil
}

// Read implements io.Reader. It is not for a time when the socket is loose.
func (s *Socket) Read(b []byte) (int, error) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return 0, net.ErrClosed
	}
	return conn.Read(b)
}

// Loosen takes the socket out of the poller for as long as use runs, which is given its
// file descriptor. Nobody may be in Read. The descriptor is good until use returns, also
// if the socket is closed meanwhile; net.ErrClosed then, or if it is closed already.
func (s *Socket) Loosen(use func(fd int)) error {
	d, old, err := s.detach()
	if err != nil {
		return err
	}
	// A writer that waits there goes on here.
	err = old.Close()
	use(d.fd)
	return errors.Join(err, s.reattach(d))
}

// detach makes the socket loose and returns the descriptor, used by the caller, and the
// connection that it was.
func (s *Socket) detach() (*descriptor, net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.raw == nil {
		return nil, nil, net.ErrClosed
	}
	d := &descriptor{uses: 2}
	var err error
	controlErr := s.raw.Control(func(fd uintptr) {
		d.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(controlErr, os.NewSyscallError("dup", err)); err != nil {
		return nil, nil, err
	}
	old := s.conn
	s.conn, s.raw, s.loose = nil, nil, d
	return d, old, nil
}

// reattach puts the socket back into the poller.
func (s *Socket) reattach(d *descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer d.end()
	if s.closed {
		return net.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	s.loose = nil
	d.end()
	s.attach(conn)
	return errors.Join(conn.SetReadDeadline(s.readUntil), conn.SetWriteDeadline(s.writeUntil))
}

// end ends a use; the socket's mutex is held.
func (d *descriptor) end() {
	if d.uses--; d.uses == 0 {
		// Of a socket nobody reads any more it tells nothing.
		_ = unix.Close(d.fd)
	}
}

// write calls attempt with the file descriptor until it reports true, and before each
// further time waits until the socket takes more. It may call it on another descriptor
// of the same socket.
func (s *Socket) write(attempt func(fd uintptr) bool) error {
	for {
		s.mu.Lock()
		raw, d := s.raw, s.loose
		if s.closed {
			s.mu.Unlock()
			return net.ErrClosed
		}
		if d == nil {
			s.mu.Unlock()
			err := raw.Write(attempt)
			if errors.Is(err, net.ErrClosed) && s.isLoose() {
				continue
			}
			return err
		}
		d.uses++
		s.mu.Unlock()
		err := s.writeLoose(d, attempt)
		s.mu.Lock()
		d.end()
		s.mu.Unlock()
		return err
	}
}

func (s *Socket) isLoose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loose != nil
}

func (s *Socket) writeLoose(d *descriptor, attempt func(fd uintptr) bool) error {
	for !attempt(uintptr(d.fd)) {
		for room := false; !room; {
			s.mu.Lock()
			closed, until := s.closed, s.writeUntil
			s.mu.Unlock()
			switch {
			case closed:
				return net.ErrClosed
			case !until.IsZero() && !time.Now().Before(until):
				return os.ErrDeadlineExceeded
			}
			wanted := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLOUT}}
			n, err := unix.Poll(wanted, int(lookAgain/time.Millisecond))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("poll", err)
			}
			room = n > 0
		}
	}
	return nil
}

// writeFlat writes to a connection that is never loose.
func (s *Socket) writeFlat(b []byte) error {
	_, err := s.conn.Write(b)
	return err
}

// SetReadDeadline is that of net.Conn. A loop that reads is stopped otherwise.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readUntil = t
	if s.conn == nil {
		return nil
	}
	return s.conn.SetReadDeadline(t)
}

// SetWriteDeadline is that of net.Conn.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeUntil = t
	if s.conn == nil {
		return nil
	}
	return s.conn.SetWriteDeadline(t)
}

// Close closes the connection. It does not wait.
func (s *Socket) Close() error { return s.close(net.Conn.Close) }

// HangUp closes the connection at once: of TLS it leaves out the farewell, which may
// wait for a peer that does not read.
func (s *Socket) HangUp() error {
	return s.close(func(conn net.Conn) error {
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn()
		}
		return conn.Close()
	})
}

func (s *Socket) close(end func(net.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if d := s.loose; d != nil {
		// Whoever reads it has it open still.
		err := unix.Shutdown(d.fd, unix.SHUT_RDWR)
		s.loose = nil
		d.end()
		if errors.Is(err, unix.ENOTCONN) {
			err = nil
		}
		return os.NewSyscallError("shutdown", err)
	}
	return end(s.conn)
}
